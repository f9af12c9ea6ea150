# SPDX-License-Identifier: GPL-2.0
"""Ctrl-C on a terminal, wherever `make demo` is: no process and no lock is left, the
terminal is as it was, nothing half-made is taken for whole later."""

import concurrent.futures
import contextlib
import fcntl
import glob
import os
import pty
import signal
import subprocess
import time
import unittest

import world

# A shell between the terminal and make, that outlives the Ctrl-C and tells how both are.
# It stays until all was looked at: with it the terminal goes, which ends what is left.
SHELL = """
trap : INT
stty -g >"$STUB_DIR/before"
/usr/bin/make demo
echo $? >"$STUB_DIR/status"
stty -g >"$STUB_DIR/after"
: >"$STUB_DIR/ended"
read -r _
"""


def wait_until(seconds, condition):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


class OnTerminal:
    """`make demo` of a world, in the foreground of a new terminal."""

    def __init__(self, w, **env):
        self.world, self.output = w, b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(w.repo)
            # A terminal's programs ignore none of these, as what runs in the background may.
            for number in signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP:
                signal.signal(number, signal.SIG_DFL)
            for name in [n for n in os.environ if n not in w.env]:
                del os.environ[name]
            os.environ.update(w.env, **env)
            os.execvp("bash", ["bash", "-c", SHELL])
        os.set_blocking(self.fd, False)

    def poll(self):
        """Reads what has come. True when make has ended."""
        try:
            self.output += os.read(self.fd, 65536)
        except OSError:
            pass
        return os.path.exists(self.world.path("stub", "ended"))

    def type(self, keys):
        os.write(self.fd, keys)

    def close(self):
        os.kill(self.pid, signal.SIGKILL)
        os.close(self.fd)
        os.waitpid(self.pid, 0)


def check_end(w):
    """A list of what is wrong after the end."""
    wrong = []
    stub = w.path("stub") + "/"

    def read(name):
        with open(stub + name) as f:
            return f.read().strip()

    if read("before") != read("after"):
        wrong.append("terminal: %s, was %s" % (read("after"), read("before")))
    if read("status") == "0":
        wrong.append("make has succeeded")
    left = [p for p in w.processes() if "stty -g" not in p]
    if left:
        wrong.append("still running: " + "; ".join(left))
    if os.path.exists(w.cache + "/lock"):
        with open(w.cache + "/lock") as f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                wrong.append("the cache is locked")
    left = os.listdir(w.path("tmp"))
    if left:
        wrong.append("left in TMPDIR: " + ", ".join(left))
    return wrong


def interrupt(moment):
    """Returns what went wrong."""
    w = world.World()
    try:
        env = {"STUB_HANG": moment}
        if moment == "install":
            w.use_real_deps()
        if moment == "copy":
            env["KSRC"] = w.source
        terminal = OnTerminal(w, **env)
        try:
            at = w.path("stub", "at")
            if not wait_until(30, lambda: terminal.poll() or os.path.exists(at)) or not os.path.exists(at):
                return ["never came to: %s; output: %s" % (moment, terminal.output.decode())]
            terminal.type(b"\x03")
            start = time.monotonic()
            if not wait_until(15, terminal.poll):
                return ["make has not ended; output: %s; running: %s" % (
                    terminal.output.decode(), w.processes())]
            wrong = check_end(w)
            if time.monotonic() - start > 5:
                wrong.append("took %.0f s" % (time.monotonic() - start))
        finally:
            terminal.close()
        if moment in ("unpack", "copy", "graft"):
            env = {"KSRC": w.source} if moment == "copy" else {}
            again = w.run("scripts/tree.sh", **env)
            base = again.stdout.splitlines()[-1]
            if again.returncode:
                wrong.append("afterwards tree.sh fails: " + again.stdout)
            elif subprocess.run(["diff", "-r", w.source, base + "/pristine"]).returncode:
                wrong.append("what is unpacked differs from the source")
        return wrong
    finally:
        for process in w.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process.split()[0]), signal.SIGKILL)
        w.close()


class Interrupt(unittest.TestCase):
    MOMENTS = "install", "download", "unpack", "copy", "graft", "config", "build", "rootfs", "qemu"
    if world.QUICK:
        MOMENTS = "graft", "build"

    @unittest.skipIf(world.QUICK, "left out by KLP_TESTS=quick")
    def test_world(self):
        """Nothing stands still: the demo comes through, and a second one, too."""
        w = world.World()
        try:
            for _ in range(2):
                done = w.run("/usr/bin/make", "demo")
                self.assertEqual(done.returncode, 0, done.stdout)
                self.assertIn("guest demo, CORE=m (x86_64): pass", done.stdout)
            self.assertEqual(w.processes(), [])
            self.assertEqual(os.listdir(w.path("tmp")), [])
        finally:
            w.close()

    def test_ctrl_c(self):
        with concurrent.futures.ThreadPoolExecutor(len(self.MOMENTS)) as pool:
            results = dict(zip(self.MOMENTS, pool.map(interrupt, self.MOMENTS)))
        for moment, wrong in results.items():
            with self.subTest(moment=moment):
                self.assertEqual(wrong, [])


DONE = glob.glob(world.CACHE + "/linux*/build/x86_64-m/klp/done")


@unittest.skipUnless(os.environ.get("KLP_TESTS") == "real", "with KLP_TESTS=real only")
@unittest.skipUnless(DONE, "no kernel was built (make build)")
class InterruptReal(unittest.TestCase):
    """The same with the real kernel's make and the real QEMU, in the real cache. Each
    moment is a text in the output, and seconds after it."""

    MOMENTS = (("step 1/4", 0.0), ("step 2/4", 0.5), ("building the kernel", 2.0),
               ("building the test modules", 3.0), ("step 3/4", 0.3), ("step 4/4", 0.5),
               ("step 4/4", 4.0))

    def test_ctrl_c(self):
        for text, seconds in self.MOMENTS:
            with self.subTest(moment="%s + %.1f s" % (text, seconds)):
                self.interrupt(text.encode(), seconds)

    def interrupt(self, text, seconds):
        if b"building" in text:
            for path in DONE:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        w = world.RealWorld()
        try:
            terminal = OnTerminal(w)
            try:
                wait_until(600, lambda: terminal.poll() or text in terminal.output)
                self.assertIn(text, terminal.output)
                wait_until(seconds, terminal.poll)
                terminal.type(b"\x03")
                self.assertTrue(wait_until(40, terminal.poll), w.processes())
                self.assertEqual(check_end(w), [], terminal.output.decode())
            finally:
                terminal.close()
        finally:
            w.close()

    def test_demo_afterwards(self):
        w = world.RealWorld()
        try:
            done = subprocess.run(["make", "demo"], cwd=w.repo, env=w.env, text=True,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT)
            self.assertEqual(done.returncode, 0, done.stdout)
        finally:
            w.close()


if __name__ == "__main__":
    unittest.main()
