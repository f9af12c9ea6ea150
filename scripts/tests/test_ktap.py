# SPDX-License-Identifier: GPL-2.0
"""What counts test points: scripts/ktap.py, beside the kernel tree's kunit.py on the same
logs, and the guest's ktap.sh, which turns a selftest's output into KTAP."""

import glob
import os
import re
import subprocess
import sys
import tempfile
import unittest

from world import CACHE, REPO, load, write

ktap = load("ktap")

LOGS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "logs")
KUNIT = glob.glob(CACHE + "/linux*/pristine/tools/testing/kunit/kunit.py")


def ours(path):
    """(passed, failed, skipped), names of failures."""
    with open(path) as f:
        counter = ktap.count(f)
    return (counter.passed, len(counter.failures), counter.skipped), counter.failures


def theirs(path):
    done = subprocess.run([sys.executable, "-B", KUNIT[0], "parse", path], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    line = [text for text in done.stdout.splitlines() if "Testing complete." in text][-1]
    counts = dict((k, int(n)) for k, n in re.findall(r"(\w+): (\d+)", line.split("tests:")[1]))
    # What does not come is "crashed" there.
    return (counts.get("passed", 0), counts.get("failed", 0) + counts.get("crashed", 0),
            counts.get("skipped", 0)), counts.get("errors", 0)


class Counts(unittest.TestCase):
    # Recorded logs of make kselftest: what is in them, the names of failures, and the
    # errors of form that kunit.py finds.
    EXPECTED = {
        # TESTS="livepatch rust-refused".
        "kselftest.log": ((16, 0, 0), [], 0),
        # TESTS="livepatch rust-refused ftrace", the first with a wrong line expected.
        "kselftest-failed.log": ((14, 1, 0), ["basic function patching"], 0),
    }

    def test_recorded(self):
        for name, (counts, failures, _) in self.EXPECTED.items():
            with self.subTest(log=name):
                self.assertEqual(ours(os.path.join(LOGS, name)), (counts, failures))

    @unittest.skipUnless(KUNIT, "no kernel tree in the cache, whose kunit.py reads the logs")
    def test_recorded_with_kunit_py(self):
        for name, (counts, _, errors) in self.EXPECTED.items():
            with self.subTest(log=name):
                self.assertEqual(theirs(os.path.join(LOGS, name)), (counts, errors))

    def test_cut(self):
        """The guest has died in the second of three scripts. Both see that two scripts did
        not end; kunit.py takes the points of the second for it."""
        path = os.path.join(LOGS, "kselftest-cut.log")
        self.assertEqual(ours(path), ((2, 3, 0), [
            "basic function patching", "missing point 2 of 3", "missing point 3 of 3"]))
        if KUNIT:
            self.assertEqual(theirs(path), ((2, 2, 0), 2))

    def test_kernel_log(self):
        """KUnit in a kernel log: one document of the boot, one of a module. kunit.py reads
        the first only."""
        path = os.path.join(LOGS, "kunit.log")
        self.assertEqual(ours(path), ((5, 1, 1), ["check_wrong"]))
        if KUNIT:
            self.assertEqual(theirs(path)[0], (2, 0, 1))

    def test_forms(self):
        for text, counts in (
            ("", (0, 0, 0)),
            ("TAP version 13\n1..2\nok 1 a\nnot ok 2 b\n", (1, 1, 0)),
            ("TAP version 13\nok 1 - a\nok 2 b # time=3s\n1..2\n", (2, 0, 0)),
            ("1..1\nok 1 a # SKIP no reason\n", (0, 0, 1)),
            # Nested ones count, their sum does not, unless it alone failed.
            ("1..1\n    ok 1 a\n    ok 2 b\nok 1 sum\n", (2, 0, 0)),
            ("1..1\n    ok 1 a\n    not ok 2 b\nnot ok 1 sum\n", (1, 1, 0)),
            ("1..1\n    ok 1 a\nnot ok 1 sum\n", (1, 1, 0)),
            ("1..1\n        not ok 1 a\n    not ok 1 b\nnot ok 1 sum\n", (0, 1, 0)),
            # A failure below an "ok" is one.
            ("1..1\n    not ok 1 a\nok 1 sum\n", (0, 1, 0)),
            # Plans that are not kept.
            ("1..3\nok 1 a\n", (1, 2, 0)),
            ("1..1\n    1..2\n    ok 1 a\nok 1 sum\n", (1, 1, 0)),
            ("KTAP version 1\n1..2\nok 1 a\nKTAP version 1\n1..1\nok 1 b\n", (2, 1, 0)),
            # Not points.
            ("okay 1\n# ok 1\nTEST: not ok 3\nok\n", (0, 0, 0)),
        ):
            with self.subTest(text=text):
                counter = ktap.count(text.splitlines(keepends=True))
                self.assertEqual((counter.passed, len(counter.failures), counter.skipped), counts)

    def test_program(self):
        out = subprocess.run([REPO + "/scripts/ktap.py", os.path.join(LOGS, "kunit.log")],
                             stdout=subprocess.PIPE, text=True, check=True).stdout
        self.assertEqual(out, "5 1 1\ncheck_wrong\n")


class GuestKtap(unittest.TestCase):
    """run_script of scripts/guest/ktap.sh, with scripts that do what selftests do."""

    SCRIPTS = {
        "test-good.sh": "echo -n 'TEST: one ... '; sleep 0.1; echo ok; echo 'TEST: two ... ok'",
        "test-bad.sh": "echo 'TEST: one ... ok'; printf 'TEST: tw#o ... not ok\\n\\n- a\\n+ b\\n\\n'; "
                       "echo 'ERROR: livepatch kselftest(s) failed' >&2; exit 1",
        "test-part.sh": "echo 'TEST: one ... SKIP not here'; echo 'TEST: two ... ok'",
        "test-skip.sh": "echo 'SKIP: no such thing' >&2; exit 4",
        "test-dead.sh": "echo 'TEST: one ... ok'; echo -n 'TEST: two ... '; kill -9 $$",
        "test-mute.sh": "echo 'ERROR: at once'; exit 1",
        "test-says.sh": "echo 'ok 1 not a point'; echo '1..7'; echo 'KTAP version 1'; "
                        "echo 'TEST: one ... ok'; echo 'not ok 5 this neither'",
    }

    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        for name, text in self.SCRIPTS.items():
            write(self.dir.name + "/" + name, "#!/bin/bash\n" + text + "\n", 0o755)
        script = "KTAP=$1; shift; . $KTAP; printf 'KTAP version 1\\n1..%d\\n' $#; n=0; " \
            "for s; do run_script $((++n)) $s; done; true"
        self.log = self.dir.name + "/log"
        with open(self.log, "w") as f:
            subprocess.run(["bash", "-c", script, "-", REPO + "/scripts/guest/ktap.sh",
                            *self.SCRIPTS], cwd=self.dir.name, stdout=f,
                           stderr=subprocess.STDOUT, check=True)

    def tearDown(self):
        self.dir.cleanup()

    def test_counts(self):
        with open(self.log) as f:
            text = f.read()
        self.assertEqual(ours(self.log)[0], (6, 3, 2), text)
        self.assertEqual(ours(self.log)[1], ["tw o", "two", "test-mute.sh"], text)
        self.assertIn("\n    # + b\n", text)
        if KUNIT:
            self.assertEqual(theirs(self.log), ((6, 3, 2), 0), text)


if __name__ == "__main__":
    unittest.main()
