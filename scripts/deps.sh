#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# deps.sh ARCH [bench]: makes sure that every tool is there. Installs what is missing
# when it may (root, or sudo without a password), else names the command.

. "$(dirname "$0")/lib.sh"
. "$REPO/scripts/toolchain.sh"

arch=${1:-x86_64}
check_arch "$arch"

# what proves that it is there | Debian package
needs=(
	"clang-$LLVM_VER|clang-$LLVM_VER" "ld.lld-$LLVM_VER|lld-$LLVM_VER" "llvm-nm-$LLVM_VER|llvm-$LLVM_VER"
	"/usr/lib/llvm-$LLVM_VER/lib/libclang.so|libclang-$LLVM_VER-dev"
	'gcc|gcc' '/usr/include/stdlib.h|libc6-dev' 'make|make' 'flex|flex' 'bison|bison' 'bc|bc'
	'/usr/include/libelf.h|libelf-dev' '/usr/include/openssl/opensslv.h|libssl-dev'
	'perl|perl' 'python3|python3' 'git|git' 'patch|patch' 'rsync|rsync' 'xz|xz-utils'
	'depmod|kmod' 'diff|diffutils' 'mmdebstrap|mmdebstrap' 'shellcheck|shellcheck'
)
case $arch in
x86_64) needs+=('qemu-system-x86_64|qemu-system-x86') ;;
arm64) needs+=('qemu-system-aarch64|qemu-system-arm' 'aarch64-linux-gnu-gcc|gcc-aarch64-linux-gnu'
	'/usr/aarch64-linux-gnu/include/stdlib.h|libc6-dev-arm64-cross') ;;
esac
# Of no use to anything else, and large.
[[ ${2:-} != bench ]] || needs+=('/usr/lib/python3/dist-packages/matplotlib/__init__.py|python3-matplotlib')

there() {
	case $1 in
	/*) [[ -e $1 ]] ;;
	*) command -v "$1" >/dev/null ;;
	esac
}

rust_ready() {
	local bin
	find_rustc || return 1
	bin=$(dirname "$RUSTC")
	[[ -x $bin/rustdoc && -x $bin/rustfmt && -x $bin/clippy-driver ]] && command -v cargo >/dev/null
}

packages=() want_rust='' want_bindgen=''
for need in "${needs[@]}"; do there "${need%|*}" || packages+=("${need#*|}"); done
rust_ready || want_rust=1
find_bindgen || want_bindgen=1
[[ ${#packages[@]} -gt 0 || $want_rust$want_bindgen ]] || exit 0

take_lock
say "missing here: ${packages[*]}${want_rust:+ rust (>= $MIN_RUSTC, with source)}${want_bindgen:+ bindgen (>= $MIN_BINDGEN)}"
root=()
if [[ $(id -u) != 0 ]]; then
	root=(sudo -n)
	sudo -n true 2>/dev/null || root=()
fi
may_install() { [[ $(id -u) == 0 || ${#root[@]} -gt 0 ]]; }

candidate() { apt-cache policy "$1" 2>/dev/null | awk '$1 == "Candidate:" && $2 != "(none)" {print $2}'; }
if may_install && [[ -z $(candidate "clang-$LLVM_VER") ]]; then
	run_log apt-update "apt-get update" "${root[@]}" apt-get update
fi

# Debian's stable release has a current Rust under the plain names, the one
# before it under those of the "-web" backport.
if [[ $want_rust ]]; then
	suffix=''
	for s in '' -web; do
		v=$(candidate "rustc$s")
		[[ -n $v ]] && version_ge "${v%%[+~-]*}" "$MIN_RUSTC" && suffix=$s && break
		suffix=none
	done
	case $suffix in
	'') packages+=(rustc rust-src rustfmt rust-clippy cargo) ;;
	-web) packages+=(rustc-web rust-web-src rustfmt-web rust-web-clippy cargo-web) ;;
	none) die "no rustc >= $MIN_RUSTC in this system's package lists (try apt-get update; Debian 12 or later is needed)" ;;
	esac
fi

# bindgen: the distribution's if new enough, else built once into the cache.
cargo=''
if [[ $want_bindgen ]]; then
	v=$(candidate bindgen)
	if [[ -n $v ]] && version_ge "${v%%[+~-]*}" "$MIN_BINDGEN"; then
		packages+=(bindgen)
		want_bindgen=''
	else
		[[ -e /etc/ssl/certs/ca-certificates.crt ]] || packages+=(ca-certificates)
		for c in "$(command -v cargo || true)" /usr/bin/cargo; do
			[[ ! -x $c ]] || version_ge "$("$c" --version 2>/dev/null | awk '{print $2}')" "$MIN_RUSTC" || continue
			[[ ! -x $c ]] || { cargo=$c; break; }
		done
		if [[ -z $cargo ]]; then
			v=$(candidate cargo)
			if [[ -n $v ]] && version_ge "${v%%[+~-]*}" "$MIN_RUSTC"; then packages+=(cargo); else packages+=(cargo-web); fi
			cargo=/usr/bin/cargo
		fi
	fi
fi

if [[ ${#packages[@]} -gt 0 ]]; then
	may_install || die "not root, and sudo wants a password. Install what is missing with: sudo apt-get install --no-install-recommends ${packages[*]}"
	# An installation that was interrupted keeps apt from any other.
	if compgen -G '/var/lib/dpkg/updates/[0-9]*' >/dev/null; then
		run_log dpkg-configure "completing an interrupted installation" "${root[@]}" \
			env DEBIAN_FRONTEND=noninteractive dpkg --configure -a
	fi
	run_log apt-install "installing: ${packages[*]}" "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
		apt-get install -y --no-install-recommends "${packages[@]}"
fi
if [[ $want_bindgen ]]; then
	CARGO_TARGET_DIR=$CACHE/cargo/target run_log bindgen "building bindgen $BINDGEN_CRATE with $cargo (Debian's here is too old)" \
		"$cargo" install bindgen-cli --version "$BINDGEN_CRATE" --locked --root "$CACHE/cargo"
	rm -rf "$CACHE/cargo/target"
fi

for need in "${needs[@]}"; do there "${need%|*}" || die "${need%|*} is still missing after installing ${need#*|}"; done
rust_ready || die "rustc >= $MIN_RUSTC with its source, rustfmt and clippy is still not complete"
find_bindgen || die "bindgen >= $MIN_BINDGEN is still missing"
