# Prepares the bench's virtual devices. run.sh and boot.sh source it with $arch set to amd64 or arm64. It installs the host's
# packages, unpacks Debian's kernel and libraries for the guest, builds the camera's kernel module and the programs feed, ask and webcam,
# and makes what the camera and the microphone play.
#
# Files go to $cache; the guest's packages are unpacked in $tree. It sets $here, $root, $gnu, $qemu, $uart, $port, $version and
# $module.
# shellcheck shell=bash disable=SC2154,SC2034  # Those scripts set arch and use the other variables.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=cross/debian-packages.sh
. "$root/cross/debian-packages.sh"
cache=${HIL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/affectd-hil}/$arch
mkdir -p "$cache/debs" "$cache/out"
host=$(dpkg --print-architecture)

case $arch in
amd64) gnu=x86_64-linux-gnu qemu=qemu-system-x86_64 qemu_package=qemu-system-x86 ;;
arm64) gnu=aarch64-linux-gnu qemu=qemu-system-aarch64 qemu_package=qemu-system-arm ;;
esac

step() { printf '\n== %s (%s s)\n' "$*" "$SECONDS"; }

# Debian keeps /usr/sbin out of a user's PATH; depmod and modprobe are there.
PATH=$PATH:/usr/sbin:/sbin

step "host packages"
missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); } # COMMAND PACKAGE
need "$qemu" "$qemu_package"
need cpio cpio
need depmod kmod
need fdtput device-tree-compiler
need ffmpeg ffmpeg
need make make
need mcopy mtools
need python3 python3
need ssh openssh-client
need unmkinitramfs initramfs-tools-core
need xz xz-utils
need zstdcat zstd
# The ROM of QEMU's network card, and ALSA for the program feed.
packages=(ipxe-qemu "libasound2-dev:$arch")
if [ "$arch" = "$host" ]; then
    need "$gnu-gcc" gcc
    packages+=(libc6-dev)
else
    need "$gnu-gcc" "gcc-$gnu"
    packages+=("libc6-dev-$arch-cross")
    dpkg --print-foreign-architectures | grep -qx "$arch" || as_root dpkg --add-architecture "$arch"
fi
mapfile -t -O ${#missing[@]} missing < <(missing_packages "${packages[@]}")
if [ ${#missing[@]} -gt 0 ]; then
    install_packages "the bench" "${missing[@]}"
elif ! apt-cache show "linux-image-$arch:$arch" >/dev/null 2>&1; then
    echo "updating apt's package lists, to find the guest's kernel" >&2
    as_root apt-get update -qq
fi

# QEMU's arguments for a second UART, whose bytes go to $cache/uart, and its name in the guest. Before QEMU 9.1, the ARM machine
# has only one PL011, which is the console. The second UART is then on the PCI bus.
uart=(-serial "file:$cache/uart")
port=ttyAMA1
[ "$arch" = arm64 ] || port=ttyS1
release=$("$qemu" --version | sed -n '1s/.*version \([0-9]*\)\.\([0-9]*\).*/\1 * 100 + \2/p')
if [ "$arch" = arm64 ] && [ $((release)) -lt 901 ]; then
    uart=(-chardev "file,id=uart,path=$cache/uart" -device "pci-serial,chardev=uart")
    port=ttyS0
fi

step "guest packages"
version=$(apt-cache depends "linux-image-$arch:$arch" | sed -n 's/.*Depends: linux-image-\([0-9][^:]*\).*/\1/p' | head -n 1)
[ -n "$version" ] || { echo "$0: apt knows no package linux-image-$arch: run this on Debian" >&2; exit 1; }
# The names of these packages differ between Debian releases. linux-kbuild has programs for the host.
headers_need() { apt-cache depends "linux-headers-$version:$arch" | grep -o "$1" | awk 'NR == 1'; }
kbuild=$(headers_need 'linux-kbuild-[^:>]*')
common=$(headers_need 'linux-headers-[^:>]*-common')
alsa=libasound2t64
apt-cache show "$alsa:$arch" >/dev/null 2>&1 || alsa=libasound2
# The kernel and its headers, the module's source, and the libraries of the guest's programs.
packages=("linux-image-$version:$arch" "linux-headers-$version:$arch" "$common" "$kbuild" v4l2loopback-dkms
    "busybox-static:$arch" "libc6:$arch" "libgcc-s1:$arch" "$alsa:$arch" libasound2-data)
stamp=$(printf '%s\n' "${packages[@]}" | sha256sum | cut -c1-16)
tree=$cache/tree-$stamp
if [ ! -e "$tree/.done" ]; then
    (cd "$cache/debs" && rm -f ./*.deb && apt-get download -q "${packages[@]}")
    rm -rf "$tree" && mkdir -p "$tree"
    for deb in "$cache"/debs/*.deb; do dpkg-deb -x "$deb" "$tree"; done
    # Debian 13's packages have no files in these folders, Debian 12's have.
    for folder in bin lib lib64; do
        [ -e "$tree/$folder" ] || [ ! -e "$tree/usr/$folder" ] || ln -s "usr/$folder" "$tree/$folder"
    done
    touch "$tree/.done"
fi

step "v4l2loopback, feed, ask and webcam"
module=$cache/v4l2loopback-$stamp.ko
if [ ! -e "$module" ]; then
    headers=$tree/usr/src/linux-headers-$version
    sed -i "s#^include /usr/src#include $tree/usr/src#" "$headers/Makefile"
    ln -sfn "$tree/usr/lib/$kbuild/scripts" "$tree/usr/src/$common/scripts" 2>/dev/null || true
    source=$(echo "$tree"/usr/src/v4l2loopback-*)
    # The module has no types for BPF, which Debian 13's headers ask for and only the program pahole can make.
    flags=(CONFIG_DEBUG_INFO_BTF_MODULES=)
    [ "$arch" = "$host" ] || flags+=(ARCH=arm64 "CROSS_COMPILE=$gnu-")
    make -s -C "$headers" M="$source" "${flags[@]}" modules >"$cache/module.log" 2>&1 || { cat "$cache/module.log" >&2; exit 1; }
    "$gnu-strip" -g -o "$module" "$source/v4l2loopback.ko"
fi
"$gnu-gcc" -O2 -Wall -o "$cache/feed" "$here/feed.c" -lasound -lpthread
"$gnu-gcc" -O2 -Wall -o "$cache/ask" "$here/ask.c"
"$gnu-gcc" -O2 -Wall -o "$cache/webcam" "$here/webcam.c"

step "the camera's video and the microphone's audio"
if [ ! -e "$cache/face.s16" ]; then
    ffmpeg -v error -y -t 3 -i "$root/models/demo.mkv" -an -c:v copy -f mjpeg "$cache/face.mjpg"
    ffmpeg -v error -y -t 3 -i "$root/models/demo.mkv" -vn -ac 1 -ar 48000 -f s16le "$cache/face.s16"
fi
# A flash and a beep at the same instant, every two seconds.
if [ ! -e "$cache/sync.mjpg" ]; then
    ffmpeg -v error -y -f lavfi -i "color=black:s=160x120:r=25:d=2" -vf "drawbox=enable='between(t,1,1.07)':color=white:t=fill" \
        -pix_fmt gray -f rawvideo "$cache/sync.grey"
    ffmpeg -v error -y -f rawvideo -pix_fmt gray -s 160x120 -r 25 -i "$cache/sync.grey" -vf scale=640:480 -pix_fmt yuvj420p \
        -c:v mjpeg -f mjpeg "$cache/sync.mjpg"
    ffmpeg -v error -y -f lavfi -i "aevalsrc='between(t,1,1.08)*0.5*sin(2*PI*1000*t)':s=48000:d=2" -f s16le "$cache/sync.s16"
fi
