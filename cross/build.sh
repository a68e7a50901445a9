#!/usr/bin/env bash
# Builds affectd for a board on an x86-64 Debian or Ubuntu machine:
#
#     cross/build.sh [--install] [-- CARGO ARGUMENTS]
#
# For 64-bit systems: Raspberry Pi 3 and later, Jetson, RK3588. The binary is
# target/aarch64-unknown-linux-gnu/release/affectd. Says which packages are missing, and installs them only with --install.
set -euo pipefail

usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

install=no
while [ $# -gt 0 ]; do
    case $1 in
    --install) install=yes ;;
    --) shift && break ;;
    *) usage ;;
    esac
    shift
done

triple=aarch64-unknown-linux-gnu
debian=arm64
gnu=aarch64-linux-gnu

# A C compiler and the board's C library: tract's kernels are assembly, and rustc links through gcc. ALSA's library. And
# libclang: bindgen reads the kernel's video headers with it.
packages=("gcc-$gnu" "libc6-dev-$debian-cross" "libasound2-dev:$debian" pkg-config libclang-dev)

# rustup brings the standard library for any target. Without it, Debian's own rustc does: the rustc-web packages follow
# Rust's releases (for browsers), where plain rustc stays at the version its Debian release began with.
if rustup target list --installed 2>/dev/null | grep -qx "$triple"; then
    cargo=(cargo)
else
    cargo=(env RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc /usr/bin/cargo)
    packages+=(rustc-web cargo-web "libstd-rust-web-dev:$debian")
fi

missing=()
for package in "${packages[@]}"; do
    state=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
    [ "$state" = "install ok installed" ] || missing+=("$package")
done

if [ ${#missing[@]} -gt 0 ]; then
    sudo=sudo
    [ "$(id -u)" != 0 ] || sudo=
    if [ $install = no ]; then
        echo "missing: ${missing[*]}" >&2
        [ "${cargo[0]}" = cargo ] || echo "rustc-web is Debian's; with rustup, run instead: rustup target add $triple" >&2
        echo "to install the rest: $0 --install" >&2
        exit 1
    fi
    $sudo dpkg --add-architecture "$debian"
    $sudo apt-get update
    $sudo apt-get install -y --no-install-recommends "${missing[@]}"
fi

# Cargo wants the triple in two spellings: upper case for itself, as it is for the cc crate.
shell_triple=${triple//-/_}
export "CARGO_TARGET_${shell_triple^^}_LINKER=$gnu-gcc"
export "CC_$shell_triple=$gnu-gcc"
export "AR_$shell_triple=$gnu-ar"
# The board's libraries, not this machine's.
export "PKG_CONFIG_ALLOW_CROSS_$shell_triple=1"
export "PKG_CONFIG_LIBDIR_$shell_triple=/usr/lib/$gnu/pkgconfig:/usr/share/pkgconfig"
export "BINDGEN_EXTRA_CLANG_ARGS_$shell_triple=--target=$gnu -isystem /usr/$gnu/include"

cd "$(dirname "$0")/.."
"${cargo[@]}" build --release --locked --target "$triple" "$@"
