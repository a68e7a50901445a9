#!/usr/bin/env bash
# Boots the SD-card image of cross/image.sh on QEMU's arm64 machine and checks the system:
#
#     tests/hil/boot.sh IMAGE [up | absent | pi3 | update | cuts [NUMBER]]…
#
#     up      boots and reads estimates from the UART; then kills affectd, hangs its face thread, and looks for writes to the
#             card for 60 s (or $HIL_QUIET seconds)
#     absent  boots without a camera, without a host name and with the clock at 1970, then plugs the camera in
#     pi3     boots the image without any settings on QEMU's Raspberry Pi 3 and reads estimates from GPIO 14
#     update  sends an update whose signature is wrong, which the board must refuse; then updates the other slot by SSH, cuts the
#             power during the trial, and expects the old slot; then updates again, and expects the new slot to stay
#     cuts    cuts the power at NUMBER random moments (the default is 20); the card must not change, and must boot (long)
#
# Without a check, `up` and `absent` run. It needs Debian, and installs missing packages as root.
#
# The script does the work of the board's firmware: it reads config.txt on the boot partition and starts the kernel that it
# names. It adds nothing to the image except settings. The USB webcam with its microphone is in memory beside the initramfs.
# As in run.sh, the guest's clock counts instructions, but while the guest waits, it follows the host's clock; otherwise it would
# jump ahead whenever the card needs a moment.
#
# $AFFECTD_FAULTS names a program built with the feature `faults`, for the hung thread; the image's program cannot be made to
# hang. $HIL_TIMEOUT is the limit of one boot in seconds; the default is 1500. $HIL_CUT_SECONDS is the latest power cut, in seconds
# after the start; the default is 90. $HIL_TRIAL_SECONDS is the time of the power cut during the trial; the default is 60.
set -euo pipefail

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }
usage_error() {
    echo "$0: $1" >&2
    usage >&2
    exit 2
}

case ${1:-} in
-h | --help) usage && exit ;;
'') usage_error "the image is missing" ;;
esac
[ -f "$1" ] || usage_error "$1: no such file"
image=$1 && shift
[ $# -gt 0 ] || set -- up absent
previous=
for check; do
    case $check in
    up | absent | pi3 | update | cuts) ;;
    [0-9]*) [ "$previous" = cuts ] || usage_error "no such check: $check" ;;
    *) usage_error "no such check: $check" ;;
    esac
    previous=$check
done
arch=arm64
# shellcheck source=tests/hil/devices.sh
. "$(dirname "$0")/devices.sh"
work=$cache/boot
mkdir -p "$work"
machine=virt,gic-version=3
card=$work/card.img
fat=$card@@1M

fail() { echo "failed: $*; the guest's console is in $work/console.txt" >&2; exit 1; }

# Makes a card with settings that a user would write with an editor.
write_card() {
    cp --sparse=always "$image" "$card"
    cat >"$work/affectd.toml" <<TOML
# The bench wrote this file.
output = ["serial:/dev/$port?baud=115200&wire=json", "file:/run/affectd/estimates.jsonl?max_mb=1&keep=1"]
[camera]
rate_hz = 10
[face]
rate_hz = 5
TOML
    echo bench-board >"$work/hostname"
    echo Europe/Vienna >"$work/timezone"
    MTOOLS_SKIP_CHECK=1 mcopy -o -i "$fat" "$work/affectd.toml" "$work/hostname" "$work/timezone" ::
}

# Packs the webcam and the checks into a second initramfs archive.
write_bench() {
    local rest=$work/rest
    rm -rf "$rest" && mkdir -p "$rest/bench" "$rest/scripts/init-bottom"
    cp "$cache/webcam" "$cache"/face.* "$here"/boot/* "$here/guest/messages.sh" "$rest/bench/"
    [ -z "${AFFECTD_FAULTS:-}" ] || "$gnu-strip" -o "$rest/bench/affectd-faults" "$AFFECTD_FAULTS"
    mcopy -o -i "$fat" ::a/initrd.img "$work/initrd"
    # initramfs-tools runs the scripts that ORDER names. Since Debian 13, several archives follow each other, of which one is compressed.
    rm -rf "$work/unpacked" && unmkinitramfs "$work/initrd" "$work/unpacked"
    find "$work/unpacked" -path '*/scripts/init-bottom/ORDER' -exec cat {} + >"$rest/scripts/init-bottom/ORDER"
    grep -q /affectd "$rest/scripts/init-bottom/ORDER" || fail "the initramfs has no script that prepares the root"
    echo '/bench/into-root' >>"$rest/scripts/init-bottom/ORDER"
    (cd "$rest" && find . | cpio -o -H newc --quiet -R 0:0 | gzip -1) >"$work/bench.cpio"
}

# Reads the files that config.txt names from the boot partition, as a board's firmware does. Sets $prefix and $cmdline.
firmware() {
    local kernel initrd
    mcopy -o -i "$fat" ::config.txt "$work/config.txt"
    prefix=$(sed -n 's/^os_prefix=//p' "$work/config.txt")
    kernel=$(sed -n 's/^kernel=//p' "$work/config.txt")
    initrd=$(sed -n 's/^initramfs \([^ ]*\).*/\1/p' "$work/config.txt")
    mcopy -o -i "$fat" "::$prefix$kernel" "$work/kernel"
    mcopy -o -i "$fat" "::$prefix$initrd" "$work/initrd"
    cmdline=$(mtype -i "$fat" "::${prefix}cmdline.txt")
    cat "$work/initrd" "$work/bench.cpio" >"$work/initrd+bench"
    rm -f "$work/console" "$cache/uart"
}

# Gives the machine a serial number, as the firmware of a Raspberry Pi does. Sets $serial to QEMU's arguments.
number_board() {
    qemu-system-aarch64 -M "$machine,dumpdtb=$work/virt.dtb" -cpu cortex-a72 -m 1024 >/dev/null 2>&1
    fdtput -t s "$work/virt.dtb" / serial-number 1000000012abcdef
    serial=(-dtb "$work/virt.dtb")
}

# Starts the machine and waits until it ends.
power_on() { # CHECK [QEMU-ARGUMENT…]
    local check=$1 prefix cmdline
    shift
    firmware
    timeout -s KILL "${HIL_TIMEOUT:-1500}" qemu-system-aarch64 -M "$machine" -cpu cortex-a72 -m 1024 \
        -accel tcg -icount shift=1 -display none -monitor none -no-reboot -nic "${network:-none}" -audiodev none,id=none \
        -kernel "$work/kernel" -initrd "$work/initrd+bench" \
        -append "$cmdline console=ttyAMA0 systemd.mask=serial-getty@ttyAMA0.service mitigations=off bench=$check bench_quiet=${HIL_QUIET:-60}" \
        -drive "file=$card,format=raw,if=none,id=card" -device virtio-blk-pci,drive=card -device i6300esb \
        -serial "file:$work/console" "${uart[@]}" "$@" </dev/null || echo "qemu ended with $?"
}

# Prints the guest's results and the first estimate on the UART. Fails if either is missing or bad.
judge() { # CHECK
    tr -d '\r' <"$work/console" >"$work/console.txt"
    grep -aE '^(HIL|    )' "$work/console.txt" || true
    grep -aqx 'HIL VERDICT pass' "$work/console.txt" || fail "$1"
    local first
    first=$(grep -am 1 '^{"schema":1.*}' "$cache/uart") || fail "no estimate on the UART"
    echo "    first on the UART: $(echo "$first" | cut -c1-160)"
    echo "    lines on the UART: $(grep -ac '^{"schema":1' "$cache/uart")"
}

# QEMU's Pi cannot switch itself off and has only one UART, so the host waits for the estimates and ends it. It also resets when
# the watchdog starts, so the watchdog is off.
pi3() {
    local prefix cmdline running
    cp --sparse=always "$image" "$card" && truncate -s 1G "$card"
    write_bench && firmware
    mcopy -o -i "$fat" "::${prefix}bcm2837-rpi-3-b.dtb" "$work/board.dtb"
    touch "$cache/uart"
    timeout -s KILL "${HIL_TIMEOUT:-1500}" qemu-system-aarch64 -M raspi3b -accel tcg -icount shift=1 -display none -monitor none \
        -no-reboot -kernel "$work/kernel" -initrd "$work/initrd+bench" -dtb "$work/board.dtb" -append "$cmdline systemd.watchdog_sec=0 bench=pi3" \
        -drive "file=$card,format=raw,if=sd" -serial null -serial "file:$cache/uart" </dev/null &
    running=$!
    while kill -0 $running 2>/dev/null && ! grep -aq '"modalities":\["face","voice"\]' "$cache/uart"; do sleep 1; done
    kill $running 2>/dev/null || true
    wait $running 2>/dev/null || true
    grep -am 1 '"modalities":\["face","voice"\]' "$cache/uart" | cut -c1-160 | sed 's/^/    /' || fail "no estimate with face and voice from GPIO 14"
    echo "    lines from GPIO 14 until then: $(grep -ac '^{"schema":1' "$cache/uart")"
}

cuts() { # NUMBER
    write_card && write_bench
    local before reached=0 seconds
    before=$(sha256sum <"$card")
    for cut in $(seq "$1"); do
        seconds=$((RANDOM % ${HIL_CUT_SECONDS:-90} + 2))
        HIL_TIMEOUT=$seconds power_on wait >/dev/null 2>&1
        if grep -aqs '^{"schema":1' "$cache/uart"; then reached=$((reached + 1)); fi
        echo "    cut $cut after $seconds s: $(grep -ac '^{"schema":1' "$cache/uart" 2>/dev/null || true) estimates by then"
        [ "$(sha256sum <"$card")" = "$before" ] || fail "the card changed"
    done
    echo "    $reached of $1 cuts came after the first estimate; no bit of the card changed"
    power_on up
    judge cuts
}

slot() { mtype -i "$fat" ::config.txt | sed -n 's/^os_prefix=//p'; }

# Sends the update as a user does, by SSH with a key from the boot partition. Before that, it sends $work/forged, which the board must
# refuse. The machine then reboots, which ends QEMU.
send_update() {
    local network=user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:2222-:22 running
    local ssh=(ssh -q -p 2222 -i "$work/key" -o StrictHostKeyChecking=accept-new -o "UserKnownHostsFile=$work/known_hosts"
        -o ConnectTimeout=20 -o BatchMode=yes root@127.0.0.1)
    power_on wait &
    running=$!
    until "${ssh[@]}" true </dev/null; do
        kill -0 $running 2>/dev/null || fail "SSH does not answer"
        sleep 2
    done
    if "${ssh[@]}" affectd-update <"$work/forged" 2>"$work/refused"; then fail "a forged update was accepted"; fi
    grep -q 'is not signed with the key of this image' "$work/refused" || fail "the forged update: $(cat "$work/refused")"
    echo "    $(cat "$work/refused")"
    "${ssh[@]}" affectd-update <"$1" | sed 's/^/    /' || true
    wait $running
}

update() {
    local update=${image%.img}.update
    [ -e "$update" ] || fail "$update is missing"
    write_card && write_bench
    rm -rf "$work/forgery" && mkdir "$work/forgery"
    tar -x -C "$work/forgery" -f "$update"
    echo "quiet init=/bin/sh" >>"$work/forgery/boot/cmdline.txt"
    (
        cd "$work/forgery"
        # As image.sh makes them, but without the key.
        for file in boot/* root.squashfs; do
            echo "$(sha256sum <"$file" | cut -d' ' -f1) $(stat -c %s "$file") $file"
        done >sums
        tar -cf "$work/forged" sums.sig sums boot root.squashfs
    )
    rm -f "$work"/key* "$work/known_hosts" && ssh-keygen -q -t ed25519 -N '' -f "$work/key"
    MTOOLS_SKIP_CHECK=1 mcopy -o -i "$fat" "$work/key.pub" ::authorized_keys
    for try in cut confirmed; do
        send_update "$update"
        [ "$(slot)" = b/ ] || fail "the update did not select slot b"
        echo "    slot b on trial, $try"
        if [ $try = cut ]; then
            # This is enough for the initramfs, and too short for the minute on trial.
            HIL_TIMEOUT=${HIL_TRIAL_SECONDS:-60} power_on wait >/dev/null 2>&1
            mdir -b -i "$fat" :: | grep -q trial.begun || fail "the trial had not begun"
            power_on wait
            [ "$(slot)" = a/ ] || fail "the board did not return to slot a"
            echo "    the board returned to slot a"
        else
            power_on confirmed
            judge confirmed
            [ "$(slot)" = b/ ] || fail "slot b was not kept"
            if mdir -b -i "$fat" :: | grep -q trial; then fail "the trial has not ended"; fi
        fi
    done
}

while [ $# -gt 0 ]; do
    check=$1 && shift
    step "$check"
    case $check in
    up) write_card && write_bench && power_on up && judge up ;;
    absent)
        write_card && write_bench && number_board
        mdel -i "$fat" ::hostname
        echo Europe/Wien >"$work/timezone"
        MTOOLS_SKIP_CHECK=1 mcopy -o -i "$fat" "$work/timezone" ::
        power_on absent -rtc base=1970-01-01T00:00:00 "${serial[@]}"
        judge absent
        ;;
    pi3) pi3 ;;
    update) update ;;
    cuts)
        number=20
        case ${1:-} in [0-9]*) number=$1 && shift ;; esac
        cuts "$number"
        ;;
    esac
done
step "verdict"
echo pass
