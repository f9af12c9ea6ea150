#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# series.sh: this repository as patches on top of the pristine tree, in an order
# in which each of them builds. Prints the directory.

. "$(dirname "$0")/lib.sh"

base=$("$REPO/scripts/tree.sh")
pristine=$base/pristine tree=$base/tree out=$CACHE/series
take_lock
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf "$out"

# A repository of no more than the files that are touched: a patch names blobs,
# not trees, so that it is the same as from a whole one.
name=$(git -C "$REPO" config user.name || echo "The livepatch-rs developers")
email=$(git -C "$REPO" config user.email || echo "livepatch-rs@localhost")
git=(git -C "$work" -c "user.name=$name" -c "user.email=$email" -c core.hooksPath=/dev/null)
"${git[@]}" init -q
while read -r file; do
	[[ -e $pristine/$file ]] || continue
	mkdir -p "$work/$(dirname "$file")"
	cp "$pristine/$file" "$work/$file"
done <"$base/manifest"
"${git[@]}" add -A
"${git[@]}" commit -q -m "Linux $(make -s -C "$pristine" kernelversion)"
"${git[@]}" tag base

# edit NUMBER...: those of patches/.
edit() {
	local n
	for n in "$@"; do "${git[@]}" am -q "$REPO/patches/$n"-*.patch; done
}

# new SUBJECT BODY PATH...: files that the kernel does not have. A directory
# stands for all of them below it that are not there yet.
new() {
	local subject=$1 body=$2 path file
	shift 2
	for path in "$@"; do
		while read -r file; do
			[[ ! -e $pristine/$file && -e $tree/$file ]] || continue
			mkdir -p "$work/$(dirname "$file")"
			cp "$tree/$file" "$work/$file"
		done < <(grep -E "^$path(/|\$)" "$base/manifest")
	done
	"${git[@]}" add -A
	"${git[@]}" diff --cached --quiet && die "nothing new for '$subject'"
	"${git[@]}" commit -q -s -m "$subject" -m "$(fold -s -w 72 <<<"$body" | sed 's/ *$//')"
}

edit 0001
new "rust: helpers: add those that the livepatch core needs" \
	"Inline functions and macros that the abstractions which follow call." rust/helpers
for file in "$REPO"/rust/kernel/*.rs; do
	file=${file##*/}
	# The first paragraph of a file's documentation says what it is for.
	about=$(awk '/^\/\/! / {sub("^//! ", ""); text = text " " $0; next} text {exit} END {print substr(text, 2)}' "$REPO/rust/kernel/$file")
	new "rust: add abstractions: ${file%.rs}" "$about" "rust/kernel/$file"
done
edit 0002 0006
new "livepatch: add a core in Rust" \
	"It replaces the C code behind klp_enable_patch(), with the same interface to livepatch modules and in sysfs. As yet nothing selects it." \
	kernel/livepatch include
edit 0003 0004
new "Documentation: livepatch: describe the core in Rust" \
	"What it does as the C core does, what it adds, and what that costs." Documentation
edit 0005 0012
new "samples: livepatch: add samples for managed states and replace sets" \
	"Livepatches that use what only the core in Rust has." samples
edit 0007 0010 0011
new "selftests: livepatch: add tests of the core in Rust" \
	"What it adds to the C core, what it refuses, and a benchmark of both." tools
edit 0050 0051

# Nothing is left out, and nothing else comes in.
while read -r file; do
	cmp -s "$tree/$file" "$work/$file" || die "the series does not make $file what it is"
done <"$base/manifest"
used=$("${git[@]}" log --format=%s base.. | wc -l)
added=$(find "$work" -path "$work/.git" -prune -o -type f -print | wc -l)
[[ $added == $(wc -l <"$base/manifest") ]] || die "the series adds files that the tree does not have"

"${git[@]}" format-patch -q --cover-letter --zero-commit -o "$out" base
say "$used patches"
echo "$out"
