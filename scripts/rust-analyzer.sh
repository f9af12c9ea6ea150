#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# rust-analyzer.sh: rust-project.json for editors, made by the kernel's target of that
# name on the grafted tree. Crates whose source is here are looked for here, so that
# an editor opened on this repository knows them; the kernel's crate is the tree's.

. "$(dirname "$0")/lib.sh"
. "$REPO/scripts/toolchain.sh"

rust_build analyze
tree=$("$REPO/scripts/tree.sh")/tree
run_log rust-analyzer "asking the kernel's rust-analyzer target" kmake "$tree" "$bld" "$arch" rust-analyzer
out=$REPO/rust-project.json
python3 - "$bld/rust-project.json" "$tree" "$REPO" >"$out.tmp" <<'END'
import json
import os
import sys

path, tree, repo = sys.argv[1:]
with open(path) as f:
    project = json.load(f)
for crate in project["crates"]:
    name = os.path.relpath(crate["root_module"], tree)
    here = os.path.join(repo, name)
    if not name.startswith("..") and os.path.exists(here):
        crate["root_module"] = here
        # What is next to it counts as the workspace's own.
        crate["is_workspace_member"] = True
json.dump(project, sys.stdout, indent=4)
END
mv "$out.tmp" "$out"
count=$(grep -c "\"root_module\": \"$REPO/" "$out" || true)
((count)) || die "no crate of $REPO is in $out"
say "$count crates of this repository"
echo "$out"
