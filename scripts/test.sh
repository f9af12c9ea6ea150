#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# test.sh: everything that CI runs, for all architectures that ARCH names. A part
# that fails does not stop the others, unless they need what it makes. The last
# line is the sum over all parts.

. "$(dirname "$0")/lib.sh"

read -r -a archs <<<"${ARCH:-x86_64 arm64}"
debug=${DEBUG:-0}
for arch in "${archs[@]}"; do check_arch "$arch"; done
check_debug "$debug"
export -n KLP_T0 # each part shows its own time
scripts=$REPO/scripts
# A line per part: PASSED FAILED SKIPPED, then what the table shows. A file, as
# guests run side by side.
results=$LOGS/results
: >"$results"

# account NAME START PASSED FAILED SKIPPED [WHY]
account() {
	local verdict=ok took=$(($(date +%s) - $2)) line
	(($3)) || verdict=skipped
	((!$4)) || verdict=FAILED
	line=$(printf '%-26s %-8s %5d passed %3d failed %3d skipped %4d:%02d  %s' \
		"$1" "$verdict" "$3" "$4" "$5" $((took / 60)) $((took % 60)) "${6:-}")
	echo "$3 $4 $5 $line" >>"$results"
	echo "$line"
}

# tap FILE RC: "PASSED FAILED SKIPPED" of TAP in FILE, made to agree with the
# exit code: no failure gets lost, and no test at all is a failure.
tap() {
	local p f s rest
	{ read -r p f s && rest=$(cat); } < <("$scripts/ktap.py" "$1")
	[[ -z $rest ]] || echo "  failed: ${rest//$'\n'/, }" >&2
	if (($2 && !f || !(p + f + s))); then f=1; fi
	# A hang or a crash is a failure of its own.
	(($2 < 2)) || ((++f))
	echo "$p $f $s"
}

# plain NAME COMMAND...: a part that is one test.
plain() {
	local name=$1 start rc=0
	shift
	start=$(date +%s)
	echo "== $name"
	"$@" || rc=$?
	if ((rc)); then account "$name" "$start" 0 1 0 "exit $rc"; else account "$name" "$start" 1 0 0; fi
	return "$rc"
}

# with_tap NAME FILE COMMAND...: a part whose test points are in FILE, or on
# its standard output when FILE is "-".
with_tap() {
	local name=$1 file=$2 start rc=0 counts
	shift 2
	start=$(date +%s)
	echo "== $name"
	if [[ $file == - ]]; then
		file=$LOGS/part.tap
		{ "$@" || echo $? >"$file.rc"; } > >(tee "$file")
		wait $! || true
		[[ ! -e $file.rc ]] || rc=$(<"$file.rc")
		rm -f "$file.rc"
	else
		rm -f "$file"
		"$@" || rc=$?
		[[ -e $file ]] || : >"$file"
	fi
	read -r -a counts < <(tap "$file" "$rc")
	account "$name" "$start" "${counts[@]}" "$( ((rc == 0)) || echo "exit $rc")"
}

# guest ARCH CORE NAMES LOG [VAR=VALUE...]: a boot of the kernel with that core.
guest() {
	local arch=$1 core=$2 names=$3 log=$4
	shift 4
	env ARCH="$arch" CORE="$core" DEBUG="$debug" KLP_LOG="$log" "$@" "$scripts/guest.sh" "$names"
}
log_of() { echo "$LOGS/guest-$3-$1-$2$([[ $debug == 0 ]] || echo -debug).$4"; }

missing() { account "$1" "$(date +%s)" 0 0 1 "not run: $2"; }

host_tests() {
	local start rc=0 log=$LOGS/host-tests.log counts
	start=$(date +%s)
	echo "== host tests"
	"$scripts/host-tests.sh" >"$log" 2>&1 || rc=$?
	# cargo's and libtest's lines, one per test program.
	counts=$(awk '/^test result: / {
		for (i = 1; i < NF; i++) {
			if ($(i + 1) ~ /^passed/) p += $i
			if ($(i + 1) ~ /^failed/) f += $i
			if ($(i + 1) ~ /^ignored/) s += $i
		}} END {print p + 0, f + 0, s + 0}' "$log")
	read -r -a counts <<<"$counts"
	if ((rc && !counts[1] || !(counts[0] + counts[1]))); then counts[1]=1; fi
	((!counts[1])) || { log_matters "$log" && echo "log: $log"; }
	account "host tests" "$start" "${counts[@]}"
}

for arch in "${archs[@]}"; do plain "tools $arch" "$scripts/deps.sh" "$arch" || true; done
with_tap "scripts" - "$scripts/tests/run.py"
with_tap "lint" - "$scripts/lint.sh" spdx rustfmt levels copies checkpatch shellcheck python
plain "series" "$scripts/series.sh" || true
[[ ! -x $scripts/host-tests.sh ]] || host_tests

build() { "$scripts/build.sh" "$@" "$debug" >/dev/null; }
doc() { env ARCH=x86_64 CORE=m "$scripts/doc.sh" >/dev/null; }

# cores ARCH: the C core is there to show that it still builds and boots, for
# which one architecture is enough; comparing the two is another command's work.
cores() { case $1 in x86_64) echo m y c ;; *) echo m y ;; esac; }

# build_all ARCH: the kernel with each core.
declare -A built
build_all() {
	local arch=$1 core
	for core in $(cores "$arch"); do
		built[$arch-$core]=1
		plain "$arch build CORE=$core" build "$arch" "$core" || built[$arch-$core]=
	done
}

# boot_core ARCH CORE: all that the guest with that core does.
boot_core() {
	local arch=$1 core=$2 part
	if [[ -z ${built[$arch-$core]} ]]; then
		for part in demo kunit kselftest exit-window sets-walk reload; do missing "$arch $part CORE=$core" "its build failed"; done
		return
	fi
	plain "$arch demo CORE=$core" guest "$arch" "$core" demo demo || true
	if [[ $core == c ]]; then
		with_tap "$arch kselftest CORE=c" "$(log_of "$arch" c kselftest output)" \
			guest "$arch" c kselftest kselftest TESTS=rust-needs
		return
	fi
	with_tap "$arch kunit CORE=$core" "$(log_of "$arch" "$core" kunit console)" \
		guest "$arch" "$core" kunit kunit
	with_tap "$arch kselftest CORE=$core" "$(log_of "$arch" "$core" kselftest output)" \
		guest "$arch" "$core" kselftest kselftest
	[[ $arch-$core != x86_64-m ]] || with_tap "$arch run_kselftest CORE=$core" \
		"$(log_of "$arch" "$core" run_kselftest output)" guest "$arch" "$core" run_kselftest run_kselftest \
		TESTS="livepatch sysfs rust-refused rust-fields"
	[[ $arch-$core != x86_64-m ]] || plain "$arch exit-window CORE=$core" env ARCH="$arch" CORE="$core" \
		DEBUG="$debug" WINDOW=closed "$scripts/exit-window.sh" || true
	plain "$arch sets-walk CORE=$core" guest "$arch" "$core" sets-walk sets-walk || true
	plain "$arch reload CORE=$core" guest "$arch" "$core" reload,kmemleak reload || true
}

# boot_all ARCH: the guest with each core. A guest keeps one CPU of the host busy:
# two go side by side, with their output one after the other.
boot_all() {
	[[ $(cores "$1") != *c* ]] || boot_core "$1" c
	spawn boot_core "$1" y >"$LOGS/boot-y.log" 2>&1
	boot_core "$1" m
	wait $! || true
	cat "$LOGS/boot-y.log"
}

for arch in "${archs[@]}"; do
	build_all "$arch"
	# It is about the sources, for which one architecture is enough.
	if [[ $arch == x86_64 ]]; then
		if [[ ${built[x86_64-m]} && $debug == 0 ]]; then
			with_tap "clippy" - "$scripts/lint.sh" clippy
		else
			missing "clippy" "no build to start from"
		fi
		if [[ ${built[x86_64-m]} ]]; then
			plain "doc" doc || true
			with_tap "configs" - "$scripts/configs.sh"
		else
			missing "doc" "no build to start from"
			missing "configs" "no build to start from"
		fi
	fi
	boot_all "$arch"
done

if [[ $debug == 1 ]]; then
	missing "bench QUICK=1" "the checkers of DEBUG=1 are not what is measured"
elif [[ ${built[x86_64-m]:-} && ${built[x86_64-y]:-} && ${built[x86_64-c]:-} ]]; then
	plain "bench QUICK=1" env ARCH=x86_64 QUICK=1 "$scripts/bench.sh" || true
else
	missing "bench QUICK=1" "not all of x86_64 was built"
fi

echo
echo "== all parts"
cut -d ' ' -f 4- "$results"
echo "total time $(elapsed), logs in $LOGS"
read -r passed failed skipped < <(awk '{p += $1; f += $2; s += $3} END {print p + 0, f + 0, s + 0}' "$results")
rc=0
((failed == 0 && passed > 0)) || rc=1
echo "$passed passed, $failed failed, $skipped skipped"
exit "$rc"
