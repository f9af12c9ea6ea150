# SPDX-License-Identifier: GPL-2.0
"""A small world for the scripts: a copy of the repository with a kernel tree of a
few megabytes, and stand-ins for what is large or belongs to the system (apt, the
kernel's make, mmdebstrap, QEMU). The scripts themselves are the real ones.

STUB_HANG names a moment at which a stand-in stands still, STUB_DIR/at its file.
"""

import importlib.util
import os
import shutil
import subprocess
import tempfile

REPO = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
TREE_FILES = 64
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"),
                     "rust-livepatch")
# What scripts/check.sh asks for.
QUICK = os.environ.get("KLP_TESTS") == "quick"

# hang MOMENT: with a child, as the real ones have. In the background of the scripts it
# is one that ignores Ctrl-C.
HANG = """#!/bin/bash
hang() {
	[[ ${STUB_HANG:-} == "$1" ]] || return 0
	case $1 in
	graft | copy | qemu) env --default-signal=INT,QUIT sleep 1000 & ;;
	*) sleep 1000 & ;;
	esac
	: >"$STUB_DIR/at"
	sleep 1000
}
"""

STUBS = {
    "apt-get": """
case " $* " in
*" install "*) hang install ;;
*" download "*)
	hang download
	cp "$STUB_DIR/source.deb" linux-source-7.3_7.3.4-1_all.deb
	;;
*" indextargets "*) echo "http://localhost/debian stable" ;;
esac
""",
    "apt-cache": """
case " $* " in
*" policy "*) printf '  Candidate: 99.0\\n' ;;
esac
""",
    "dpkg-deb": """
if [[ ${STUB_HANG:-} == unpack ]]; then
	head -c 100000 "$STUB_DIR/source.tar"
	hang unpack
fi
exec cat "$STUB_DIR/source.tar"
""",
    "patch": 'hang graft\nexec /usr/bin/patch "$@"\n',
    "rsync": 'hang copy\nexec /usr/bin/rsync "$@"\n',
    "sudo": 'shift\nexec "$@"\n',
    "mmdebstrap": """
hang rootfs
for arg; do [[ $arg != *.tar ]] || tar -cf "$arg" -C "$STUB_DIR" rootfs; done
""",
    "qemu-system-x86_64": """
for arg; do [[ $arg != file,id=con,path=* ]] || : >"${arg#*path=}"; done
hang qemu
printf '@@KLP-BEGIN demo@@\\n@@KLP-RESULT demo 0@@\\n@@KLP-DONE@@\\n'
""",
    "gcc": 'while [[ $1 != -o ]]; do shift; done\n: >"$2"\n',
    # The kernel's.
    "make": """
for arg; do [[ $arg != *=* ]] || declare "${arg%%=*}=${arg#*=}"; done
case " $* " in
*" tinyconfig "*) hang config && : >"$O/.config" ;;
*" bzImage "*) hang build && mkdir -p "$O/arch/x86/boot" && echo kernel >"$O/arch/x86/boot/bzImage" ;;
*" modules_install "*) mkdir -p "$INSTALL_MOD_PATH/lib/modules" ;;
*" install "*) mkdir -p "$KSFT_INSTALL_PATH/livepatch" ;;
*" modules "*) mkdir -p "$MO" && : >"$MO/module.ko" ;;
esac
""",
}

TOOLCHAIN = """
# shellcheck shell=bash
LLVM_VER=19 MIN_RUSTC=1.85.0 MIN_BINDGEN=0.71.1 BINDGEN_CRATE=0.73.2
version_ge() { [[ $(printf '%s\\n%s\\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }
find_rustc() { return 1; }
find_bindgen() { return 0; }
use_toolchain() { TOOLCHAIN_ID=stub KMAKE_ARGS=(STUB=1); }
kmake() { local tree=$1 build=$2 arch=$3; shift 3; make -C "$tree" O="$build" ARCH="$arch" "$@"; }
"""

MERGE_CONFIG = """#!/bin/bash
# merge_config.sh -m -O DIR CONFIG FRAGMENT...
cat "${@:5}" | grep -v '=n$' >"$3/.config"
"""

PATCH = """--- a/kernel/livepatch/Makefile
+++ b/kernel/livepatch/Makefile
@@ -1 +1,2 @@
 obj-y := core.o
+obj-m := rust.o
"""


def load(name):
    """A Python script of scripts/, as a module."""
    spec = importlib.util.spec_from_file_location(name.replace("-", "_"),
                                                  "%s/scripts/%s.py" % (REPO, name))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(path, text, mode=0o644):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)
    os.chmod(path, mode)


class World:
    """self.env is for subprocesses; self.cache is the cache's directory."""

    def __init__(self, big=1 << 16):
        self.dir = tempfile.mkdtemp(prefix="klp-world.")
        self.repo = self.path("repo")
        self.source = self.path("linux-source-7.3")
        self.cache = self.path("cache", "rust-livepatch")
        for name in "bin", "cache", "tmp", "stub/rootfs":
            os.makedirs(self.path(name))
        self.env = dict(
            {k: v for k, v in os.environ.items() if not k.startswith(("KLP_", "MAKE"))
             and k not in ("KSRC", "CORE", "DEBUG", "ARCH", "TESTS", "MFLAGS")},
            PATH=self.path("bin") + ":/usr/bin:/bin:/usr/sbin:/sbin",
            XDG_CACHE_HOME=self.path("cache"), TMPDIR=self.path("tmp"),
            STUB_DIR=self.path("stub"), KLP_TEST_WORLD=self.dir)
        for name, text in STUBS.items():
            write(self.path("bin", name), HANG + text, 0o755)
        self._make_source(big)
        self._make_repo(big)

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def _make_source(self, big):
        src = self.source
        write(src + "/Makefile", "# comment\nVERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\n")
        write(src + "/Kbuild", "")
        write(src + "/kernel/livepatch/Makefile", "obj-y := core.o\n")
        for name in "kernel/livepatch/Kconfig", "samples/Kconfig", "scripts/subarch.include", \
                "usr/include/x.h":
            write(src + "/" + name, "")
        for name in "Makefile", "lib.mk", "run_kselftest.sh", "kselftest.h", \
                "kselftest_harness.h", "kselftest/runner.sh":
            write(src + "/tools/testing/selftests/" + name, "")
        write(src + "/scripts/kconfig/merge_config.sh", MERGE_CONFIG, 0o755)
        for i in range(TREE_FILES):
            write("%s/drivers/file%d.c" % (src, i), "x" * big)
        subprocess.run("tar -cJ -C '%s' linux-source-7.3 -f source.xz && mkdir -p usr/src && "
                       "mv source.xz usr/src/linux-source-7.3.tar.xz && "
                       "tar -c ./usr -f source.tar && rm -r usr && touch source.deb" % self.dir,
                       shell=True, check=True, cwd=self.path("stub"))

    def _make_repo(self, big):
        shutil.copytree(REPO + "/scripts", self.repo + "/scripts",
                        ignore=shutil.ignore_patterns("tests", "host-tests", "__pycache__"))
        shutil.copy(REPO + "/Makefile", self.repo)
        write(self.repo + "/patches/0001-test.patch", PATCH)
        write(self.repo + "/kernel/livepatch/rust.c", "y" * big)
        write(self.repo + "/tools/testing/selftests/livepatch/x.sh", "")
        os.remove(self.repo + "/scripts/check-objects.sh")
        write(self.repo + "/scripts/toolchain.sh", TOOLCHAIN)
        self.real_deps = self.path("deps.sh")
        os.rename(self.repo + "/scripts/deps.sh", self.real_deps)
        write(self.repo + "/scripts/deps.sh", "#!/bin/bash\n", 0o755)

    def use_real_deps(self):
        os.replace(self.real_deps, self.repo + "/scripts/deps.sh")

    def run(self, *command, **env):
        """Runs to the end. Returns the CompletedProcess, stderr with stdout."""
        return subprocess.run(command, cwd=self.repo, env=dict(self.env, **env), text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=60)

    def processes(self):
        """What still runs in this world: found by the environment it was given."""
        found, mark = [], b"KLP_TEST_WORLD=" + self.dir.encode() + b"\0"
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/environ" % pid, "rb") as f:
                    if mark not in f.read():
                        continue
                with open("/proc/%s/cmdline" % pid, "rb") as f:
                    found.append("%s %s" % (pid, f.read().replace(b"\0", b" ").decode()))
            except OSError:
                pass
        return found

    def close(self):
        shutil.rmtree(self.dir)


class RealWorld(World):
    """This repository and its cache, with all that is real."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="klp-world.")
        self.repo = REPO
        self.cache = CACHE
        for name in "tmp", "stub":
            os.makedirs(self.path(name))
        # Its output has steps; a cache that the caller has locked would not do.
        self.env = dict({k: v for k, v in os.environ.items() if not k.startswith("MAKE")
                         and k not in ("MFLAGS", "KLP_T0", "KLP_LOCK_FD", "KLP_LOG")},
                        TMPDIR=self.path("tmp"), STUB_DIR=self.path("stub"),
                        ARCH="x86_64", CORE="m", DEBUG="0", KLP_TEST_WORLD=self.dir)
