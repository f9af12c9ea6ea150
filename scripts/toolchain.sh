# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# Sourced after lib.sh: which compilers build the kernel, found by looking.
# shellcheck disable=SC2034 # the variables are for the scripts that source it

LLVM_VER=19
MIN_RUSTC=1.85.0
MIN_BINDGEN=0.71.1
# The version built where the distribution's is too old; known to work with 7.3.
BINDGEN_CRATE=0.73.2
# depmod and friends are not on every user's path.
PATH=$PATH:/usr/sbin:/sbin

# version_ge A B: A >= B.
version_ge() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }

# rust_src RUSTC: where the source of that compiler's standard library is.
rust_src() {
	local dir ver
	ver=$("$1" --version 2>/dev/null | awk '{print $2}') || return 1
	for dir in "$("$1" --print sysroot)/lib/rustlib/src/rust/library" "/usr/src/rustc-$ver/library"; do
		[[ ! -e $dir/core/src/lib.rs ]] || { echo "$dir"; return 0; }
	done
	return 1
}

# find_rustc: sets RUSTC and RUST_LIB_SRC to the first compiler that is new
# enough and has its library's source: a rustup toolchain often has none.
find_rustc() {
	local r ver
	for r in /usr/bin/rustc /usr/lib/rust-*/bin/rustc "$(command -v rustc || true)" "$HOME/.cargo/bin/rustc"; do
		[[ -x $r ]] || continue
		ver=$("$r" --version 2>/dev/null | awk '{print $2}') || continue
		version_ge "${ver%%-*}" "$MIN_RUSTC" || continue
		RUST_LIB_SRC=$(rust_src "$r") || continue
		RUSTC=$r
		return 0
	done
	return 1
}

find_bindgen() {
	local b ver
	for b in /usr/bin/bindgen "$(command -v bindgen || true)" "$CACHE/cargo/bin/bindgen"; do
		[[ -x $b ]] || continue
		ver=$("$b" --version 2>/dev/null | awk '{print $2}') || continue
		version_ge "$ver" "$MIN_BINDGEN" || continue
		BINDGEN=$b
		return 0
	done
	return 1
}

# use_toolchain: sets what kmake needs; scripts/deps.sh has made sure it is there.
use_toolchain() {
	find_rustc || die "no rustc >= $MIN_RUSTC with its library's source found: run scripts/deps.sh"
	find_bindgen || die "no bindgen >= $MIN_BINDGEN found: run scripts/deps.sh"
	local bin
	bin=$(dirname "$RUSTC")
	RUSTFMT=$bin/rustfmt
	export LIBCLANG_PATH=/usr/lib/llvm-$LLVM_VER/lib
	# The build's identity must not depend on who builds when: an unchanged
	# tree then gives an unchanged image.
	export KBUILD_BUILD_USER=klp KBUILD_BUILD_HOST=klp
	export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970'
	KMAKE_ARGS=(LLVM="-$LLVM_VER" RUSTC="$RUSTC" HOSTRUSTC="$RUSTC" RUSTDOC="$bin/rustdoc"
		RUSTFMT="$RUSTFMT" CLIPPY_DRIVER="$bin/clippy-driver" BINDGEN="$BINDGEN"
		RUST_LIB_SRC="$RUST_LIB_SRC")
	TOOLCHAIN_ID=$({ "clang-$LLVM_VER" --version; "$RUSTC" --version; "$BINDGEN" --version; } | sha256sum | cut -c1-16)
}

# kmake TREE BUILD ARCH ARGS...: the kernel's make.
kmake() {
	local tree=$1 build=$2 arch=$3
	shift 3
	make -C "$tree" O="$build" ARCH="$arch" "${KMAKE_ARGS[@]}" "$@"
}

# rust_build WHAT: sets arch, core and bld, from the environment, for what looks at the
# Rust that was built there.
rust_build() {
	arch=${ARCH:-x86_64} core=${CORE:-m}
	check_arch "$arch"
	check_core "$core"
	[[ $core != c ]] || die "CORE=c has no Rust to $1"
	"$REPO/scripts/deps.sh" "$arch"
	use_toolchain
	take_lock
	bld=$("$REPO/scripts/build.sh" "$arch" "$core" 0)
}
