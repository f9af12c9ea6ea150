#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# series.sh [--check] [--build [FROM[..TO]]]: this repository as patches on top
# of the pristine tree, as series.list says. Prints the directory they are in.
#
# --check runs checkpatch on each of them, get_maintainer's self-test of the new
# entries, and series.test.sh.
# --build builds each step from FROM to TO (numbers; all, if none is given) on x86_64:
# rust/, kernel/livepatch/ and samples/livepatch/, with the C core and, where it can be
# chosen, with the one in Rust as a module. A warning fails a step. A step whose sources
# have been built before, by the step before it or an earlier run, is not built again.

. "$(dirname "$0")/lib.sh"
. "$REPO/scripts/toolchain.sh"

check=0 build=0 from=1 to=''
while (($#)); do
	case $1 in
	--check) check=1 ;;
	--build)
		build=1
		if [[ ${2:-} =~ ^([0-9]+)(\.\.([0-9]+))?$ ]]; then
			from=$((10#${BASH_REMATCH[1]}))
			to=${BASH_REMATCH[3]:-$from}
			to=$((10#$to))
			shift
		fi
		;;
	*) die "series.sh: what is '$1'?" ;;
	esac
	shift
done

if ((build)); then
	"$REPO/scripts/deps.sh" x86_64
	use_toolchain
fi
take_lock
base=$("$REPO/scripts/tree.sh")
out=$CACHE/series
rm -rf "$out"
mkdir -p "$out"
count=$(PYTHONDONTWRITEBYTECODE=1 "$REPO/scripts/series.py" "$REPO" "$base" "$out")
say "$count patches"
mapfile -t patches < <(find "$out" -maxdepth 1 -name '*.patch' ! -name '0000-*' | sort)
[[ ${#patches[@]} == "$count" ]] || die "series.py made ${#patches[@]} patches, not $count"
git=(git -C "$out/git")
mapfile -t commits < <("${git[@]}" rev-list --reverse base..)

# FILE_PATH_CHANGES: series.py has seen to it that each new file has an entry.
# EXPORT_SYMBOL: what is exported here is defined in Rust or elsewhere.
# UNKNOWN_COMMIT_ID: the tree comes without its history.
check_patches() {
	local bad=0 top=$out/top
	# The tree, with the MAINTAINERS that the series makes.
	mkdir "$top"
	ln -s "$base"/tree/* "$top"
	ln -sf "$out/git/MAINTAINERS" "$top/MAINTAINERS"
	"${git[@]}" diff -U0 base HEAD -- MAINTAINERS | sed -n 's/^+\([A-Z][^:]*\)$/\1/p' >"$out/titles"
	# In the grafted tree: it knows the kernel's own type names.
	cd "$base/tree"
	perl scripts/checkpatch.pl --strict --quiet --no-summary --show-types \
		--ignore FILE_PATH_CHANGES,EXPORT_SYMBOL,UNKNOWN_COMMIT_ID "${patches[@]:from-1:to-from+1}" || bad=1
	cd "$top"
	if perl scripts/get_maintainer.pl --self-test=sections | grep -F -f "$out/titles"; then bad=1; fi
	rm -rf "$top" "$out/titles"
	return "$bad"
}

# The step's files, in a tree of their own, in which only what differs is touched.
srcs=$base/build/series/tree
checkout() {
	local commit=$1 file dir
	# Another tree may have come under the links.
	[[ -z ${KSRC:-} || -n ${fresh:-} ]] || rm -rf "$srcs"
	fresh=1
	if [[ ! -d $srcs ]]; then
		mkdir -p "${srcs%/*}"
		rm -rf "$srcs.tmp" "$srcs.files"
		cp -al "$base/pristine" "$srcs.tmp"
		# What seed() takes over was compiled of other versions of these.
		while read -r file; do
			[[ -e $srcs.tmp/$file ]] || continue
			cp "$base/pristine/$file" "$srcs.tmp/$file.klp-new"
			chmod --reference="$base/pristine/$file" "$srcs.tmp/$file.klp-new"
			mv "$srcs.tmp/$file.klp-new" "$srcs.tmp/$file"
		done <"$base/manifest"
		mv "$srcs.tmp" "$srcs"
	fi
	touch "$srcs.files"
	dir=$(mktemp -d "$base/build/series/step.XXXXXX")
	"${git[@]}" archive "$commit" | tar -x -C "$dir"
	# What an earlier step has had, and this one has not, is as in the pristine tree.
	while read -r file; do
		[[ ! -e $dir/$file && -e $base/pristine/$file ]] || continue
		mkdir -p "$dir/$(dirname "$file")"
		cp -p "$base/pristine/$file" "$dir/$file"
	done <"$srcs.files"
	(cd "$dir" && find . -type f -printf '%P\n' | sort) >"$srcs.want"
	comm -23 "$srcs.files" "$srcs.want" | while read -r file; do
		rm -f "$srcs/$file"
	done
	sort -u "$srcs.files" "$srcs.want" -o "$srcs.files"
	while read -r file; do
		! cmp -s "$dir/$file" "$srcs/$file" || continue
		mkdir -p "$srcs/$(dirname "$file")"
		# A new file: never through the link into the pristine tree.
		cp "$dir/$file" "$srcs/$file.klp-new"
		mv "$srcs/$file.klp-new" "$srcs/$file"
	done <"$srcs.want"
	mv "$srcs.want" "$srcs.files"
	rm -rf "$dir"
}

# seed CORE: starts from what "make build" has built of this very tree, if it has:
# the tools and the headers, and Rust up to the kernel crate. The saved command
# lines hold both paths.
seed() {
	local bld=$base/build/series/$1 built=$base/build/x86_64-m part
	[[ -e $built/klp/done && -z $(find "$base/tree" -type f ! -name ".checkpatch-*" -newer "$built/klp/done" -print -quit) ]] || return 0
	rm -rf "$bld.tmp"
	mkdir -p "$bld.tmp"
	for part in include scripts tools rust arch/x86 kernel/bounds.s kernel/time/timeconst.h \
		kernel/sched kernel/livepatch samples/livepatch .config; do
		[[ -e $built/$part ]] || continue
		mkdir -p "$bld.tmp/$(dirname "$part")"
		cp -a "$built/$part" "$bld.tmp/$part"
	done
	grep -rlZF --include='*.cmd' -e "$base/" "$bld.tmp" |
		xargs -0r sed -i "s|$built\([^-_[:alnum:]]\)|$bld\1|g; s|$base/tree\([^-_[:alnum:]]\)|$srcs\1|g"
	mv "$bld.tmp" "$bld"
}

# make_step CORE: called where errexit is off.
targets=(rust/ kernel/livepatch/ samples/livepatch/)
make_step() {
	local core=$1 bld=$base/build/series/$1 id want='# CONFIG_LIVEPATCH_RUST is not set'
	local fragments=("$REPO/scripts/config/"{base,x86_64,"core-$core",series}.config)
	[[ -d $bld ]] || seed "$core" || return 1
	mkdir -p "$bld"
	id=$({ cat "${fragments[@]}" "$srcs/kernel/livepatch/"*Kconfig* "$srcs/samples/Kconfig"; echo "$TOOLCHAIN_ID"; } | sha256sum)
	if [[ ! -e $bld/.klp-config || $(<"$bld/.klp-config") != "$id" ]]; then
		rm -f "$bld/.klp-config"
		kmake "$srcs" "$bld" x86_64 tinyconfig || return 1
		"$srcs/scripts/kconfig/merge_config.sh" -m -O "$bld" "$bld/.config" "${fragments[@]}" || return 1
		kmake "$srcs" "$bld" x86_64 olddefconfig || return 1
		grep -xF CONFIG_RUST=y "$bld/.config" || return 1
		[[ $core != m ]] || want=CONFIG_LIVEPATCH_RUST=m
		if grep -qs 'config LIVEPATCH_RUST' "$srcs/kernel/livepatch/"*Kconfig*; then
			grep -xF "$want" "$bld/.config" || return 1
		fi
		echo "$id" >"$bld/.klp-config"
	fi
	kmake "$srcs" "$bld" x86_64 -j"$JOBS" "${targets[@]}"
}

# What a step is built of, but for the rest of the tree: documents, tests and scripts
# are not built.
id_of() {
	local commit=$1 core=$2
	{
		cat "$REPO/scripts/config/"{base,x86_64,"core-$core",series}.config
		echo "${targets[*]} $TOOLCHAIN_ID $(stat -c %Y "$base/pristine") $(head -n 6 "$base/pristine/Makefile")"
		"${git[@]}" ls-tree -r "$commit" | grep -vE '\s(Documentation|tools|MAINTAINERS|scripts/livepatch|scripts/generate_)'
	} | sha256sum | cut -c1-32
}

# Called where errexit is on: a checkout that fails ends it all. Sets rc.
build_steps() {
	local i n name core cores log start took what id there
	local results=$out/build.txt built=$base/build/series/built
	: >"$results"
	mkdir -p "${built%/*}"
	touch "$built"
	for ((n = from; n <= to; n++)); do
		i=$((n - 1)) there=''
		name=$(basename "${patches[i]}" .patch)
		cores=(c)
		! "${git[@]}" grep -q 'config LIVEPATCH_RUST' "${commits[i]}" -- 'kernel/livepatch/*Kconfig*' || cores+=(m)
		for core in "${cores[@]}"; do
			id=$(id_of "${commits[i]}" "$core")
			if grep -qxF "$core $id" "$built"; then
				printf '%-6s %s %5d s  %4d compiled  %s\n' same "$core" 0 0 "$name" | tee -a "$results" >&2
				continue
			fi
			start=$(date +%s)
			[[ $there ]] || checkout "${commits[i]}"
			there=1
			log=$LOGS/series-$core-$name.log
			what=ok
			run_log "series-$core-$name" "[$n/$count] CORE=$core $name" make_step "$core" || what=FAILED
			if [[ $what == ok ]] && grep -E '(^|: )warning[:[]' "$log" >&2; then
				what=WARNS
				# Or the next run would not see it.
				rm -f "$base/build/series/$core"/{rust/kernel.o,kernel/livepatch/*.o}
			fi
			took=$(($(date +%s) - start))
			if [[ $what == ok ]]; then echo "$core $id" >>"$built"; else rc=1; fi
			printf '%-6s %s %5d s  %4d compiled  %s\n' "$what" "$core" "$took" \
				"$(grep -cE '^  (CC|RUSTC|BINDGEN|RUSTDOC|EXPORTS|AR|LD)( |$)' "$log" || true)" "$name" |
				tee -a "$results" >&2
			[[ $what != FAILED ]] || return 0
		done
	done
}

[[ -n $to ]] || to=$count
((from >= 1 && from <= to && to <= count)) || die "--build $from..$to: there are $count patches"
rc=0
if ((check)); then
	"$REPO/scripts/series.test.sh" "$base" >"$LOGS/series-test.log" 2>&1 || { cat "$LOGS/series-test.log" >&2; rc=1; }
	# In a subshell of its own: "if" would switch off errexit.
	set +e
	(set -e; check_patches) >"$LOGS/series-check.log" 2>&1
	bad=$?
	set -e
	if ((bad)); then
		rc=1
		cat "$LOGS/series-check.log" >&2
		say "checkpatch or get_maintainer complain"
	else
		say "checkpatch --strict: no complaint about patches $from to $to"
	fi
fi
if ((build)); then
	build_steps
fi
echo "$out"
exit "$rc"
