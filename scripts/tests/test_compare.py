# SPDX-License-Identifier: GPL-2.0
"""scripts/compare.py: what counts as a difference between two cores."""

import contextlib
import io
import sys
import tempfile
import unittest
from unittest import mock

from world import load, write

compare_py = load("compare")

EXPECTED = """# SPDX-License-Identifier: GPL-2.0
== second
# They say it in their own way.
- livepatch: C says so
+ livepatch: Rust says so
"""
C = """before any section
== first
% insmod x.ko
-- dmesg
livepatch: same
== second
-- dmesg
livepatch: C says so
livepatch: same
"""
RUST = C.replace("C says", "Rust says")
OK = ["ok 1 first", "ok 2 second # 2 lines differ as listed",
      "ok 3 all listed differences are there"]


class Compare(unittest.TestCase):
    def compare(self, c, rust, expected=EXPECTED):
        with tempfile.TemporaryDirectory() as d:
            for name, text in ("expected", expected), ("c", c), ("rust", rust):
                write(d + "/" + name, text)
            argv = ["compare.py"] + [d + "/" + n for n in ("expected", "c", "rust")]
            out = io.StringIO()
            with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), \
                    self.assertRaises(SystemExit) as end:
                compare_py.main()
        # What is said at the end, instead of a number, is an error.
        code = end.exception.code
        code = 1 if isinstance(code, str) else int(code)
        points = [p for p in out.getvalue().splitlines() if p.startswith(("ok", "not ok"))]
        return code, points, out.getvalue()

    def check(self, code, points, *args):
        got = self.compare(*args)
        self.assertEqual(got[:2], (code, points), got[2])

    def test_listed(self):
        self.check(0, OK, C, RUST)

    def test_same(self):
        self.check(0, ["ok 1 first", "ok 2 second", "ok 3 all listed differences are there"],
                   C, C, "")

    def test_not_needed(self):
        self.check(1, ["ok 1 first", "ok 2 second", "not ok 3 all listed differences are there"],
                   C, C)

    def test_unlisted(self):
        for change in (("-- dmesg\nlivepatch: same\n== second", "-- dmesg\n== second"),
                       ("-- dmesg\nlivepatch: same\n== second",
                        "-- dmesg\nlivepatch: same\nlivepatch: same\n== second"),
                       ("% insmod x.ko", "% insmod x.ko\nexit 1")):
            with self.subTest(change=change):
                rust = RUST.replace(*change)
                self.assertNotEqual(rust, RUST)
                self.check(1, ["not ok 1 first"] + OK[1:], C, rust)

    def test_order(self):
        rust = RUST.replace("livepatch: Rust says so\nlivepatch: same",
                            "livepatch: same\nlivepatch: Rust says so")
        self.check(0, OK, C, rust)  # the listed line may stand elsewhere
        a, b = C.replace("% insmod x.ko", "a\nb"), RUST.replace("% insmod x.ko", "b\na")
        self.check(1, ["not ok 1 first"] + OK[1:], a, b)

    def test_once_each(self):
        """An entry is for one occurrence, in its section."""
        twice = RUST.replace("Rust says so\n", "Rust says so\nlivepatch: Rust says so\n")
        self.check(1, [OK[0], "not " + OK[1], OK[2]], C, twice)
        elsewhere = RUST.replace("== second", "livepatch: Rust says so\n== second")
        self.check(1, ["not ok 1 first"] + OK[1:], C, elsewhere)

    def test_random(self):
        for a, b in (("ffff888100000000", "ffff8881deadbeef"), ("klp_pids=1,2", "klp_pids=7"),
                     ("0x5ad07e5700100000", "0x5ad07e5700200000"),
                     ("check counter = 3", "check counter = 14")):
            self.check(0, OK, C.replace("x.ko", a), RUST.replace("x.ko", b))
        self.check(1, ["not ok 1 first"] + OK[1:], C.replace("x.ko", "x 1"),
                   RUST.replace("x.ko", "x 2"))

    def test_noise(self):
        noise = "clocksource: x\nlivepatch: signaling remaining tasks\n== second"
        self.check(0, OK, C, RUST.replace("== second", noise))
        # Where a walk waits for it, it is none.
        names = ("first", "signals sent")
        self.check(1, ["not ok 1 signals sent"] + OK[1:], C.replace(*names),
                   RUST.replace("== second", noise).replace(*names))

    def test_addresses(self):
        a = C.replace("livepatch: same", "x @ ffff888000376afc", 1)
        b = RUST.replace("livepatch: same", "x @ (____ptrval____)", 1)
        self.check(0, OK, a, b)

    def test_sets_of_messages(self):
        names = ("first", "first (set of messages)")
        a = C.replace(*names).replace("-- dmesg\nlivepatch: same", "-- dmesg\nb\na\nb", 1)
        b = RUST.replace(*names).replace("-- dmesg\nlivepatch: same", "-- dmesg\na\na\nb", 1)
        self.check(0, ["ok 1 first (set of messages)"] + OK[1:], a, b)

    def test_missing_section(self):
        self.check(1, [OK[0], "not ok 2 second", "not ok 3 all listed differences are there"],
                   C, RUST[:RUST.index("\n== second")])

    def test_nothing(self):
        code, points, _ = self.compare("", "")
        self.assertEqual((code, len(points)), (1, 1))
        self.assertTrue(points[0].startswith("not ok 1 no section"))

    def test_bad_input(self):
        for expected in "- a line\n", "== x\n- no reason\n", "== x\n# no lines\n", \
                "== x\n# why\nneither\n":
            code, points, text = self.compare(C, RUST, expected)
            self.assertEqual((code, points), (1, []), text)
        self.assertEqual(self.compare(C + "== first\n", RUST)[:2], (1, []))


if __name__ == "__main__":
    unittest.main()
