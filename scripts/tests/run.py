#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""run.py [NAME...]: the tests of the scripts, or those whose name contains a NAME, as
KTAP. They need no guest, no kernel build and no root; what is not there is skipped.
KLP_TESTS=quick in the environment leaves out the longest.
"""

import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
# The kernel tree's Python files are imported, and the tree is not ours.
sys.dont_write_bytecode = True


class Result(unittest.TestResult):
    """Prints a point per test, and what went wrong above it."""

    def __init__(self):
        super().__init__()
        self.number, self.wrong, self.reason = 0, [], ""

    def startTest(self, test):
        super().startTest(test)
        self.wrong, self.reason = [], ""

    def addError(self, test, err):
        super().addError(test, err)
        self.wrong.append(self.errors[-1][1])
        if not isinstance(test, unittest.TestCase):
            # What a whole class or file needs has failed.
            self.stopTest(test)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.wrong.append(self.failures[-1][1])

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.wrong.append(str(subtest) + "\n" + self._exc_info_to_string(err, test))

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.reason = reason

    def stopTest(self, test):
        super().stopTest(test)
        self.number += 1
        for text in self.wrong:
            print("# " + text.rstrip().replace("\n", "\n# "))
        print("%sok %d %s%s" % ("not " if self.wrong else "", self.number, name_of(test),
                                " # SKIP " + self.reason if self.reason else ""), flush=True)


def name_of(test):
    return ".".join(test.id().split(".")[-3:])


def flat(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        else:
            yield test


def main():
    tests = list(flat(unittest.defaultTestLoader.discover(HERE)))
    if sys.argv[1:]:
        tests = [t for t in tests if any(a in name_of(t) for a in sys.argv[1:])]
        if not tests:
            sys.exit("no test has a name like: %s" % " ".join(sys.argv[1:]))
    print("KTAP version 1\n1..%d" % len(tests))
    result = Result()
    unittest.TestSuite(tests).run(result)
    sys.exit(not result.wasSuccessful())


if __name__ == "__main__":
    main()
