# SPDX-License-Identifier: GPL-2.0
"""A disk that is full while a tree is fetched, copied, grafted, or a guest is made: the
command fails, and when there is room again, nothing half-made is used."""

import os
import subprocess
import unittest

import world

# unshare_with: how to get a mount namespace, or None.
WAYS = (["unshare", "-m"], ["unshare", "-r", "-m"])


def unshare_with():
    for way in WAYS:
        if subprocess.run(way + ["mount", "-t", "tmpfs", "none", "/mnt"],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
            return way
    return None


# SIZE: what fits first; then what is missing is there. Prints what a run did.
SCRIPT = """
mount -t tmpfs -o size="$SIZE" none "$WHERE" || exit 99
%s
echo "first: $?"
mount -o remount,size=100M "$WHERE" || exit 99
%s
echo "second: $?"
%s
"""
COMPARE = """
base=$(echo "$XDG_CACHE_HOME"/rust-livepatch/linux*)
diff -r "$SOURCE" "$base/pristine" && echo "pristine: complete"
patch -s -p1 -d "$SOURCE" <patches/0001-test.patch
cp kernel/livepatch/rust.c "$SOURCE/kernel/livepatch/"
mkdir -p "$SOURCE/tools/testing/selftests/livepatch"
cp tools/testing/selftests/livepatch/x.sh "$SOURCE/tools/testing/selftests/livepatch/"
diff -r "$SOURCE" "$base/tree" && echo "tree: complete"
[[ -s $base/id ]] && echo "id: there"
"""


@unittest.skipUnless(unshare_with(), "no mount namespace to be had here (unshare -r -m)")
class FullDisk(unittest.TestCase):
    def setUp(self):
        self.world = world.World()
        self.way = unshare_with()

    def tearDown(self):
        self.world.close()

    def act(self, command, size, where="cache", after="", **env):
        done = self.world.run(*self.way, "bash", "-c", SCRIPT % (command, command, after),
                              SIZE=size, WHERE=self.world.path(where), **env)
        self.assertNotEqual(done.returncode, 99, done.stdout)
        self.assertRegex(done.stdout, r"(?m)^first: [1-9]")
        self.assertRegex(done.stdout, r"(?m)^error: |No space left")
        self.assertIn("second: 0\n", done.stdout)
        return done.stdout

    def check_trees(self, output):
        for what in "pristine: complete\n", "tree: complete\n", "id: there\n":
            self.assertIn(what, output)

    @unittest.skipIf(world.QUICK, "left out by KLP_TESTS=quick")
    def test_copying(self):
        env = {"KSRC": self.world.source, "SOURCE": self.world.source}
        # 4 MiB in files of 64 KiB: the disk is full in the middle.
        output = self.act("scripts/tree.sh", "2M", after=COMPARE, **env)
        self.assertIn("could not be copied", output)
        self.check_trees(output)

    def test_copying_again(self):
        """A copy that is brought up to date: what had changed before the disk was full
        must not be missing in the graft."""
        w = self.world
        env = {"KSRC": w.source, "SOURCE": w.source}
        change = "for i in {0..63}; do printf z >>$KSRC/drivers/file$i.c; done"
        script = "mount -t tmpfs -o size=100M none $XDG_CACHE_HOME; scripts/tree.sh >/dev/null; " \
            "used=$(du -sk $XDG_CACHE_HOME | cut -f1); " + change + \
            "; mount -o remount,size=$((used + 2000))k $XDG_CACHE_HOME; scripts/tree.sh; " \
            "echo first: $?; mount -o remount,size=100M $XDG_CACHE_HOME; scripts/tree.sh; " \
            "echo second: $?\n" + COMPARE
        output = w.run(*self.way, "bash", "-c", script, **env).stdout
        self.assertRegex(output, r"(?m)^first: [1-9]")
        self.assertIn("second: 0\n", output)
        self.check_trees(output)

    @unittest.skipIf(world.QUICK, "left out by KLP_TESTS=quick")
    def test_unpacking(self):
        output = self.act("scripts/tree.sh", "3M", after=COMPARE, SOURCE=self.world.source)
        self.check_trees(output)

    @unittest.skipIf(world.QUICK, "left out by KLP_TESTS=quick")
    def test_grafting(self):
        # The pristine tree fits, the graft of 64 links and a file of 64 KiB does not.
        size = subprocess.run(["du", "-sk", self.world.source], stdout=subprocess.PIPE,
                              check=True).stdout.split()[0]
        output = self.act("scripts/tree.sh", "%dk" % (int(size) + 60), after=COMPARE,
                          KSRC=self.world.source, SOURCE=self.world.source)
        self.assertNotIn("could not be copied", output)
        self.check_trees(output)

    @unittest.skipIf(world.QUICK, "left out by KLP_TESTS=quick")
    def test_guest(self):
        # The archive for the guest: 64 KiB of scripts and more.
        output = self.act("/usr/bin/make demo", "100k", where="tmp")
        self.assertEqual(output.count("step 4/4"), 1, output)
        self.assertEqual(os.listdir(self.world.path("tmp")), [])


if __name__ == "__main__":
    unittest.main()
