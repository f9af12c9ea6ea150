# SPDX-License-Identifier: GPL-2.0
"""scripts/guest/lib.sh: waiting, and the variables of a script's head."""

import os
import subprocess
import tempfile
import time
import unittest

from world import REPO, write


class GuestLib(unittest.TestCase):
    def script(self, text, **env):
        with tempfile.TemporaryDirectory() as d:
            write(d + "/script", "#!/bin/bash\n# guest: limit=1+N N=3 SEED=\n. %s/scripts/guest/lib.sh\n%s\n"
                  % (REPO, text), 0o755)
            start = time.monotonic()
            done = subprocess.run([d + "/script"], env=dict(os.environ, **env), text=True, cwd=d,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)
        return done.returncode, done.stdout, time.monotonic() - start

    def test_wait_for(self):
        code, out, _ = self.script("(sleep 0.2; : >file) &\nwait_for 20 'it is there' test -e file; echo on")
        self.assertEqual((code, out), (0, "on\n"))

    def test_in_vain(self):
        code, out, took = self.script("nothing() { ls /nothing; }\nwait_for 1 'all is well' nothing; echo on")
        self.assertEqual((code, out), (1, "FAIL: waited in vain until all is well\n"))
        self.assertLess(took, 10)

    def test_in_vain_of_the_script(self):
        code, out, _ = self.script("in_vain() { echo \"no: $1\"; }\nwait_for 0 'it is so' false; echo on")
        self.assertEqual((code, out), (0, "no: it is so\non\n"))

    def test_pause(self):
        code, out, took = self.script("pause 300; echo $?")
        self.assertEqual((code, out), (0, "0\n"))
        self.assertGreater(took, 0.29)

    def test_variables(self):
        show = "echo \"$N,$SEED\"; echo \"${limit:-none}\""
        self.assertEqual(self.script(show)[1], "3,\nnone\n")
        self.assertEqual(self.script(show, N="9", SEED="a b")[1], "9,a b\nnone\n")
        self.assertEqual(self.script(show, N="")[1], "3,\nnone\n")


if __name__ == "__main__":
    unittest.main()
