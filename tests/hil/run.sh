#!/usr/bin/env bash
# Runs affectd on a real kernel with virtual cameras, a sound card and serial ports, in QEMU:
#
#     tests/hil/run.sh [amd64|arm64] [SCENARIO…]
#
#     amd64, arm64  the guest's architecture; the host's is the default
#     SCENARIO…     names from tests/hil/guest/names.sh, or `all`; without a name, all short scenarios run
#
# It boots Debian's kernel without KVM. v4l2loopback and vivid are the cameras, snd-aloop is the microphone. tests/hil/webcam.c
# is a USB webcam with a microphone, which the kernel's drivers for real ones use. The bytes of a UART
# and of a USB serial port go to files on the host. It exits with 0 if every scenario passes. It needs Debian, and installs
# missing packages as root. $HIL_CACHE keeps downloads and results; the default is ~/.cache/affectd-hil. $AFFECTD names the
# program; the default is the result of `cargo build --release` or cross/build.sh. $HIL_TIMEOUT is the limit in seconds; the
# default is 1800.
set -euo pipefail

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }

case ${1:-} in
-h | --help) usage && exit ;;
amd64 | arm64) arch=$1 && shift ;;
*) arch= ;;
esac
# shellcheck source=tests/hil/guest/names.sh
. "$(dirname "$0")/guest/names.sh"
for scenario; do
    if ! grep -qwFe "$scenario" <<<"all $short $long"; then
        echo "$0: no such scenario: $scenario" >&2
        usage >&2
        exit 2
    fi
done
arch=${arch:-$(dpkg --print-architecture)}
# shellcheck source=tests/hil/devices.sh
. "$(dirname "$0")/devices.sh"

case $arch in
amd64) binary=$root/target/release/affectd ;;
arm64) binary=$root/target/aarch64-unknown-linux-gnu/release/affectd ;;
esac
affectd=${AFFECTD:-$binary}
[ -x "$affectd" ] || { echo "$0: $affectd: no such program: build it with cargo build --release or cross/build.sh" >&2; exit 1; }

step "initramfs"
image=$cache/image
rm -rf "$image" && mkdir -p "$image"/{bin,dev,proc,sys,tmp,etc,lib,root,hil}
cp "$tree/bin/busybox" "$image/bin/"
libraries="libasound.so.2 libgcc_s.so.1 libm.so.6 libc.so.6 libdl.so.2 libpthread.so.0 librt.so.1"
mkdir -p "$image/lib/$gnu"
for library in $libraries; do
    found=$(find "$tree" -path "*/lib/$gnu/$library" -print -quit)
    [ -z "$found" ] || cp -L "$found" "$image/lib/$gnu/"
done
loader=$(find "$tree" -maxdepth 4 -name 'ld-linux-*' -print -quit)
case $arch in
amd64) mkdir -p "$image/lib64" && cp -L "$loader" "$image/lib64/ld-linux-x86-64.so.2" ;;
arm64) cp -L "$loader" "$image/lib/ld-linux-aarch64.so.1" ;;
esac
mkdir -p "$image/usr/share" && cp -r "$tree/usr/share/alsa" "$image/usr/share/"
modules=$image/lib/modules/$version
mkdir -p "$modules"
depmod -b "$tree" "$version"
for name in virtio_pci virtio_blk videodev vivid snd-aloop xhci-pci ftdi_sio vhci-hcd uvcvideo snd-usb-audio; do
    modprobe -d "$tree" -S "$version" --show-depends "$name" | awk '$1 == "insmod" { print $2 }'
done | awk '!seen[$0]++' | while read -r file; do
    name=$(basename "${file%.xz}")
    case $file in
    *.xz) xz -dc "$file" >"$modules/$name" ;;
    *) cp "$file" "$modules/" ;;
    esac
    echo "$name"
done >"$modules/order"
cp "$module" "$modules/v4l2loopback.ko"
cp "$affectd" "$image/hil/affectd" && "$gnu-strip" "$image/hil/affectd"
cp "$cache/feed" "$cache/ask" "$cache/webcam" "$cache"/face.* "$cache"/sync.* "$image/hil/"
cp "$here"/guest/*.sh "$image/hil/"
cp "$here/guest/init" "$image/init" && chmod 755 "$image/init"
echo "${*:-}" >"$image/hil/wanted"
(cd "$image" && find . | cpio -o -H newc --quiet | gzip -1) >"$cache/initramfs"

step "guest"
case $arch in
amd64) machine=(-M q35 -cpu max) console=ttyS0 ;;
arm64) machine=(-M "virt,gic-version=3" -cpu cortex-a72) console=ttyAMA0 ;;
esac
rm -f "$cache/console" "$cache/uart" "$cache/ftdi" "$cache"/out/*
touch "$cache/console"
truncate -s 256M "$cache/disk"
# The guest writes commands for QEMU's monitor to its console, for example to pull the USB cable.
monitor() { tail -f --pid=$$ "$cache/console" 2>/dev/null | sed -un 's/\r//; s/^HIL QEMU //p'; }
# The guest's clock counts executed instructions, 2 ns each, and jumps ahead while the guest waits. Its measurements do not
# depend on the load of the host.
timeout "${HIL_TIMEOUT:-1800}" "$qemu" "${machine[@]}" -accel tcg -icount shift=1,sleep=off -rtc clock=vm -m 1024 -display none -monitor stdio \
    -no-reboot -nic none -audiodev none,id=none -kernel "$tree/boot/vmlinuz-$version" -initrd "$cache/initramfs" \
    -append "console=$console quiet loglevel=4 panic=-1 mitigations=off" \
    -drive "file=$cache/disk,format=raw,if=none,id=disk,cache=unsafe" -device virtio-blk-pci,drive=disk \
    -serial "file:$cache/console" "${uart[@]}" \
    -device qemu-xhci -chardev "file,id=ftdi,path=$cache/ftdi" -device usb-serial,chardev=ftdi,id=cable \
    < <(monitor) >"$cache/monitor.txt" || echo "qemu ended with $?"
tr -d '\r' <"$cache/console" >"$cache/console.txt"
grep -aE '^(HIL|    )' "$cache/console.txt" || true
# Copies the files that the guest passed on the disk.
sed -n 's/^HIL FILE \(.*\)/\1/p' "$cache/console.txt" | while read -r name sector bytes; do
    dd if="$cache/disk" bs=512 skip="$sector" status=none | head -c "$bytes" >"$cache/out/$name"
done || true
judged=pass
for clip in "$cache"/out/audio_video_sync*.mkv; do
    [ -e "$clip" ] || continue
    step "flash and beep in $(basename "$clip")"
    "$here/audio_video_sync.sh" "$clip" || judged=fail
done

given=$(sed -n 's/^HIL SERIAL //p' "$cache/console.txt")
if [ -n "$given" ]; then
    step "the bytes of the UART and the USB port"
    "$here/serial_lines.py" "$given" "$cache/uart" "$cache/ftdi" || judged=fail
fi

step "recovery"
awk '$2 == "START" { name = $3 } $2 == "RECOVERED" { printf "%-24s %-14s %4.1f s\n", name, $3, $4 }' "$cache/console.txt"

step "verdict"
grep -aqx 'HIL VERDICT pass' "$cache/console.txt" || { echo "failed: the guest's console is in $cache/console.txt" >&2; exit 1; }
[ $judged = pass ] || { echo "failed: the data that reached the host is wrong, see above" >&2; exit 1; }
echo pass
