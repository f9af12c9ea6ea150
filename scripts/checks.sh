# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# Sourced after lib.sh, in the repository's directory: checks of the sources that
# take no kernel tree. Each is a function check_NAME that prints what is wrong.

mapfile -t files < <(git -c safe.directory='*' ls-files -co --exclude-standard | while read -r f; do
	[[ ! -f $f ]] || echo "$f"
done)
# with SUFFIX...: the files that end so.
with() {
	local f s
	for f in "${files[@]}"; do
		for s; do [[ $f == *"$s" ]] && echo "$f"; done
	done
	return 0
}
in_overlay() { grep -E '^(kernel|rust|include|samples|tools|Documentation)/' || true; }

check_spdx() {
	local f some=()
	for f in "${files[@]}"; do
		case $f in
		*.md | COPYING | MAINTAINERS | .gitignore | *.patch | *.log | .rustfmt.toml | Documentation/ABI/*) ;;
		*) some+=("$f") ;;
		esac
	done
	awk 'FNR > 3 {nextfile}
		/SPDX-License-Identifier: GPL-2\.0/ {has[FILENAME] = 1}
		END {
			for (i = 1; i < ARGC; i++)
				if (!has[ARGV[i]]) {print ARGV[i] ": no SPDX line"; bad = 1}
			exit bad
		}' "${some[@]}"
}

check_rustfmt() {
	local rs
	mapfile -t rs < <(with .rs)
	((${#rs[@]})) || { echo "no Rust file yet" && return; }
	"$RUSTFMT" --check --color never --edition 2021 --config-path "$REPO/.rustfmt.toml" "${rs[@]}"
}

# Who uses whom in the core.
check_levels() {
	scripts/levels.py
}

shell_files() {
	local f
	for f in "${files[@]}"; do
		case $f in *.sh | .ci/run | scripts/guest/*) echo "$f" ;; esac
	done
}

# check_shellcheck [FILE...]: those, or all.
check_shellcheck() {
	local f ours=() theirs=()
	(($#)) || { mapfile -t ours < <(shell_files) && set -- "${ours[@]}" && ours=(); }
	for f; do
		# Those of tools/ use the selftests' functions.sh.
		if [[ $f == tools/* ]]; then theirs+=("$f"); else ours+=("$f"); fi
	done
	# 1090/1091: sourced files are checked on their own. 2317: functions are
	# called by names that are put together.
	((${#ours[@]} == 0)) || shellcheck -s bash -e SC1090,SC1091,SC2317 "${ours[@]}"
	((${#theirs[@]} == 0)) || shellcheck -s bash -S error -e SC1090,SC1091 "${theirs[@]}"
}

check_python() {
	local py
	mapfile -t py < <(with .py)
	PYTHONPYCACHEPREFIX=$CACHE/pycache python3 -W error -m py_compile "${py[@]}"
}
