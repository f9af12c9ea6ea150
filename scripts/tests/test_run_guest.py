# SPDX-License-Identifier: GPL-2.0
"""scripts/run-guest.py: which messages fail a run, and how runs end, with a stand-in for
QEMU. The messages are single lines, as kernels print them."""

import os
import subprocess
import sys
import tempfile
import time
import unittest

from world import REPO, load, write

run_guest = load("run-guest")

# Each fails a run; those of FATAL end it soon.
SPLATS = """
BUG: kernel NULL pointer dereference, address: 0000000000000010
BUG: KASAN: slab-use-after-free in klp_x+0x1/0x2
BUG: sleeping function called from invalid context at kernel/locking/mutex.c:591
BUG: scheduling while atomic: insmod/120/0x00000002
WARNING: CPU: 1 PID: 120 at kernel/livepatch/core.c:7 klp_x+0x1/0x2
WARNING: kernel/livepatch/core.c:7 at klp_x+0x1/0x2, CPU#1: insmod/120
WARNING: possible circular locking dependency detected
WARNING: suspicious RCU usage
INFO: task insmod:120 blocked for more than 120 seconds.
INFO: rcu_sched detected stalls on CPUs/tasks:
INFO: trying to register non-static key.
rcu: INFO: rcu_preempt self-detected stall on CPU
rcu: rcu_preempt kthread starved for 2100 jiffies! g5 f0x0 RCU_GP_WAIT_FQS(5) ->state=0x0 ->cpu=1
Oops: Oops: 0000 [#1] SMP
Oops: general protection fault, probably for non-canonical address 0x6b6b6b6b: 0000 [#1]
Internal error: Oops: 0000000096000004 [#1]  SMP
Unable to handle kernel paging request at virtual address ffff800000000000
Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b
general protection fault, maybe for address 0x1: 0000 [#1] SMP
int3: 0000 [#1] SMP
kernel BUG at mm/slub.c:563!
Call Trace:
Call trace:
------------[ cut here ]------------
UBSAN: array-index-out-of-bounds in kernel/livepatch/core.c:7:1
KFENCE: use-after-free read in klp_x+0x1/0x2
ODEBUG: free active (active state 0) object: ffff888100000000 object type: work_struct
refcount_t: underflow; use-after-free.
list_add corruption. prev->next should be next (1), but was 2. (prev=3).
list_del corruption, ffff888100000000->next is LIST_POISON1 (dead000000000100)
kobject: 'x' (00000000): tried to init an initialized object, something is seriously wrong.
kobject: (00000000): attempted to be registered with empty name! error
kobject_add_internal failed for x with -EEXIST, don't try to register things with the same name
sysfs: cannot create duplicate filename '/kernel/livepatch/x'
unreferenced object 0xffff888100000000 (size 64):
kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)
watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [insmod:120]
NMI watchdog: Watchdog detected hard LOCKUP on cpu 1
watchdog: CPU1: Watchdog detected hard LOCKUP on cpu 1
workqueue: klp_x hogged CPU for >10000us 4 times, consider switching to WQ_UNBOUND
[ BUG: Invalid wait context ]
[BUG: bad unlock balance detected!]
======================================================
DEBUG_LOCKS_WARN_ON(lock->magic != lock)
rust_kernel: panicked at kernel/livepatch/stack.rs:1:1:
""".strip().splitlines()

# None of these does.
HARMLESS = """
RETBleed: WARNING: Spectre v2 mitigation leaves CPU vulnerable to RETBleed attacks, data leaks possible!
Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on
livepatch: enabling patch 'test_klp_livepatch'
livepatch: '(null)': the name is a BUG: no
===== TEST: basic function patching =====
test_klp_callbacks_busy: test_klp_callbacks_busy_init
livepatch: pre_patch callback failed for object 'vmlinux'
livepatch: failed to enable patch 'test_klp_callbacks_demo'
kmemleak: Kernel memory leak detector initialized (mem pool available: 15680)
kmemleak: Automatic memory scanning thread started
ODEBUG: selftest passed
ODEBUG: 12 of 12 active objects replaced
rcu: Hierarchical RCU implementation.
rcu: \tRCU debug extended QS entry/exit.
workqueue: work func klp_x enqueued on deprecated workqueue. Use system_{percpu|dfl}_wq instead.
clocksource: Switched to clocksource tsc
sysrq: Resetting
kprobes: kprobe jump-optimization is enabled. All kprobes are optimized if possible.
% insmod test_modules/test_klp_livepatch.ko
insmod: ERROR: could not insert module test_modules/test_klp_livepatch.ko: Invalid parameters
module: WARNING in the middle of a line
    # Subtest: BUG: of a name
""".strip().splitlines()


class Splats(unittest.TestCase):
    def splats(self, line, prefix="[   12.345678] "):
        with tempfile.NamedTemporaryFile("w") as f:
            f.write("[    0.000000] Linux version 7.3\n" + prefix + line + "\n")
            f.flush()
            console = run_guest.Console(f.name)
            console.poll()
        return console

    def test_each_fails_a_run(self):
        for line in SPLATS:
            for prefix in "[   12.345678] ", "[   12.345678][  T120] ", "<4>[   12.345678] ":
                with self.subTest(line=line, prefix=prefix):
                    self.assertEqual(self.splats(line, prefix).splats, [1])

    def test_none_of_these_does(self):
        for line in HARMLESS:
            with self.subTest(line=line):
                self.assertEqual(self.splats(line).splats, [])

    def test_programs_may_say_anything(self):
        """What has no time stamp is not the kernel's."""
        for line in SPLATS:
            with self.subTest(line=line):
                self.assertEqual(self.splats(line, "").splats, [])

    def test_fatal(self):
        for line, fatal in (("Kernel panic - not syncing: x", True), ("Oops: 0000", True),
                            ("BUG: x", True), ("rcu: INFO: x", True), ("WARNING: x", False),
                            ("Call Trace:", False)):
            with self.subTest(line=line):
                self.assertEqual(self.splats(line).fatal, fatal)

    def test_in_parts(self):
        """A line that comes in two reads is one."""
        with tempfile.NamedTemporaryFile("w") as f:
            console = run_guest.Console(f.name)
            for part in "[    1.0000", "00] BU", "G: x\n[    1.000001] fine\r\n":
                f.write(part)
                f.flush()
                console.poll()
        self.assertEqual((console.splats, len(console.lines)), ([0], 2))

    def test_report(self):
        """What is shown: the first complaint with its surroundings, and later heads."""
        lines = ["[    1.000000] line %d" % i for i in range(300)]
        lines[100] = "[    1.000000] WARNING: first"
        lines[120] = "[    1.000000] Call Trace:"
        lines[250] = "[    1.000000] BUG: second"
        with tempfile.NamedTemporaryFile("w") as f:
            f.write("\n".join(lines) + "\n")
            f.flush()
            console = run_guest.Console(f.name)
            console.poll()
        report = console.report()
        self.assertEqual(report[0], lines[96])
        self.assertEqual(report[4], lines[100])
        self.assertIn(lines[120], report)
        self.assertEqual(report[-2:], ["... and later:", lines[250]])
        self.assertLess(len(report), 90)


# QEMU's part: CONSOLE is where the kernel's log goes, output is what programs print.
QEMU = """#!/bin/bash
for arg; do [[ $arg != file,id=con,path=* ]] || CONSOLE=${arg#*path=}; done
echo $$ >"$CONSOLE.pid"
log() { echo "[    1.000000] $*" >>"$CONSOLE"; }
log "Linux version 7.3"
"""
DONE = "echo '@@KLP-BEGIN demo@@'; echo '@@KLP-RESULT demo 0@@'; echo '@@KLP-DONE@@'; "


class Runs(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()

    def tearDown(self):
        self.dir.cleanup()

    def command(self, guest, *names, limit=20):
        write(self.dir.name + "/qemu-system-x86_64", QEMU + guest + "\n", 0o755)
        return [sys.executable, REPO + "/scripts/run-guest.py", "--arch", "x86_64", "--kernel", "k",
                "--initrd", "i", "--log", self.dir.name + "/log", "--limit", str(limit),
                *(names or ("demo",))]

    def env(self):
        return dict(os.environ, PATH=self.dir.name + ":" + os.environ["PATH"])

    def run_guest(self, guest, *names, **kwargs):
        done = subprocess.run(self.command(guest, *names, **kwargs), text=True, env=self.env(),
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
        return done.returncode, done.stdout, done.stderr

    def qemu_is_gone(self):
        with open(self.dir.name + "/log.console.pid") as f:
            pid = f.read().strip()
        for _ in range(50):
            if not os.path.exists("/proc/" + pid):
                return True
            time.sleep(0.05)
        return False

    def test_pass(self):
        code, out, err = self.run_guest("echo hello; " + DONE)
        self.assertEqual((code, out), (0, "hello\n"), err)
        self.assertRegex(err, r"guest demo \(x86_64\): pass in \d+ s")

    def test_program_fails(self):
        code, _, err = self.run_guest(DONE.replace("demo 0", "demo 3"))
        self.assertEqual(code, 1, err)
        self.assertIn("FAIL", err)
        self.assertIn("demo (exit 3)", err)

    def test_no_result(self):
        code, _, err = self.run_guest(DONE, "demo", "reload")
        self.assertEqual(code, 1)
        self.assertIn("reload (no result)", err)

    def test_hang(self):
        code, _, err = self.run_guest("echo '@@KLP-BEGIN demo@@'; echo busy; sleep 100", limit=1)
        self.assertEqual(code, 2, err)
        self.assertIn("HANG: not done after 1 s, in demo", err)
        self.assertIn("busy", err)
        self.assertTrue(self.qemu_is_gone())

    def test_splat_in_a_run_that_passes(self):
        code, _, err = self.run_guest("log 'WARNING: at x'; " + DONE)
        self.assertEqual(code, 3)
        self.assertIn("WARNING: at x", err)

    def test_splat_at_the_end(self):
        """Also what comes after the programs, in a reboot say."""
        code, _, err = self.run_guest(DONE + "sleep 0.3; log 'BUG: at the end'")
        self.assertEqual(code, 3, err)

    def test_guest_dies(self):
        code, _, err = self.run_guest("echo '@@KLP-BEGIN demo@@'; echo out of memory >&2")
        self.assertEqual(code, 3)
        self.assertIn("ended before its programs did", err)
        self.assertIn("out of memory", err)

    def test_fatal_ends_soon(self):
        """A guest that has crashed is not waited for up to the limit."""
        path = self.dir.name + "/fast.py"
        with open(REPO + "/scripts/run-guest.py") as f:
            write(path, f.read().replace("\nGRACE = 30\n", "\nGRACE = 1\n"))
        command = self.command("log 'Kernel panic - not syncing: x'; sleep 100", limit=60)
        command[1] = path
        start = time.monotonic()
        done = subprocess.run(command, env=self.env(), stderr=subprocess.PIPE, timeout=50)
        self.assertEqual(done.returncode, 3)
        self.assertLess(time.monotonic() - start, 20)

    def test_broken_guest(self):
        for where in "echo '@@KLP-BROKEN no awk@@'", "log '@@KLP-BROKEN no awk@@'":
            code, _, err = self.run_guest(where)
            self.assertEqual(code, 1)
            self.assertIn("the guest is broken: no awk", err)

    def test_no_splat_of_an_earlier_run(self):
        self.run_guest("log 'BUG: x'; " + DONE)
        self.assertEqual(self.run_guest(DONE)[0], 0)

    def test_qemu_does_not_outlive_it(self):
        for end in "terminate", "kill":
            with self.subTest(end=end):
                with subprocess.Popen(self.command("exec sleep 1000"), env=self.env(),
                                      stderr=subprocess.DEVNULL) as process:
                    for _ in range(200):
                        if os.path.exists(self.dir.name + "/log.console"):
                            break
                        time.sleep(0.05)
                    getattr(process, end)()
                    process.wait(10)
                self.assertTrue(self.qemu_is_gone())
                os.unlink(self.dir.name + "/log.console")


if __name__ == "__main__":
    unittest.main()
