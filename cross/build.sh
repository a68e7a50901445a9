#!/usr/bin/env bash
# Builds affectd for a board on an x86-64 Debian or Ubuntu machine:
#
#     cross/build.sh [aarch64|armv7] [--dist] [--install] [-- CARGO ARGUMENTS]
#
# aarch64 is for 64-bit systems: Raspberry Pi 3 and later, Jetson, RK3588; armv7 for 32-bit Raspberry Pi OS on a Pi 2 or
# later. The binary, target/TRIPLE/release/affectd, runs with glibc 2.31 (Debian 11, JetPack 5) and newer. --dist makes the
# small one of the package instead, target/TRIPLE/dist/affectd, which takes minutes. Says which of this machine's packages
# are missing, and installs them only with --install.
set -euo pipefail

usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

board=aarch64
profile=release
install=no
while [ $# -gt 0 ]; do
    case $1 in
    aarch64 | armv7) board=$1 ;;
    --dist) profile=dist ;;
    --install) install=yes ;;
    --) shift && break ;;
    *) usage ;;
    esac
    shift
done
cd "$(dirname "$0")/.."

case $board in
aarch64) triple=aarch64-unknown-linux-gnu debian=arm64 gnu=aarch64-linux-gnu ;;
armv7) triple=armv7-unknown-linux-gnueabihf debian=armhf gnu=arm-linux-gnueabihf ;;
esac

# A C compiler for the board: tract's kernels are assembly, and rustc links through gcc. And libclang: bindgen reads the
# kernel's video headers with it.
packages=("gcc-$gnu" "libc6-dev-$debian-cross" pkg-config libclang-dev debian-archive-keyring)

# rustup brings the standard library for any target. Without it, Debian's own rustc does: the rustc-web packages follow
# Rust's releases (for browsers), where plain rustc stays at the version its Debian release began with.
foreign=no
if rustup target list --installed 2>/dev/null | grep -qx "$triple"; then
    cargo=(cargo)
else
    cargo=(env RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc /usr/bin/cargo)
    packages+=(rustc-web cargo-web)
    if [ ! -d "$(/usr/bin/rustc --print target-libdir --target "$triple" 2>/dev/null)" ]; then
        packages+=("libstd-rust-web-dev:$debian")
        foreign=yes
    fi
fi

missing=()
for package in "${packages[@]}"; do
    state=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
    [ "$state" = "install ok installed" ] || missing+=("$package")
done

if [ ${#missing[@]} -gt 0 ]; then
    if [ $install = no ]; then
        echo "missing: ${missing[*]}" >&2
        [ $foreign = no ] || echo "rustc-web is Debian's; with rustup, run instead: rustup target add $triple" >&2
        echo "to install the rest: $0 $board --install" >&2
        exit 1
    fi
    sudo=sudo
    [ "$(id -u)" != 0 ] || sudo=
    [ $foreign = no ] || $sudo dpkg --add-architecture "$debian"
    $sudo apt-get update
    $sudo apt-get install -y --no-install-recommends "${missing[@]}"
fi

newest=2.31
sysroot=$PWD/target/sysroot/$debian
cross/sysroot.sh "$debian" "$sysroot"
# Compiles and links in the sysroot; gcc looks into its own folders first, but for what is named here. A script, and not flags for
# rustc: those would build everything anew. (By its name rustc knows whose arguments it takes.)
gcc=$sysroot/$gnu-gcc
cat >"$gcc" <<GCC
#!/bin/sh
exec $gnu-gcc --sysroot=$sysroot -B$sysroot/usr/lib/$gnu -L$sysroot/usr/lib/$gnu -L$sysroot/lib/$gnu "\$@"
GCC
chmod +x "$gcc"

# Cargo wants the triple in two spellings: upper case for itself, as it is for the cc crate.
shell_triple=${triple//-/_}
export "CARGO_TARGET_${shell_triple^^}_LINKER=$gcc"
export "CC_$shell_triple=$gcc"
export "AR_$shell_triple=$gnu-ar"
# The board's libraries and headers, not this machine's.
export "PKG_CONFIG_ALLOW_CROSS_$shell_triple=1"
export "PKG_CONFIG_SYSROOT_DIR_$shell_triple=$sysroot"
export "PKG_CONFIG_LIBDIR_$shell_triple=$sysroot/usr/lib/$gnu/pkgconfig:$sysroot/usr/share/pkgconfig"
export "BINDGEN_EXTRA_CLANG_ARGS_$shell_triple=--target=$gnu --sysroot=$sysroot"

"${cargo[@]}" build --profile "$profile" --locked --target "$triple" "$@"

binary=target/$triple/$profile/affectd
needs=$("$gnu-objdump" -T "$binary" | grep -o 'GLIBC_[0-9.]*' | cut -d_ -f2 | sort -V | tail -n 1)
if [ "$(printf '%s\n' "$needs" $newest | sort -V | tail -n 1)" != $newest ]; then
    echo "$binary needs glibc $needs; boards have $newest:" >&2
    "$gnu-objdump" -T "$binary" | grep -F "GLIBC_$needs" >&2
    exit 1
fi
echo "$binary: needs glibc $needs or newer"
