#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""compare.py EXPECTED C-OUTPUT RUST-OUTPUT: compare what the guest's compare
scripts printed on two cores, section by section, as TAP.

EXPECTED lists the differences that are meant. An entry is

    == SECTION
    # why
    - a line that only the C core has
    + a line that only the Rust core has

with as many lines as there are differences for that reason. Each line stands
for one occurrence. Entries that are not needed are failures too.
"""

import difflib
import re
import sys
from collections import Counter

# What one run of the same core has otherwise than the next.
RANDOM = [
    (re.compile(r"\b(?:0x)?[0-9a-f]{16}\b"), "ADDRESS"),
    # What %p makes of it before the kernel has random numbers.
    (re.compile(r"\(____ptrval____\)"), "ADDRESS"),
    (re.compile(r"\bklp_pids=[0-9,]+"), "klp_pids=PIDS"),
    (re.compile(r"\b(jiffies =|expires @|expired =) [0-9a-f]+"), r"\1 JIFFIES"),
    (re.compile(r"\bcheck counter = \d+"), "check counter = COUNT"),
]
# Messages of others, or that depend on how fast the guest is.
NOISE = re.compile("|".join((
    r"livepatch kselftest timestamp: ", r"clocksource: ", r"hrtimer: interrupt took", r"tsc: ",
    r"random: ", r"perf: interrupt took", r"sched: ", r"sched_clock: ", r"@@KLP-", r"klp-init: ",
    r"(PASS|FAIL): ",
)))
# Said when a transition takes long: only where a walk waits for it is it a
# difference.
SIGNALS = "livepatch: signaling remaining tasks"


def sections(path):
    """The sections of a guest's output, in order."""
    found, lines, part = {}, None, ""
    with open(path, errors="replace") as f:
        for line in f.read().replace("\r", "").split("\n"):
            m = re.match(r"== (.+)$", line)
            if m:
                name = m[1]
                if name in found:
                    sys.exit("%s: section '%s' is there twice" % (path, name))
                lines, part = found.setdefault(name, []), ""
                continue
            if lines is None or NOISE.match(line):
                continue
            if line == SIGNALS and not name.startswith("signals"):
                continue
            for pattern, text in RANDOM:
                line = pattern.sub(text, line)
            if line.startswith("-- "):
                part = line
            if part == "-- dmesg" and "(set of messages)" in name and line in lines:
                continue
            lines.append(line)
    for name, lines in found.items():
        if "(set of messages)" in name and "-- dmesg" in lines:
            start = lines.index("-- dmesg") + 1
            lines[start:] = sorted(lines[start:])
    return found


class Entry:
    def __init__(self, section, number):
        self.section, self.number = section, number
        self.reason, self.lines = False, Counter()


def expectations(path):
    entries = []
    with open(path) as f:
        for number, line in enumerate(f, 1):
            line = line.rstrip("\n")
            if line.startswith("== "):
                entries.append(Entry(line[3:], number))
            elif not entries or not line:
                if line and not line.startswith("#"):
                    sys.exit("%s:%d: not in an entry" % (path, number))
            elif line.startswith("#"):
                entries[-1].reason = True
            elif line[:2] in ("- ", "+ "):
                entries[-1].lines[line[0] + line[2:]] += 1
            else:
                sys.exit("%s:%d: neither of '# ', '- ', '+ '" % (path, number))
    for entry in entries:
        if not entry.reason or not entry.lines:
            sys.exit("%s:%d: an entry needs a reason and lines" % (path, entry.number))
    return entries


def differences(c, rust):
    """The lines that differ, each with its sign, and a diff to read."""
    diff = list(difflib.unified_diff(c, rust, "C core", "Rust core", lineterm="", n=3))
    return [line for line in diff[2:] if line[0] in "+-"], diff


def main():
    expected, *outputs = sys.argv[1:]
    entries = expectations(expected)
    c, rust = (sections(path) for path in outputs)
    count = failed = 0

    def point(good, name, comments=()):
        nonlocal count, failed
        count += 1
        failed += not good
        print("%sok %d %s" % ("" if good else "not ", count, name))
        for line in comments:
            print("  # " + line)

    print("TAP version 13")
    names = list(c) + [name for name in rust if name not in c]
    for name in names:
        if name not in c or name not in rust:
            point(False, name, ["only on the %s core" % ("C" if name in c else "Rust")])
            continue
        changed, diff = differences(c[name], rust[name])
        listed = 0
        rest = Counter(changed)
        for entry in entries:
            if entry.section != name:
                continue
            used = entry.lines & rest
            rest -= used
            entry.lines -= used
            listed += used.total()
        title = name + (" # %d lines differ as listed" % listed if listed else "")
        point(not rest, title, diff if rest else ())
    if names:
        unneeded = [entry for entry in entries if entry.lines]
        point(not unneeded, "all listed differences are there", [
            "%s:%d: '%s' lacks: %s" % (expected, entry.number, entry.section, line)
            for entry in unneeded for line in entry.lines])
    else:
        point(False, "no section in %s" % " and ".join(outputs))
    print("1..%d" % count)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
