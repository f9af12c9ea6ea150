#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""ktap.py FILE: count the test points of (K)TAP output, a kernel log included.

Prints "PASSED FAILED SKIPPED", then a line for each failure. A point that sums
up nested ones is not counted, unless it failed and none of them did.
"""

import re
import sys

PREFIX = re.compile(r"^\[ *\d+\.\d+\](?:\[ *[CT]\d+\])? ?")
POINT = re.compile(r"^( *)(not )?ok \d+(?: -)? ?([^#]*)(?:# *(.*))?$")


def main():
    passed = skipped = 0
    failures = []
    nested = []  # for each depth: [points, failed points] since its parent's
    with open(sys.argv[1], errors="replace") as f:
        for line in f:
            m = POINT.match(PREFIX.sub("", line.rstrip()))
            if not m:
                continue
            depth = len(m[1]) // 4
            while len(nested) <= depth + 1:
                nested.append([0, 0])
            below = nested[depth + 1]
            points, bad = below
            below[:] = [0, 0]
            failed, name = bool(m[2]), m[3].strip()
            nested[depth][0] += 1
            nested[depth][1] += failed or bad > 0
            if failed:
                if not bad:
                    failures.append(name)
            elif points:
                pass
            elif (m[4] or "").upper().startswith("SKIP"):
                skipped += 1
            else:
                passed += 1
    print(passed, len(failures), skipped)
    for name in failures:
        print(name)


if __name__ == "__main__":
    main()
