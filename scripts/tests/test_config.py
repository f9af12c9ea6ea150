# SPDX-License-Identifier: GPL-2.0
"""What a kernel's configuration is checked against, and what the heads of the guest's
scripts ask for."""

import glob
import os
import subprocess
import tempfile
import unittest

from world import REPO, write

CONFIG = """CONFIG_A=y
CONFIG_B=m
# CONFIG_C is not set
CONFIG_TEXT="-klp"
CONFIG_NUMBER=8
CONFIG_AB=y
"""


class VerifyConfig(unittest.TestCase):
    def verify(self, *fragments):
        with tempfile.TemporaryDirectory() as d:
            write(d + "/config", CONFIG)
            paths = []
            for i, text in enumerate(fragments):
                paths.append("%s/%d.config" % (d, i))
                write(paths[-1], text)
            done = subprocess.run([REPO + "/scripts/verify-config.sh", d + "/config", *paths],
                                  text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return done.returncode, done.stdout

    def test_holds(self):
        for text in ("CONFIG_A=y", "CONFIG_B=m", "CONFIG_C=n", "# CONFIG_C is not set",
                     'CONFIG_TEXT="-klp"', "CONFIG_NUMBER=8", "CONFIG_UNKNOWN=n",
                     "# a comment on CONFIG_A=n\nCONFIG_A=y", "CONFIG_A=y\nCONFIG_AB=y"):
            with self.subTest(text=text):
                self.assertEqual(self.verify(text + "\n"), (0, ""))

    def test_does_not_hold(self):
        for text, symbol in (("CONFIG_A=m", "A"), ("CONFIG_A=n", "A"), ("CONFIG_B=y", "B"),
                             ("# CONFIG_B is not set", "B"), ("CONFIG_C=y", "C"),
                             ("CONFIG_GONE=y", "GONE"), ("CONFIG_NUMBER=80", "NUMBER"),
                             ("CONFIG_TEXT=klp", "TEXT"), ("CONFIG_D=y\nCONFIG_A=y", "D")):
            with self.subTest(text=text):
                code, out = self.verify(text + "\n")
                self.assertEqual(code, 1)
                self.assertTrue(out.startswith("CONFIG_%s: asked " % symbol), out)

    def test_last_fragment_counts(self):
        self.assertEqual(self.verify("CONFIG_C=y\n", "# CONFIG_C is not set\n")[0], 0)
        self.assertEqual(self.verify("CONFIG_A=y\n", "CONFIG_A=n\n")[0], 1)

    def test_nothing_asked_for(self):
        self.assertEqual(self.verify("")[0], 1)


class Heads(unittest.TestCase):
    SHOW = '. "$REPO/scripts/lib.sh"; . "$REPO/scripts/guest-heads.sh"; read_heads "$@"; ' \
        'for k in "${!HEAD[@]}"; do echo "$k=${HEAD[$k]}"; done; ' \
        'for k in "${!HEAD_VARS[@]}"; do echo "$k=${HEAD_VARS[$k]}"; done; ' \
        'echo "append=${HEAD_APPEND[*]}"; echo "root=${HEAD_ROOT[*]}"'

    def heads(self, *texts, **env):
        with tempfile.TemporaryDirectory() as d:
            paths = []
            for i, text in enumerate(texts):
                paths.append("%s/script%d" % (d, i))
                write(paths[-1], "#!/bin/bash\n# A script.\n#\n" + text + "\n\n# guests: no=1\n")
            done = subprocess.run(["bash", "-c", self.SHOW, "-", *paths], text=True,
                                  env=dict(os.environ, REPO=REPO, XDG_CACHE_HOME=d, **env),
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        return dict(line.split("=", 1) for line in done.stdout.splitlines()), done.stderr

    def test_values(self):
        got, err = self.heads("# guest: limit=300+2*N cpus=4 N=500 SEED=\n"
                              "# guest: append=a=b append=c mem=2G root=x=y/z")
        self.assertEqual(got, {"limit": "1300", "cpus": "4", "mem": "2G", "N": "500", "SEED": "",
                               "append": "a=b c", "root": "x=y/z"}, err)

    def test_environment(self):
        got, _ = self.heads("# guest: limit=1+N N=500 WORDS=a", N="7", WORDS="b $(c)")
        self.assertEqual((got["limit"], got["N"], got["WORDS"]), ("8", "7", "b $(c)"))
        self.assertEqual(self.heads("# guest: limit=1+N N=500", N="")[0]["limit"], "501")

    def test_several(self):
        got, _ = self.heads("# guest: limit=10 cpus=4 append=a", "# guest: limit=5 append=b")
        self.assertEqual((got["limit"], got["cpus"], got["append"]), ("15", "4", "a b"))

    def test_wrong(self):
        for text in ("", "# guest: limit", "# guest: limit=1 speed=2", "# guest: limit=x",
                     "# guest: limit=$(touch${IFS}/tmp/x)", "# guest: cpus=2"):
            with self.subTest(text=text):
                got, err = self.heads(text)
                self.assertEqual(got, {})
                self.assertIn("error: ", err)

    def test_all_scripts(self):
        """Each script of scripts/guest has a head that can be read."""
        names = [n for n in glob.glob(REPO + "/scripts/guest/*")
                 if os.access(n, os.X_OK) and os.path.basename(n) != "init"]
        self.assertGreater(len(names), 8)
        for name in names:
            with self.subTest(name=name):
                with open(name) as f:
                    got, err = self.heads("\n".join(
                        line for line in f.read().splitlines() if line.startswith("# guest:")))
                self.assertIn("limit", got, err)


if __name__ == "__main__":
    unittest.main()
