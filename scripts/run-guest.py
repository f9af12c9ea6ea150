#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Boot a guest in QEMU, run programs in it, and say how that went.

The guest has two ports: the kernel's console, which goes to LOG.console only,
and one for programs, which is shown as it comes (and kept in LOG.output).
Exit code: 0 pass, 1 a program failed, 2 hang (time limit), 3 crash: the kernel
complained, or ended before the programs did, wherever that happened.
"""

import argparse
import ctypes
import os
import re
import selectors
import signal
import subprocess
import sys
import time

PASS, FAIL, HANG, CRASH = 0, 1, 2, 3
PR_SET_PDEATHSIG = 1

# What differs between architectures. The program port is a second UART where
# the machine has one, else a virtio console.
ARCH = {
    "x86_64": {
        "qemu": "qemu-system-x86_64",
        "machine": ["-M", "pc"],
        "out": ["-serial", "chardev:out"],
        # No ACPI: a reboot by triple fault is what makes QEMU exit.
        "append": "console=ttyS0 reboot=t tsc=reliable klp.out=ttyS1",
    },
    "arm64": {
        "qemu": "qemu-system-aarch64",
        "machine": ["-M", "virt", "-cpu", "max,pauth-impdef=on"],
        "out": ["-device", "virtio-serial-device", "-device", "virtconsole,chardev=out"],
        "append": "console=ttyAMA0 klp.out=hvc0",
    },
}

# A kernel message that fails the run. Matched at the start of a message: boot
# messages that merely contain such a word ("RETBleed: WARNING: ...") are none.
SPLAT = re.compile("|".join((
    r"BUG: ", r"WARNING: ", r"INFO: (task .* blocked|rcu|possible|suspicious|trying to)",
    r"Oops", r"Internal error", r"Unable to handle kernel", r"Kernel panic",
    r"general protection fault", r"invalid opcode", r"int3: ", r"Kernel BUG", r"kernel BUG at",
    r"Call [Tt]race:", r"-+\[ cut here \]", r"rcu: INFO: ", r"(rcu: )?rcu_.*(stall|kthread starved)",
    r"UBSAN: ", r"KASAN: ", r"KFENCE: (use|out|memory|invalid)", r"KCSAN: ",
    r"ODEBUG: (?!selftest passed|\d+ of \d+ active)", r"refcount_t: ", r"list_(add|del) corruption",
    r"kobject: .*(error|tried to|not initialized|does not have)", r"kobject_add_internal failed",
    r"sysfs: cannot create duplicate", r"unreferenced object", r"kmemleak: \d+ new suspected",
    r"(NMI )?watchdog: (BUG|.*LOCKUP)", r"workqueue: .*(lockup|hogged CPU)",
    r"Bad page state", r"scheduling while atomic",
    r"static_key.*(negative|warn)", r"(\[ *BUG|=+$)", r"do_IRQ: .* No irq", r"Kernel stack",
    r"DEBUG_LOCKS_WARN_ON", r"hung task", r"rust_kernel: panicked", r"unwind stack type",
)))
PREFIX = re.compile(r"^(?:<\d+>)?\[ *\d+\.\d+\](?:\[ *[CT]\d+\])? ?")
# After these nothing useful follows: give the guest a moment, then end it.
FATAL = re.compile(r"Kernel panic|Oops|BUG: |Internal error|rcu: INFO")
MARK = re.compile(r"@@KLP-(\w+) ?([^@]*)@@")
GRACE = 30


def kvm_works(arch):
    """/dev/kvm alone says little: without the CPU's flag it is a dud."""
    if os.uname().machine != arch or not os.access("/dev/kvm", os.W_OK):
        return False
    with open("/proc/cpuinfo") as f:
        return re.search(r"^flags.*\b(vmx|svm)\b", f.read(), re.M) is not None


class Console:
    """Follows the kernel's log and collects what it complains about."""

    def __init__(self, path):
        self.path, self.pos, self.part = path, 0, ""
        self.lines, self.splats, self.fatal, self.broken = [], [], False, None

    def poll(self):
        try:
            with open(self.path, "rb") as f:
                f.seek(self.pos)
                data = f.read()
        except FileNotFoundError:
            return
        self.pos += len(data)
        text = self.part + data.decode(errors="replace").replace("\r", "")
        *lines, self.part = text.split("\n")
        for line in lines:
            msg = PREFIX.sub("", line)
            # A line of equal signs alone opens a lockdep report; the tests
            # write "===== TEST: ... =====".
            if msg != line and SPLAT.match(msg):
                self.splats.append(len(self.lines))
                self.fatal = self.fatal or bool(FATAL.match(msg))
            mark = MARK.search(line)
            if mark and mark[1] == "BROKEN":
                self.broken = mark[2]
            self.lines.append(line)

    def report(self):
        """The first complaint with what surrounds it, and the others' heads."""
        first = self.splats[0]
        last = first
        for i in self.splats:
            if i - last < 40:
                last = i
        out = self.lines[max(0, first - 4):min(last + 30, first + 80)]
        later = [self.lines[i] for i in self.splats if i > last][:10]
        return out + (["... and later:"] + later if later else [])


def qemu_command(args, console):
    a = ARCH[args.arch]
    # Not thread=multi: up to 8.0, QEMU can translate code that another CPU is
    # just writing, and runs the int3 of a finished text_poke() later on.
    accel = ["-accel", "kvm", "-cpu", "host"] if not args.icount and kvm_works(args.arch) else \
        ["-accel", "tcg,thread=single"]
    if args.icount:
        # An instruction is a nanosecond of the guest's time, idle time is
        # skipped, and nothing comes from the host: each boot is the same.
        accel += ["-icount", "shift=0,sleep=off", "-rtc", "clock=vm,base=2026-01-01", "-seed", "1"]
    machine = list(a["machine"])
    if args.icount and args.arch == "arm64":
        # The counter takes a step every 16 ns otherwise.
        machine[-1] += ",cntfrq=1000000000"
    if accel[1] == "kvm":
        machine = machine[:2]
    append = "%s panic=-1 oops=panic loglevel=8 klp.run=%s %s" % (
        a["append"], ",".join(args.run), " ".join(args.append))
    out = ["-chardev", "stdio,id=out,signal=off"]
    if args.interactive:
        # Ctrl-A x ends QEMU, Ctrl-A c is its monitor.
        out = ["-chardev", "stdio,id=out,signal=off,mux=on", "-mon", "chardev=out"]
    # Sockets: the MP table, from which x86_64 knows its CPUs without ACPI, has
    # only one CPU of each.
    smp = "%d,sockets=%d,cores=1,threads=1" % (args.cpus, args.cpus)
    return [a["qemu"], *machine, *accel, "-smp", smp, "-m", args.mem,
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-chardev", "file,id=con,path=" + console, "-serial", "chardev:con",
            *out, *a["out"], "-kernel", args.kernel, "-initrd", args.initrd,
            "-append", append.strip()]


class Programs:
    """Shows what the programs print and reads the markers in it."""

    def __init__(self, path, live):
        self.log, self.live = open(path, "wb"), live
        self.part, self.results, self.lines = b"", {}, []
        self.done, self.broken, self.current = False, None, None

    def feed(self, data):
        self.log.write(data)
        self.log.flush()
        *lines, self.part = (self.part + data).split(b"\n")
        for raw in lines:
            line = raw.decode(errors="replace").rstrip("\r")
            mark = MARK.search(line)
            if mark:
                what, rest = mark.groups()
                line = line[:mark.start()]
                if what == "BEGIN":
                    self.current = rest
                elif what == "RESULT":
                    name, rc = rest.split()
                    self.results[name] = int(rc)
                elif what == "BROKEN":
                    self.broken = rest
                elif what == "DONE":
                    self.done = True
                if not line:
                    continue
            self.lines.append(line)
            if self.live:
                print(line, flush=True)


def run(args):
    console_path, output_path = args.log + ".console", args.log + ".output"
    if os.path.exists(console_path):
        os.unlink(console_path)
    console, programs = Console(console_path), Programs(output_path, not args.quiet)
    command = qemu_command(args, console_path)
    start = time.monotonic()
    limit = start + args.limit if args.limit else float("inf")

    if args.interactive:
        rc = subprocess.call(command)
        console.poll()
        if console.splats:
            print("The kernel complained (log: %s):" % console_path, file=sys.stderr)
            print("\n".join(console.report()), file=sys.stderr)
            return CRASH
        return FAIL if rc else PASS

    for number in signal.SIGTERM, signal.SIGHUP:
        signal.signal(number, lambda n, _: sys.exit(128 + n))
    # Whatever becomes of this program, QEMU does not outlive it.
    libc = ctypes.CDLL(None)
    qemu = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=open(args.log + ".qemu", "wb"),
                            preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
    hang = False
    try:
        sel = selectors.DefaultSelector()
        sel.register(qemu.stdout, selectors.EVENT_READ)
        while True:
            if sel.select(timeout=0.5):
                data = os.read(qemu.stdout.fileno(), 65536)
                if not data:
                    break
                programs.feed(data)
            was_fatal = console.fatal
            console.poll()
            if console.fatal and not was_fatal:
                limit = min(limit, time.monotonic() + GRACE)
            if time.monotonic() > limit:
                hang = True
                break
    finally:
        qemu.kill()
        qemu.wait()
    console.poll()
    if programs.part:
        programs.feed(b"\n")
    took = time.monotonic() - start

    say = lambda text: print(text, file=sys.stderr, flush=True)
    name = "guest %s (%s)" % (args.name or ",".join(args.run), args.arch)
    logs = "logs: %s.{console,output}" % args.log
    tail = lambda: say("\n".join(
        ["--- last kernel messages:"] + console.lines[-15:] +
        ["--- last program output:"] + programs.lines[-15:]))
    failed = ["%s (exit %d)" % (n, rc) for n, rc in programs.results.items() if rc]
    broken = programs.broken or console.broken
    if broken:
        say("%s: FAIL: the guest is broken: %s; %s" % (name, broken, logs))
        return FAIL
    if console.splats:
        say("%s: CRASH: the kernel complained; %s" % (name, logs))
        say("\n".join(console.report()))
        return CRASH
    if hang:
        say("%s: HANG: not done after %d s%s; %s" % (
            name, args.limit, ", in " + programs.current if programs.current else "", logs))
        tail()
        return HANG
    if not programs.done:
        say("%s: CRASH: the guest ended before its programs did; %s" % (name, logs))
        with open(args.log + ".qemu", errors="replace") as f:
            sys.stderr.write(f.read())
        tail()
        return CRASH
    missing = [n for n in args.run if n not in programs.results]
    if failed or missing:
        say("%s: FAIL in %.0f s: %s; %s" % (
            name, took, ", ".join(failed + ["%s (no result)" % n for n in missing]), logs))
        if args.quiet:
            tail()
        return FAIL
    say("%s: pass in %.0f s" % (name, took))
    return PASS


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--arch", choices=ARCH, required=True)
    ap.add_argument("--kernel", required=True)
    ap.add_argument("--initrd", required=True)
    ap.add_argument("--log", required=True, help="prefix of the log files")
    ap.add_argument("--name", help="what to call the run in messages")
    ap.add_argument("--limit", type=int, default=300, help="seconds; 0: none")
    ap.add_argument("--mem", default="1G")
    ap.add_argument("--cpus", type=int, default=2)
    ap.add_argument("--icount", action="store_true", help="count instructions as time")
    ap.add_argument("--append", action="append", default=[])
    ap.add_argument("--quiet", action="store_true", help="keep program output in the log")
    ap.add_argument("--interactive", action="store_true")
    ap.add_argument("run", nargs="+", help="scripts of scripts/guest to run")
    args = ap.parse_args()
    try:
        sys.exit(run(args))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
