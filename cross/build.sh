#!/usr/bin/env bash
# Builds affectd for a board on an x86-64 Debian or Ubuntu machine:
#
#     cross/build.sh [aarch64|armv7] [--dist | --check] [--install] [-- CARGO-ARGUMENTS]
#
#     aarch64    for 64-bit systems: Raspberry Pi 3 and later, Jetson, RK3588 (the default)
#     armv7      for 32-bit Raspberry Pi OS on a Raspberry Pi 2 or later
#     --dist     builds the small binary of the package, which takes several minutes
#     --check    only checks that everything compiles, which is several times faster
#     --install  installs missing packages; without it, the script only lists them
#
# The binary is target/TRIPLE/release/affectd, or target/TRIPLE/dist/affectd with --dist. It runs with glibc 2.31
# (Debian 11, JetPack 5) or newer.
set -euo pipefail

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }

board=aarch64
profile=release
install=no
command=build
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit ;;
    aarch64 | armv7) board=$1 ;;
    --dist) profile=dist ;;
    --check) command=check ;;
    --install) install=yes ;;
    --) shift && break ;;
    *)
        echo "$0: unknown argument: $1" >&2
        usage >&2
        exit 2
        ;;
    esac
    shift
done
cd "$(dirname "$0")/.."
# shellcheck source=cross/debian-packages.sh
. cross/debian-packages.sh

case $board in
aarch64) triple=aarch64-unknown-linux-gnu debian=arm64 gnu=aarch64-linux-gnu ;;
armv7) triple=armv7-unknown-linux-gnueabihf debian=armhf gnu=arm-linux-gnueabihf ;;
esac

# The C compiler assembles tract's kernels and links the program. bindgen reads the kernel's video headers with libclang.
packages=("gcc-$gnu" "libc6-dev-$debian-cross" pkg-config libclang-dev debian-archive-keyring)

# rustup brings the standard library for any target. Without rustup, Debian's rustc-web packages do: they follow Rust's
# releases, while Debian's rustc keeps the version that its Debian release started with.
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

mapfile -t missing < <(missing_packages "${packages[@]}")
if [ ${#missing[@]} -gt 0 ] && [ $install = no ]; then
    echo "$0: packages are missing: ${missing[*]}" >&2
    [ $foreign = no ] || echo "With rustup, rustc-web and its library are not needed: rustup target add $triple" >&2
    echo "To install the others: $0 $board --install" >&2
    exit 1
fi
if [ ${#missing[@]} -gt 0 ]; then
    [ $foreign = no ] || as_root dpkg --add-architecture "$debian"
    install_packages "the cross build" "${missing[@]}"
fi

newest=2.31
sysroot=$PWD/target/sysroot/$debian
cross/sysroot.sh "$debian" "$sysroot"
# A compiler that uses the sysroot. gcc searches its own folders first unless -B and -L name others. This is a script because
# flags for rustc would rebuild every dependency. rustc recognizes the kind of linker by the script's name.
gcc=$sysroot/$gnu-gcc
cat >"$gcc" <<GCC
#!/bin/sh
exec $gnu-gcc --sysroot=$sysroot -B$sysroot/usr/lib/$gnu -L$sysroot/usr/lib/$gnu -L$sysroot/lib/$gnu "\$@"
GCC
chmod +x "$gcc"

# Cargo reads the triple in upper case, the cc crate in lower case.
shell_triple=${triple//-/_}
export "CARGO_TARGET_${shell_triple^^}_LINKER=$gcc"
export "CC_$shell_triple=$gcc"
export "AR_$shell_triple=$gnu-ar"
# These find the board's libraries and headers instead of the host's.
export "PKG_CONFIG_ALLOW_CROSS_$shell_triple=1"
export "PKG_CONFIG_SYSROOT_DIR_$shell_triple=$sysroot"
export "PKG_CONFIG_LIBDIR_$shell_triple=$sysroot/usr/lib/$gnu/pkgconfig:$sysroot/usr/share/pkgconfig"
export "BINDGEN_EXTRA_CLANG_ARGS_$shell_triple=--target=$gnu --sysroot=$sysroot"

[ $profile = release ] || hide_build_folders
"${cargo[@]}" $command --profile "$profile" --locked --target "$triple" "$@"
[ $command = build ] || exit 0

binary=target/$triple/$profile/affectd
needs=$("$gnu-objdump" -T "$binary" | grep -o 'GLIBC_[0-9.]*' | cut -d_ -f2 | sort -V | tail -n 1)
if [ "$(printf '%s\n' "$needs" $newest | sort -V | tail -n 1)" != $newest ]; then
    echo "$0: $binary needs glibc $needs, but boards have $newest; these symbols need it:" >&2
    "$gnu-objdump" -T "$binary" | grep -F "GLIBC_$needs" >&2
    exit 1
fi
echo "$binary: needs glibc $needs or newer"
