# SPDX-License-Identifier: GPL-2.0
# The front door. Each target is a script in scripts/; the rest of this
# repository is an overlay for a Linux 7.3 tree (see README.md).

# make test is about both, unless told otherwise.
ifeq ($(origin ARCH),undefined)
test: ARCH = x86_64 arm64
endif
ARCH ?= x86_64
CORE ?= m
CONFIG ?=
DEBUG ?= 0
TESTS ?=
FLIPS ?=
QUICK ?=
KSRC ?=
EXITS ?=
CASES ?=
SEED ?=
WINDOW ?=
STALL ?=
export ARCH CORE CONFIG DEBUG TESTS FLIPS EXITS CASES SEED QUICK KSRC WINDOW STALL

# A word too many would otherwise be taken for a target or silently ignored.
$(if $(filter-out x86_64 arm64,$(ARCH)),$(error ARCH=$(ARCH): must be x86_64 or arm64))
$(if $(filter-out m y c,$(CORE)),$(error CORE=$(CORE): must be m, y or c))
$(if $(filter-out 0 1,$(DEBUG)),$(error DEBUG=$(DEBUG): must be 0 or 1))
$(if $(KSRC),$(if $(wildcard $(KSRC)/Makefile),,$(error KSRC=$(KSRC): no kernel tree there)))

.PHONY: bench check configs doc exit-window help host-tests kunit rust-analyzer demo test kselftest reload run_kselftest sets-walk klp-build compare stress shell build lint series clean
help:
	@echo 'A livepatch core in Rust for Linux 7.3'
	@echo
	@echo '  make demo       boot a guest, livepatch it, and undo it: /proc/cmdline three times'
	@echo '  make test       all that CI runs; ends with "N passed, N failed, N skipped"'
	@echo '  make check      a first verdict on an edit, in seconds: no guest, no root'
	@echo '  make host-tests the core'\''s pure logic and a model of its ordering, on this machine'
	@echo '  make kunit      KUnit suites and doctests, in the guest'
	@echo '  make kselftest  the livepatch selftests in the guest, as KTAP'
	@echo '  make run_kselftest  the same by the kernel tree'\''s own run_kselftest.sh'
	@echo '  make reload     the core loaded and unloaded 100 times'
	@echo '  make compare    C core and Rust core side by side; unlisted differences fail'
	@echo '  make stress     transitions back and forth on a busy guest, then a search for leaks'
	@echo '  make bench      what both cores cost, in instructions: a table, JSON, and plots'
	@echo '  make sets-walk  livepatches in replace sets loaded at random, checked against the rules'
	@echo '  make exit-window  a livepatch goes while a thread exits in it; CORE=c: the oops of before'
	@echo '  make klp-build  livepatches that klp-build makes of two CVE fixes, on the Rust core'
	@echo '  make shell      an interactive guest with samples and test modules'
	@echo '  make build      only the kernel and its modules'
	@echo '  make configs    configurations that no guest boots: built, without a warning'
	@echo '  make lint       rustfmt, clippy, checkpatch, shellcheck'
	@echo '  make doc        the core'\''s documentation, by rustdoc'
	@echo '  make rust-analyzer  rust-project.json for editors'
	@echo '  make series     this repository as patches on top of the pristine tree'
	@echo '  make clean      remove what was built (not what was fetched)'
	@echo
	@echo '  ARCH=x86_64|arm64  the guest (default x86_64; make test: both)'
	@echo '  CORE=m|y|c         Rust core as module (default), built in, or the C core'
	@echo '  DEBUG=1            with KASAN, lockdep and friends'
	@echo '  CONFIG=isolated    a kernel with a CPU in nohz_full=, and with sockets, for the guests'
	@echo '  TESTS="NAME..."    selftests or host tests to run, e.g. TESTS="livepatch sysfs"'
	@echo '  FLIPS=N            how many transitions make stress starts or turns round (default 2000)'
	@echo '  EXITS=N            how many threads exit meanwhile, at least (default 0)'
	@echo '  CASES=N            how many random cases test-rust-preflight.sh tries (default 20)'
	@echo '  SEED=N             what random cases and walks begin with, to repeat them'
	@echo '  STALL=1            make demo of a transition that stalls: who it is, why, and the way out'
	@echo '  WINDOW=open        make exit-window without the protection; closed: with it, for CORE=c'
	@echo '  QUICK=1            make bench in minutes, without the C core'\''s longest cells'
	@echo '  KSRC=DIR           a Linux 7.3.y tree, instead of the one that apt fetches'

demo kselftest reload run_kselftest sets-walk shell:
	@scripts/guest.sh $@

stress:
	@scripts/guest.sh stress,kmemleak

klp-build:
	@scripts/klp-build-test.sh

build:
	@scripts/deps.sh $(ARCH)
	@scripts/build.sh $(ARCH) $(CORE) $(DEBUG)

bench check compare configs doc exit-window kunit lint rust-analyzer series test:
	@scripts/$@.sh

host-tests:
	@scripts/host-tests.sh $$TESTS

clean:
	@scripts/clean.sh
