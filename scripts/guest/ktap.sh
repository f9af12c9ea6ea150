# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# Sourced by the guest's kselftest: what a livepatch selftest prints, as KTAP.

# run_script NUMBER SCRIPT: runs ./SCRIPT, whose tests are points nested in its own.
# How many there will be is not known before: there is no plan, and "# Subtest:"
# says where they end. Returns the script's exit code.
run_script() {
	local rc start=$SECONDS
	# "TEST: name ... ok" becomes a test point as soon as it is complete; all
	# other output is shown as a comment below the point it belongs to. In a
	# point "#" begins a directive.
	"./$2" 2>&1 </dev/null | awk -W interactive -v script="$2" '
		/^TEST: .* \.\.\. / {
			name = $0; sub(/^TEST: /, "", name)
			verdict = name; sub(/.* \.\.\. /, "", verdict); sub(/ \.\.\. .*/, "", name)
			gsub(/ *#+ */, " ", name)
			if (!n) printf "    KTAP version 1\n    # Subtest: %s\n", script
			if (verdict == "ok") printf "    ok %d %s\n", ++n, name
			else if (sub(/^SKIP:? */, "", verdict)) printf "    ok %d %s # SKIP %s\n", ++n, name, verdict
			else {
				printf "    not ok %d %s\n", ++n, name
				if (verdict != "not ok") print "    # " verdict
			}
			fflush(); next
		}
		{ print "    # " $0; fflush() }'
	rc=${PIPESTATUS[0]}
	case $rc in
	0) echo "ok $1 $2 # time=$((SECONDS - start))s" ;;
	4) echo "ok $1 $2 # SKIP" ;;
	*) echo "not ok $1 $2 # exit=$rc time=$((SECONDS - start))s" ;;
	esac
	return "$rc"
}
