#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# series.test.sh BASE: that series.py stops at mistakes, each with its message, and
# that it follows a file that moves.
# BASE is as tree.sh prints it.

. "$(dirname "$0")/lib.sh"

base=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
n=0 failed=0

fresh_repo() {
	rm -rf "$work/repo" "$work/out"
	mkdir -p "$work/repo/scripts"
	cp -r "$REPO/patches" "$REPO/MAINTAINERS" "$work/repo"
	cp "$REPO"/scripts/series.* "$work/repo/scripts"
}

# refused TEXT COMMAND...: after COMMAND in a copy, series.py says TEXT and fails.
refused() {
	local text=$1 out
	shift
	fresh_repo
	(cd "$work/repo" && "$@")
	((++n))
	if out=$(PYTHONDONTWRITEBYTECODE=1 "$REPO/scripts/series.py" "$work/repo" "$base" "$work/out" 2>&1); then
		echo "not ok $n $text: accepted"
		failed=1
	elif [[ $out == *"$text"* ]]; then
		echo "ok $n $text"
	else
		echo "# ${out//$'\n'/$'\n'# }"
		echo "not ok $n $text"
		failed=1
	fi
}

list=scripts/series.list
stray_patch() {
	printf '%s\n' 'From 0 Mon Sep 17 00:00:00 2001' 'From: A <a@b>' 'Subject: [PATCH] x' '' 'x' '---' \
		'diff --git a/block/x b/block/x' 'new file mode 100644' '--- /dev/null' '+++ b/block/x' \
		'@@ -0,0 +1 @@' '+x' >patches/0999-x.patch
}
# A header that nobody asks for.
stray_line() {
	sed -i 's|^+#include <linux/kallsyms.h>$|+#include <linux/nobodys.h>|' patches/0002-*
}
# A patch that wires files in only adds lines.
removed_line() {
	sed -i '0,/^ #include/s/^ \(#include.*\)/-\1\n+\1/' patches/0002-*
}
later() {
	sed -n '/^commit.*store of shadow/,/^$/p' "$list" >tail.list
	sed -i '/^commit.*store of shadow/,/^$/d' "$list"
	cat tail.list >>"$list"
}

refused "samples/livepatch/livepatch-shadow-types.c is in no group" sed -i 's/ samples.*shadow-types.*//' $list
refused "is in more than one group" sed -i 's|add kernel/livepatch/\*modules.rs|& kernel/livepatch/lock.rs|' $list
refused "patches/0999-x.patch is in no commit" stray_patch
refused "is in two places" sed -i 's/^patch 0006/& 0001/' $list
refused "there is no patches/0998-" sed -i 's/^patch 0006/& 0998/' $list
refused "there is no such new file" sed -i "s|kernel/livepatch/exports.c|& kernel/livepatch/none.c|" $list
refused "subject of rust/kernel/none.rs: there is no" sed -i 's|^subject rust/kernel/kobject|subject rust/kernel/none|' $list
refused "no commit is known for the line '#include <linux/nobodys.h>'" stray_line
refused "removes a line of rust/bindings/bindings_helper.h" removed_line
refused "names rust/kernel/kobject.rs, which comes later" sed -i 's/^wire 0002 /wire /; s/^patch 0001/& 0002/' $list
refused "which comes later, with 'livepatch: add the store" later
refused "is not in kernel/livepatch/livepatch_main.rs any more" sed -i 's/Ok(Livepatch)/Ok(Another)/' scripts/series.root
refused "MAINTAINERS: no F: line for" sed -i '/rust\/kernel\/kobject.rs/d' MAINTAINERS
refused "no new file of the series is like that" sed -i 's|rust/kernel/kobject.rs|&\nF:\trust/kernel/kobjectx.rs|' MAINTAINERS
refused "the F: lines are not in order" sed -i 's|^F:.*samples/livepatch/livepatch-sets.*|F:\ttools/testing/selftests/livepatch/*rust*\n&|' MAINTAINERS

# A module that has become a folder is where its file was, and what its mod.rs declares
# comes when that comes.
moved() {
	local from=$base to=$work/base file
	mkdir "$to"
	ln -s "$from/pristine" "$to/pristine"
	rsync -a --files-from="$from/manifest" "$from/tree/" "$to/tree/"
	base=$to
	cd "$to/tree/kernel/livepatch"
	mkdir control
	mv control.rs control/mod.rs
	mv modules.rs control/
	sed -i '/^mod modules;/d' livepatch_main.rs
	echo 'mod modules;' >>control/mod.rs
	sed 's|livepatch/control.rs|livepatch/control/mod.rs|; s|livepatch/modules.rs|livepatch/control/modules.rs|' \
		"$from/manifest" | sort >"$to/manifest"
	PYTHONDONTWRITEBYTECODE=1 "$REPO/scripts/series.py" "$work/repo" "$to" "$work/out"
	cd "$work/out/git"
	file=kernel/livepatch/control/mod.rs
	[[ $(git log --format=%s -- $file) == *"come and go"*"enable, replace and disable"* ]]
	git show HEAD:$file | tail -n 1 | grep -x 'mod modules;'
	[[ $(git log --format=%s -S'mod modules;' -- $file) == *"come and go"* ]]
}
fresh_repo
((++n))
# In a condition errexit would be off.
set +e
out=$(set -e; moved 2>&1)
rc=$?
set -e
if ((rc == 0)); then
	echo "ok $n a module becomes a folder"
else
	echo "# ${out//$'\n'/$'\n'# }"
	echo "not ok $n a module becomes a folder"
	failed=1
fi
echo "1..$n"
exit "$failed"
