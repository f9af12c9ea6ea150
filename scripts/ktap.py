#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""ktap.py FILE: count the test points of (K)TAP output, a kernel log included.

Prints "PASSED FAILED SKIPPED", then a line for each failure. A point that sums
up nested ones is not counted, unless it failed and none of them did. A point that
a plan promises and that does not come is a failure.

The kernel tree's kunit.py parse counts the same (scripts/tests has it read the same
logs), with two exceptions that make it unfit for what this is for. It reads one
KTAP document per log and stops: the log of a boot has one for what is built in and
one for each module with KUnit tests. And it takes a kernel tree, which scripts/test.sh
has no more when that is what failed.
"""

import re
import sys

PREFIX = re.compile(r"^\[ *\d+\.\d+\](?:\[ *[CT]\d+\])? ?")
VERSION = re.compile(r"^( *)K?TAP version \d+$")
PLAN = re.compile(r"^( *)1\.\.(\d+)(?: *#.*)?$")
POINT = re.compile(r"^( *)(not )?ok \d+(?: -)? ?([^#]*)(?:# *(.*))?$")


class Block:
    """Points of one depth, since the version line or the parent of the last."""

    def __init__(self):
        self.plan, self.points, self.bad = None, 0, 0


class Counter:
    def __init__(self):
        self.passed = self.skipped = 0
        self.failures = []
        self.blocks = []  # by depth

    def close(self, depth):
        """Ends all blocks from that depth on. Returns (points, failed ones)."""
        points = bad = 0
        while len(self.blocks) > depth:
            block = self.blocks.pop()
            missing = max(0, (block.plan or 0) - block.points)
            if missing:
                self.failures += ["missing point %d of %d" % (i + 1, block.plan)
                                  for i in range(block.points, block.plan)]
            points = block.points + missing
            bad += block.bad + missing
        return points, bad

    def block(self, depth):
        while len(self.blocks) <= depth:
            self.blocks.append(Block())
        return self.blocks[depth]

    def feed(self, line):
        line = PREFIX.sub("", line.rstrip())
        if m := VERSION.match(line):
            self.close(len(m[1]) // 4)
        elif m := PLAN.match(line):
            depth = len(m[1]) // 4
            self.close(depth + 1)
            self.block(depth).plan = int(m[2])
        elif m := POINT.match(line):
            self.point(len(m[1]) // 4, bool(m[2]), m[3].strip(), m[4] or "")

    def point(self, depth, failed, name, directive):
        points, bad = self.close(depth + 1)
        block = self.block(depth)
        block.points += 1
        block.bad += failed or bad > 0
        if failed:
            if not bad:
                self.failures.append(name)
        elif points:
            pass
        elif directive.upper().startswith("SKIP"):
            self.skipped += 1
        else:
            self.passed += 1


def count(lines):
    counter = Counter()
    for line in lines:
        counter.feed(line)
    counter.close(0)
    return counter


def main():
    with open(sys.argv[1], errors="replace") as f:
        counter = count(f)
    print(counter.passed, len(counter.failures), counter.skipped)
    for name in counter.failures:
        print(name)


if __name__ == "__main__":
    main()
