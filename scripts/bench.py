#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Read what scripts/guest/bench printed on each core; check, show and draw it.

DIR holds CORE-BOOT-cpusN.output of every boot. A figure there is a line
"= NAME WHERE VALUE...". Writes bench.json and the plots into DIR.
"""

import argparse
import json
import os
import re
import statistics
import sys

CORES = {"c": "C core", "m": "Rust, =m", "y": "Rust, =y"}
# These loops run with interrupts off: there is nothing to make them differ. (But
# the order of a hash chain comes from when the table was resized.)
EXACT = "call."
TOLERANCE = 0.01


class Boot:
    """The figures of one boot (or two, with one and with two CPUs)."""

    def __init__(self):
        self.figures = {}

    def read(self, path):
        with open(path, errors="replace") as f:
            for line in f:
                m = re.match(r"= (\S+) (\S+) (.*)", line)
                if m:
                    self.figures[m[1], m[2]] = m[3].split()

    def get(self, name, where="-", index=0):
        values = self.figures.get((name, where))
        return None if values is None else float(values[index])

    def sweep(self, name, key, index=0):
        """{x: value} over all figures of that name, where "KEY=x" says where."""
        found = {}
        for (n, where), values in self.figures.items():
            m = re.fullmatch(key + r"=(\d+)", where)
            if n == name and m:
                found[int(m[1])] = float(values[index])
        return found


def minus(a, b):
    return None if a is None or b is None else a - b


def largest(values):
    values = [v for v in values if v is not None]
    return max(values) if values else None


def call(boot, name, where, index=0):
    """What such a call costs more than one of a function not patched."""
    value = minus(boot.get(name, where, index), boot.get("call.unpatched"))
    return None if value is None else value / 1000


def steady(boot):
    # Of all functions of all livepatches the one whose call costs most.
    return largest(call(boot, "call.steady", "F=%d" % f, 2) for f in boot.sweep("call.steady", "F"))


def in_transition(boot):
    return largest(call(boot, "call.transition", "to=" + to) for to in
                   ("patched", "patched-2", "original", "older"))


def per_task(boot, f):
    more, less = (boot.get("pass.enable", "F=%d,N=%d" % (f, n)) for n in (1000, 10))
    diff = minus(more, less)
    return None if diff is None else diff / 990


def ratio(boot):
    one, many = per_task(boot, 1), per_task(boot, 1000)
    return many / one if one and many else None


def section(boot, n=10000):
    where = "F=1000,N=%d" % n
    return largest(boot.get("watch." + what, where, i) for what in ("enable", "disable") for i in (0, 1))


def reading(boot):
    return largest(boot.get("watch.read", "what=%s,N=10000" % what, i) for what in ("transition", "preflight")
                   for i in (0, 1))


def memory(boot, name="memory"):
    """What each of 999 functions more costs; the livepatch's own memory is not in it."""
    grown = []
    for f in (1, 1000):
        v = boot.figures.get((name, "F=%d" % f))
        if v is None:
            return None
        grown.append(sum(float(after) - float(before) for before, after in zip(v[:4], v[4:])))
    return (grown[1] - grown[0]) / 999


# metric, description, unit, value of a boot. The guest prints no call.jump as
# long as no core has it.
ROWS = (
    ("call.steady", "patched call, over unpatched, any F", "insns", steady),
    ("call.jump", "  the same with direct jump on", "insns", lambda b: call(b, "call.jump", "F=1000", 2)),
    ("call.jump-only", "  a jump by ftrace alone, no livepatch", "insns", lambda b: call(b, "call.jump-only", "-")),
    ("call.transition", "call during a transition", "insns", in_transition),
    ("call.traced", "patched and traced call, F=1000", "insns", lambda b: call(b, "call.traced", "F=1000")),
    ("enable.insns", "enable F=1000", "insns", lambda b: b.get("enable.insns", "F=1000")),
    ("disable.ns", "disable F=1000", "time", lambda b: b.get("disable.ns", "F=1000")),
    ("disable.insns", "  of it instructions", "insns", lambda b: b.get("disable.insns", "F=1000")),
    ("replace.ns", "replace F=1000 by an empty one", "time", lambda b: b.get("replace.ns", "F=1000")),
    ("replace.insns", "  of it instructions", "insns", lambda b: b.get("replace.insns", "F=1000")),
    ("refused.ns", "enable fails at function 947 of 1000", "time", lambda b: b.get("refused.ns", "F=1000")),
    ("refused.insns", "  of it instructions", "insns", lambda b: b.get("refused.insns", "F=1000")),
    ("pass.task", "pass per sleeping task, F=1000", "insns", lambda b: per_task(b, 1000)),
    ("pass.task1", "  the same, F=1", "insns", lambda b: per_task(b, 1)),
    ("pass.ratio", "  F=1000 over F=1", "", ratio),
    ("smp.enable", "idle, 2 CPUs, F=1: enable, slowest of 5", "time", lambda b: largest(b.sweep("smp.enable", "run").values())),
    ("smp.vcpu", "  enable beside a virtual CPU's loop", "time", lambda b: b.get("smp.vcpu")),
    ("section.longest", "longest section, F=1000, N=10000", "insns", section),
    ("section.1000", "  the same, N=1000", "insns", lambda b: section(b, 1000)),
    ("section.read", "  read who blocks, or would, N=10000", "insns", reading),
    ("shadow.get", "shadow get, 1 M live", "insns", lambda b: (lambda v: v and v / 1000)(b.get("shadow.get", "live=1000000"))),
    ("shadow.free-section", "shadow free of 100,000: longest irq-off", "insns", lambda b: b.get("shadow.free-all-watched", "live=100000")),
    ("exit.pair", "exit of a task, more than without livepatch", "insns", lambda b: (lambda v: v and v / 1000)(b.get("exit.pair"))),
    ("memory", "memory per patched function, F=1000", "bytes", memory),
    ("memory.stacked", "  the same, if it is hooked already", "bytes", lambda b: memory(b, "memory.stacked")),
    ("size.text", "text of the core, KUnit off", "bytes", lambda b: b.get("size", index=0)),
    ("size.data", "  data", "bytes", lambda b: b.get("size", index=1)),
    ("size.bss", "  bss", "bytes", lambda b: b.get("size", index=2)),
)


def show(value, unit):
    if value is None:
        return "-"
    if unit == "time":
        return "%.3f s" % (value / 1e9) if value >= 1e9 else "%.1f ms" % (value / 1e6)
    if abs(value) >= 1e6:
        return "%s M" % format(value / 1e6, ",.2f")
    if unit == "":
        return "%.2f" % value
    # A fraction of an instruction is a mean, or the clock's step (arm64).
    return format(value, ",.1f").removesuffix(".0")


def read_gates(path, arch):
    gates = {}
    with open(path) as f:
        for line in f:
            fields = line.split("#")[0].split()
            if not fields:
                continue
            metric, _, only = fields[0].partition("@")
            if only not in ("", arch) or (not only and gates.get(metric, ("",))[0] == "arch"):
                continue
            gates[metric] = ("arch" if only else "all", float(fields[1]), "todo" in fields[2:])
    return {metric: gate[1:] for metric, gate in gates.items()}


def read_boots(directory):
    boots = {}
    for name in sorted(os.listdir(directory)):
        m = re.fullmatch(r"([cmy])-(\d+)-cpus\d+\.output", name)
        if m:
            boots.setdefault(m[1], {}).setdefault(int(m[2]), Boot()).read(os.path.join(directory, name))
    return {core: [numbered[i] for i in sorted(numbered)] for core, numbered in boots.items()}


def differences(core, boots):
    """Figures of repeated boots that should be the same and are not."""
    found = []
    for key in boots[0].figures:
        if key[0].startswith(EXACT):
            values = [b.figures.get(key) for b in boots]
            if any(v != values[0] for v in values):
                found.append("%s: %s %s: %s" % (core, *key, " / ".join(" ".join(v or ["-"]) for v in values)))
    for metric, _, unit, of in ROWS:
        values = [of(b) for b in boots]
        if None in values:
            continue
        # How long one waits for an RCU grace period or for a CPU to come round
        # depends on when: what was done meanwhile has rows of its own.
        if unit == "time":
            continue
        # Where a timer finds a section's begin is a matter of its period; what
        # a kernel holds besides is not the same to the page.
        slack = 20000 if "section" in metric else 64 if metric.startswith("memory") else 0
        if max(values) - min(values) > max(TOLERANCE * max(values), slack):
            found.append("%s: %s: %s" % (core, metric, " / ".join(show(v, unit) for v in values)))
    return found


def table(values, gates):
    """The lines of the table, and the gates that do not hold."""
    lines, failed = [], []
    cores = [c for c in CORES if c in values]
    head = ["metric"] + [CORES[c] for c in cores] + ["C / Rust", "wanted", ""]
    rows = [head]
    for metric, text, unit, _ in ROWS:
        got = {c: values[c][metric] for c in cores}
        if metric not in gates and all(v is None for v in got.values()):
            continue
        rust = largest(got.get(c) for c in ("m", "y"))
        of_c = got.get("c")
        times = of_c / rust if of_c is not None and rust else None
        wanted = verdict = ""
        if metric in gates:
            limit, todo = gates[metric]
            wanted = "<= " + show(limit, unit)
            if rust is None:
                verdict = "not measured"
            elif rust <= limit:
                verdict = "met" + (" (still marked todo)" if todo else "")
            elif todo:
                verdict = "not met yet"
            else:
                verdict = "NOT MET"
                failed.append("%s is %s, wanted %s" % (metric, show(rust, unit), wanted))
        rows.append([text] + [show(got[c], unit) for c in cores] +
                    ["" if times is None else "%.4g" % times if times < 1000 else "%.0f" % times, wanted, verdict])
    widths = [max(len(r[i]) for r in rows) for i in range(len(head))]
    for r in rows:
        cells = [r[0].ljust(widths[0])] + [r[i].rjust(widths[i]) for i in range(1, len(head) - 1)] + [r[-1]]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * (sum(widths) + 2 * len(widths) - 2))
    return lines, failed


def draw(boots, directory, mode):
    """A plot of each sweep, and all of them in one."""
    import matplotlib
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "klp"
    from matplotlib import pyplot

    # The two builds of the Rust core differ in little: one is drawn.
    cores = [(c, label, style) for c, label, style in
             (("c", "C core", "--"), ("m", "Rust core", "-")) if c in boots]
    first = {c: boots[c][0] for c in boots}
    colours = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]

    def line(ax, xs, ys, style, colour, label):
        points = sorted((x, y) for x, y in zip(xs, ys) if y > 0)
        if points:
            ax.plot([p[0] for p in points], [p[1] for p in points], style, color=colour,
                    marker="o", markersize=3.5, label=label)

    def calls(ax):
        for core, label, style in cores:
            b = first[core]
            base = b.get("call.unpatched")
            for (name, index, what), colour in zip((("call.steady", 2, "patched"), ("call.traced", 0, "patched, traced")), colours):
                s = b.sweep(name, "F", index)
                line(ax, s, [(v - base) / 1000 for v in s.values()], style, colour, "%s, %s" % (what, label))
        ax.set(title="A call, over an unpatched one", xlabel="functions in the livepatch", ylabel="instructions")

    def enabling(ax):
        for core, label, style in cores:
            for (name, what), colour in zip((("enable.insns", "enable"), ("disable.insns", "disable")), colours):
                s = first[core].sweep(name, "F")
                line(ax, s, s.values(), style, colour, "%s, %s" % (what, label))
        ax.set(title="Enable and disable: work", xlabel="functions in the livepatch", ylabel="instructions")

    def waiting(ax):
        for core, label, style in cores:
            for (name, what), colour in zip((("enable.ns", "enable"), ("disable.ns", "disable")), colours):
                s = first[core].sweep(name, "F")
                line(ax, s, [v / 1e9 for v in s.values()], style, colour, "%s, %s" % (what, label))
        ax.set(title="Enable and disable: time (1 insn = 1 ns)", xlabel="functions in the livepatch", ylabel="seconds")

    def passes(ax):
        sizes = sorted({int(m[1]) for b in first.values() for n, w in b.figures
                        if n == "pass.enable" and (m := re.match(r"F=(\d+),", w))})
        for core, label, style in cores:
            for f, colour in zip(sizes, colours):
                s = {int(w.split("N=")[1]): float(v[0]) for (n, w), v in first[core].figures.items()
                     if n == "pass.enable" and w.startswith("F=%d," % f)}
                line(ax, s, s.values(), style, colour, "F=%d, %s" % (f, label))
        ax.set(title="Pass of a transition", xlabel="sleeping threads", ylabel="instructions")

    def shadows(ax):
        for core, label, style in cores:
            b = first[core]
            for (name, index, unit, what), colour in zip((("shadow.get", 0, 1000, "get"), ("shadow.get", 1, 1000, "get, none there"),
                                                          ("shadow.alloc", 0, 1, "alloc")), colours):
                s = b.sweep(name, "live", index)
                line(ax, s, [v / unit for v in s.values()], style, colour, "%s, %s" % (what, label))
        ax.set(title="Shadow variables", xlabel="live", ylabel="instructions")

    def finish(ax):
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.grid(True, which="major", alpha=0.3)
        ax.legend(fontsize=6, handlelength=4, ncol=2)

    def save(figure, name):
        figure.tight_layout()
        for kind, extra in (("png", {"dpi": 120, "metadata": {"Software": None}}), ("svg", {"metadata": {"Date": None}})):
            figure.savefig(os.path.join(directory, "%s.%s" % (name, kind)), **extra)
        pyplot.close(figure)

    plots = {"call": calls, "enable": enabling, "time": waiting, "pass": passes, "shadow": shadows}
    for name, plot in plots.items():
        figure, ax = pyplot.subplots(figsize=(6, 4))
        plot(ax)
        finish(ax)
        save(figure, name)
    figure, axes = pyplot.subplots(2, 3, figsize=(15, 8))
    for ax, plot in zip(axes.flat, plots.values()):
        plot(ax)
        finish(ax)
    axes.flat[-1].axis("off")
    save(figure, "all")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--arch", required=True)
    ap.add_argument("--mode", required=True)
    ap.add_argument("--gates", required=True)
    ap.add_argument("dir")
    args = ap.parse_args()
    boots = read_boots(args.dir)
    gates = read_gates(args.gates, args.arch)
    if not boots:
        sys.exit("error: no outputs in " + args.dir)

    values = {}
    for core, of_core in boots.items():
        values[core] = {}
        for metric, _, unit, of in ROWS:
            got = [v for v in (of(b) for b in of_core) if v is not None]
            # Of waits the longest counts.
            middle = max if unit == "time" else statistics.median
            values[core][metric] = middle(got) if got else None
    lines, failed = table(values, gates)
    unequal = [d for core, of_core in boots.items() for d in differences(core, of_core)]

    with open(os.path.join(args.dir, "bench.json"), "w") as f:
        json.dump({
            "arch": args.arch, "mode": args.mode,
            "rows": [{"metric": metric, "text": text.strip(), "unit": unit,
                      "wanted": gates.get(metric, (None,))[0],
                      "values": {c: values[c][metric] for c in values}} for metric, text, unit, _ in ROWS],
            "boots": {core: [[[*key, *v] for key, v in b.figures.items()] for b in of_core]
                      for core, of_core in boots.items()},
            "unequal": unequal,
        }, f, indent=1)
        f.write("\n")
    draw(boots, args.dir, args.mode)

    print("%s, %s, %s: 1 instruction is 1 ns of virtual time" % (
        args.arch, args.mode, "; ".join("%s: boots %d" % (CORES[c], len(b)) for c, b in sorted(boots.items()))))
    text = "\n".join(lines)
    with open(os.path.join(args.dir, "table.txt"), "w") as f:
        f.write(text + "\n")
    print(text)
    print("figures and plots: " + args.dir)
    for line in unequal:
        print("not the same in each boot: " + line)
    for line in failed:
        print("gate: " + line)
    sys.exit(1 if unequal or failed else 0)


if __name__ == "__main__":
    main()
