#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# doc.sh: the core's documentation, private items included, as HTML by rustdoc.
# Warnings are errors. Prints where the first page is.

. "$(dirname "$0")/lib.sh"
. "$REPO/scripts/toolchain.sh"

rust_build document
out=$bld/klp/doc
rm -rf "$out"
mkdir -p "$out"

# document CRATE: kbuild's own command for the crate's object, made to document.
# Private items are always included: links to them never break.
document() {
	local cmd
	cmd=$(sed -n 's/^savedcmd_[^ ]* := //p' "$bld/kernel/livepatch/.$1.o.cmd" | sed -E '
		s/\\#/#/g
		s/;.*//
		s# [^ ]*rustc # '"$(dirname "$RUSTC")/rustdoc"' #
		s/ --(emit|remap-path-scope|remap-path-prefix)=[^ ]*//g
		s/ --crate-type [^ ]*//
		s# --out-dir [^ ]*# --out-dir '"$out"' --document-private-items -Dwarnings -Arustdoc::private_intra_doc_links#')
	(cd "$bld" && RUSTC_BOOTSTRAP=1 bash -c "$cmd")
}
for crate in livepatch_main ftrace_handler; do
	run_log "doc-$crate" "documenting $crate" document "$crate"
done
echo "$out/livepatch_main/index.html"
