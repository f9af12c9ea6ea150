# SPDX-License-Identifier: GPL-2.0
"""The check of who uses whom finds what runs up, sideways or in a circle."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest

from world import REPO, write

MAIN = """//! A crate.
//!
//!     4  top
//!     3  middle
//!     2  bottom
//!        side
//!     1  rules

use kernel::{
    prelude::*,
    sort, //
};

fn this_module() {}
"""
FILES = {
    "main.rs": MAIN,
    "top.rs": "use crate::{\n    bottom::Low,\n    middle, //\n};\n",
    "middle.rs": "//! Used by [`crate::top`].\nuse crate::bottom::{self, Low};\nmod tests { use super::*; }\n",
    "bottom.rs": "use crate::{rules::one::{self, One as Other}, sort};\nfn f() { crate::this_module() }\n",
    "side.rs": "",
    "rules.rs": "//!     2  two\n//!     1  one\n\npub mod one;\npub mod two;\n",
    "rules/one.rs": "// use kernel::nothing\nuse crate::sort::sort_by_key;\n",
    "rules/two.rs": "use super::one::One;\nconst A: &str = \"crate::top::x\";\n",
    "tests.rs": "use crate::{bottom, top};\n",
}


class Levels(unittest.TestCase):
    def levels(self, **changed):
        """Changed or added files, with _ for a slash and without the suffix."""
        with tempfile.TemporaryDirectory() as d:
            folder = d + "/kernel/livepatch/"
            for name, text in {**FILES, **{n.replace("_", "/") + ".rs": t for n, t in changed.items()}}.items():
                if text is not None:
                    os.makedirs(os.path.dirname(folder + name), exist_ok=True)
                    write(folder + name, text)
            return self.run_on(folder + "main.rs")

    @staticmethod
    def run_on(main):
        done = subprocess.run([REPO + "/scripts/levels.py", main], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return done.returncode, done.stdout

    def refused(self, *texts, **changed):
        code, out = self.levels(**changed)
        self.assertEqual(code, 1, out)
        for text in texts:
            self.assertIn(text, out)

    def test_right(self):
        self.assertEqual(self.levels(), (0, "9 files, 0 of them in circles\n"))

    def test_up(self):
        self.refused("kernel/livepatch/bottom.rs:1: uses crate::middle, which is not below it: level 3 from level 2",
                     bottom="use crate::{\n    rules::one,\n    middle::{\n        Middle, //\n    },\n};\n")
        self.refused("bottom.rs:2: uses crate::top", bottom="\nfn f() { crate::top::f() }\n")
        self.refused("bottom.rs:1: uses crate::top", bottom="mod inner { fn f() { super::super::top::f() } }\n")

    def test_sideways(self):
        self.refused("side.rs:1: uses crate::bottom, which is not below it: level 2 from level 2",
                     side="use crate::bottom;\n")

    def test_in_folder(self):
        self.refused("rules/one.rs:1: uses crate::side, which is not below it: level 2 from level 1",
                     rules_one="use crate::side;\n")
        self.refused("rules/one.rs:1: uses crate::rules::two", rules_one="use super::two::Two;\n")
        self.refused("rules/one.rs:1: uses crate::rules, which it is a part of", rules_one="use super::f;\n")

    def test_circle(self):
        self.refused("a circle: bottom middle top", "9 files, 3 of them in circles", bottom="use crate::top::Top;\n")

    def test_unlisted(self):
        self.refused("new.rs:1: is in no map", new="")
        self.refused("rules/new.rs:1: is in no map", rules_new="")
        self.refused("middle is in a map, and no file", middle=None, top="")

    def test_unknown(self):
        self.refused("top.rs:1: uses crate::nobody, which is nowhere", top="use crate::nobody::X;\n")

    def test_tests(self):
        self.refused("top.rs:1: uses crate::tests, which is a test", top="use crate::tests::X;\n")

    def test_kernel_in_rules(self):
        for text in "use kernel::prelude::*;", "fn f() { bindings::f() }", "use kernel as k;":
            self.refused("rules/one.rs:1: uses the kernel", rules_one=text)

    def test_core(self):
        """The core passes, and does not with an upward import in any of its files."""
        core = REPO + "/kernel/livepatch"
        with open(core + "/livepatch_main.rs", encoding="utf-8") as f:
            maps = re.findall(r"^//!     +\d+  (.*)$", f.read(), re.M)
        code, out = self.run_on(core + "/livepatch_main.rs")
        self.assertEqual(code, 0, out)
        top = maps[0].split()[0]
        for name in " ".join(maps[1:]).split():
            with self.subTest(name=name), tempfile.TemporaryDirectory() as d:
                there = d + "/kernel/livepatch"
                shutil.copytree(core, there)
                with open("%s/%s.rs" % (there, name), "a", encoding="utf-8") as f:
                    f.write("use crate::%s::f;\n" % top)
                code, out = self.run_on(there + "/livepatch_main.rs")
                self.assertEqual(code, 1)
                self.assertIn("uses crate::%s, which is not below it" % top, out)


if __name__ == "__main__":
    unittest.main()
