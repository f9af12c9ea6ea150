#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# graft.sh BASE: brings BASE/tree to BASE/pristine plus this repository's
# files and patches. Touches only files whose content differs, so that kbuild
# rebuilds only what depends on them. BASE/id names the result.

. "$(dirname "$0")/lib.sh"

base=$1 pristine=$1/pristine tree=$1/tree want=$1/want
take_lock
cd "$REPO" || exit

if [[ ! -d $tree ]]; then
	rm -rf "$tree.tmp"
	cp -al "$pristine" "$tree.tmp"
	mv "$tree.tmp" "$tree"
fi
rm -rf "$want"
mkdir -p "$want"

# 1. The patches, each on top of the one before, on copies of what they touch.
shopt -s nullglob
for p in patches/*.patch; do
	# From outside any repository git names the paths as the patch does.
	touched=$(cd / && git apply --numstat "$REPO/$p")
	while IFS=$'\t' read -r _ _ file; do
		[[ ! -e $want/$file && -e $pristine/$file ]] || continue
		mkdir -p "$want/$(dirname "$file")"
		cp "$pristine/$file" "$want/$file"
	done <<<"$touched"
	rej=$LOGS/patch.rej
	rm -f "$rej"
	if ! out=$(patch -d "$want" -p1 --fuzz=0 --no-backup-if-mismatch --batch --forward -r "$rej" -i "$REPO/$p" 2>&1); then
		echo "$out" >&2
		[[ ! -e $rej ]] || cat "$rej" >&2
		die "$p does not apply to $(make -s -C "$pristine" kernelversion 2>/dev/null || echo "$pristine")"
	fi
done

# 2. The overlay: new files only, at the path they have in the kernel.
clash=0
overlay() {
	local dir dirs=()
	for dir in kernel rust include samples tools Documentation; do
		[[ ! -d $dir ]] || dirs+=("$dir")
	done
	if git -c safe.directory='*' rev-parse --git-dir >/dev/null 2>&1; then
		git -c safe.directory='*' ls-files -co --exclude-standard -- "${dirs[@]}"
	else
		find "${dirs[@]}" -type f
	fi
}
add() {
	if [[ -e $pristine/$2 || -e $want/$2 ]]; then
		echo "error: $1 would overwrite a file that the kernel tree has" >&2
		clash=1
		return
	fi
	mkdir -p "$want/$(dirname "$2")"
	cp "$1" "$want/$2"
}
files=$(overlay)
while read -r file; do
	[[ ! -f $file ]] || add "$file" "$file"
done <<<"$files"
((clash == 0)) || die "changes to files of the kernel tree belong in patches/"

# 3. Make the tree so. What is written becomes a new file: it must never go
# through the link into the pristine tree. It gets a new time stamp, a restored
# one too, or kbuild would not see the change.
put() {
	mkdir -p "$(dirname "$tree/$2")"
	cp "$1" "$tree/$2.klp-new"
	mv "$tree/$2.klp-new" "$tree/$2"
}
find "$want" -type f -printf '%P\n' | sort >"$base/manifest.new"
touch "$base/manifest"
gone=$(comm -23 "$base/manifest" "$base/manifest.new")
# If this is interrupted, the next graft has to know of both.
sort -u "$base/manifest" "$base/manifest.new" >"$base/manifest.both"
mv "$base/manifest.both" "$base/manifest"
changed=0
while read -r file; do
	[[ -n $file ]] || continue
	if [[ -e $pristine/$file ]]; then put "$pristine/$file" "$file"; else rm -f "$tree/$file"; fi
	((++changed))
done <<<"$gone"
while read -r file; do
	if ! cmp -s "$want/$file" "$tree/$file"; then
		put "$want/$file" "$file"
		((++changed))
	elif [[ -x $want/$file && ! -x $tree/$file ]]; then
		put "$want/$file" "$file"
	fi
done <"$base/manifest.new"
mv "$base/manifest.new" "$base/manifest"
{
	awk 'NR > 1 && NR < 6' "$pristine/Makefile"
	stat -c %Y "$pristine"
	(cd "$want" && find . -type f -print0 | sort -z | xargs -0r sha256sum)
} | sha256sum | cut -c1-16 >"$base/id.new"
mv "$base/id.new" "$base/id"
((changed == 0)) || say "graft: $changed files changed in $tree"
rm -rf "$want"
