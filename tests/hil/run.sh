#!/usr/bin/env bash
# The hardware-in-the-loop bench: affectd on a real kernel with a virtual camera, sound card and serial port.
#
#     tests/hil/run.sh [amd64|arm64] [SCENARIO…]
#
# Boots Debian's kernel under QEMU without KVM, with v4l2loopback and vivid as cameras, snd-aloop as microphone, and a UART and
# a USB serial port whose bytes end up in files here; runs the
# scenarios of guest/scenarios.sh (all short ones if none is named, `all` for the long ones, too) and ends with 0 only if
# the guest says that every one passed. Needs Debian or Ubuntu, and for what is missing root (apt). Downloads are kept in
# $HIL_CACHE (default ~/.cache/affectd-hil). The binary is $AFFECTD, or what `cargo build --release` or cross/build.sh made.
set -euo pipefail

case ${1:-} in
amd64 | arm64) arch=$1 && shift ;;
*) arch=$(dpkg --print-architecture) ;;
esac
# shellcheck source=tests/hil/devices.sh
. "$(dirname "$0")/devices.sh"

case $arch in
amd64) binary=$root/target/release/affectd ;;
arm64) binary=$root/target/aarch64-unknown-linux-gnu/release/affectd ;;
esac
affectd=${AFFECTD:-$binary}
[ -x "$affectd" ] || { echo "$affectd: build it first (cargo build --release, or cross/build.sh)" >&2; exit 1; }

step "initramfs"
image=$cache/image
rm -rf "$image" && mkdir -p "$image"/{bin,dev,proc,sys,tmp,etc,lib,root,hil/models}
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
for name in virtio_pci virtio_blk videodev vivid snd-aloop xhci-pci ftdi_sio; do
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
cp "$cache/feed" "$cache/ask" "$cache"/face.* "$cache"/sync.* "$image/hil/"
cp "$root"/models/manifest.json "$root"/models/*.onnx "$root"/models/README.md "$image/hil/models/"
cp "$here"/guest/*.sh "$image/hil/"
cp "$here/guest/init" "$image/init" && chmod 755 "$image/init"
echo "${*:-}" >"$image/hil/wanted"
(cd "$image" && find . | cpio -o -H newc --quiet | gzip -1) >"$cache/initramfs"

step "guest"
case $arch in
amd64) machine=(-M q35 -cpu max) console=ttyS0 ;;
arm64) machine=(-M virt,gic-version=3 -cpu cortex-a72) console=ttyAMA0 ;;
esac
rm -f "$cache/console" "$cache/uart" "$cache/ftdi" "$cache"/out/*
touch "$cache/console"
truncate -s 256M "$cache/disk"
# The guest pulls cables through QEMU's monitor: it says what it wants on its console.
monitor() { tail -f --pid=$$ "$cache/console" 2>/dev/null | sed -un 's/\r//; s/^HIL QEMU //p'; }
# Time in the guest goes by the instructions it executes, 2 ns each, and jumps ahead while it waits: what it measures does not
# depend on how busy this machine is, only how long we wait for it does.
timeout "${HIL_TIMEOUT:-1800}" "$qemu" "${machine[@]}" -accel tcg -icount shift=1,sleep=off -rtc clock=vm -m 1024 -display none -monitor stdio \
    -no-reboot -nic none -audiodev none,id=none -kernel "$tree/boot/vmlinuz-$version" -initrd "$cache/initramfs" \
    -append "console=$console quiet loglevel=4 panic=-1 mitigations=off" \
    -drive "file=$cache/disk,format=raw,if=none,id=disk,cache=unsafe" -device virtio-blk-pci,drive=disk \
    -serial "file:$cache/console" "${uart[@]}" \
    -device qemu-xhci -chardev "file,id=ftdi,path=$cache/ftdi" -device usb-serial,chardev=ftdi,id=cable \
    < <(monitor) >"$cache/monitor.txt" || echo "qemu ended with $?"
tr -d '\r' <"$cache/console" >"$cache/console.txt"
grep -aE '^(HIL|    )' "$cache/console.txt" || true
# What the guest wrote to the disk for us to judge.
sed -n 's/^HIL FILE \(.*\)/\1/p' "$cache/console.txt" | while read -r name sector bytes; do
    dd if="$cache/disk" bs=512 skip="$sector" status=none | head -c "$bytes" >"$cache/out/$name"
done || true
judged=pass
for clip in "$cache"/out/in_step*.mkv; do
    [ -e "$clip" ] || continue
    step "flash and beep in $(basename "$clip")"
    "$here/in_step.sh" "$clip" || judged=fail
done

given=$(sed -n 's/^HIL SERIAL //p' "$cache/console.txt")
if [ -n "$given" ]; then
    step "what came over the UART and the USB port"
    "$here/serial_lines.py" "$given" "$cache/uart" "$cache/ftdi" || judged=fail
fi

step "recovery"
awk '$2 == "START" { name = $3 } $2 == "RECOVERED" { printf "%-24s %-14s %4.1f s\n", name, $3, $4 }' "$cache/console.txt"

step "verdict"
grep -aqx 'HIL VERDICT pass' "$cache/console.txt" || { echo "not passed; the guest's console is $cache/console.txt" >&2; exit 1; }
[ $judged = pass ] || { echo "not passed: what reached this machine is wrong, see above" >&2; exit 1; }
echo pass
