#!/usr/bin/env bash
# Boots the SD-card image that cross/image.sh made, as it is, on QEMU's arm64 machine:
#
#     tests/hil/boot.sh IMAGE [up | absent | update | cuts [NUMBER]]…
#
#     up      power on, systemd, affectd, estimates on the UART; then kill -9, a hung face thread, writes to the card
#     absent  without a camera, and with the clock at 1970: estimates all the same, and the camera found when it comes
#     update  into the other slot, power cut while on trial: back in the old one; again, and confirmed: it stays
#     cuts    power cut at NUMBER random moments (20 if not said): the card stays as it is, and boots (long)
#
# Without a check, the first two. What the board's firmware does, this does: it reads config.txt from the boot partition and
# starts the kernel that stands there. The virtual camera and sound card are put into memory beside the initramfs; nothing
# else is added to the image but its settings. Time in the guest goes by its instructions, as in run.sh, whose cache has the
# camera's module: run tests/hil/run.sh arm64 listed once before.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=${HIL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/affectd-hil}/arm64
[ -e "${1:-}" ] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
image=$1 && shift
[ $# -gt 0 ] || set -- up absent
work=$cache/boot
mkdir -p "$work"
card=$work/card.img
fat=$card@@1M

step() { printf '\n== %s (%s s)\n' "$*" "$SECONDS"; }
fail() { echo "not passed: $*; the guest's console is $work/console.txt" >&2; exit 1; }

# A card with the settings that a user would put there with an editor.
write_card() {
    cp --sparse=always "$image" "$card"
    cat >"$work/affectd.toml" <<'TOML'
# Written by the bench.
output = ["serial:/dev/ttyAMA1?baud=115200&wire=json", "file:/run/affectd/estimates.jsonl?max_mb=1&keep=1"]
[camera]
device = "/dev/video10"
rate_hz = 10
[microphone]
device = "hw:CARD=Loopback,DEV=1"
[face]
rate_hz = 5
TOML
    echo bench-board >"$work/hostname"
    MTOOLS_SKIP_CHECK=1 mcopy -o -i "$fat" "$work/affectd.toml" "$work/hostname" ::
}

# What lies in memory beside the image: the virtual devices, and who asks the questions.
write_bench() {
    local module rest=$work/rest
    module=$(find "$cache" -maxdepth 1 -name 'v4l2loopback-*.ko' -print -quit)
    [ -n "$module" ] || { echo "no camera module in $cache: run tests/hil/run.sh arm64 listed" >&2; exit 1; }
    rm -rf "$rest" && mkdir -p "$rest/bench" "$rest/scripts/init-bottom"
    cp "$module" "$rest/bench/v4l2loopback.ko"
    cp "$cache/feed" "$cache"/face.* "$here"/boot/* "$rest/bench/"
    mcopy -o -i "$fat" ::a/initrd.img "$work/initrd"
    # initramfs-tools runs what ORDER names.
    zstdcat "$work/initrd" | (cd "$work" && cpio -i --quiet --to-stdout scripts/init-bottom/ORDER) >"$rest/scripts/init-bottom/ORDER"
    echo '/bench/into-root' >>"$rest/scripts/init-bottom/ORDER"
    (cd "$rest" && find . | cpio -o -H newc --quiet -R 0:0 | gzip -1) >"$work/bench.cpio"
}

# Starts the machine and waits for its end: power_on CHECK [QEMU ARGUMENT…]
power_on() {
    local check=$1 prefix kernel initrd cmdline
    shift
    mcopy -o -i "$fat" ::config.txt "$work/config.txt"
    prefix=$(sed -n 's/^os_prefix=//p' "$work/config.txt")
    kernel=$(sed -n 's/^kernel=//p' "$work/config.txt")
    initrd=$(sed -n 's/^initramfs \([^ ]*\).*/\1/p' "$work/config.txt")
    mcopy -o -i "$fat" "::$prefix$kernel" "$work/kernel"
    mcopy -o -i "$fat" "::$prefix$initrd" "$work/initrd"
    cmdline=$(mtype -i "$fat" "::${prefix}cmdline.txt")
    cat "$work/initrd" "$work/bench.cpio" >"$work/initrd+bench"
    rm -f "$work/console" "$work/uart"
    timeout -s KILL "${HIL_TIMEOUT:-1500}" qemu-system-aarch64 -M virt,gic-version=3 -cpu cortex-a72 -m 1024 \
        -accel tcg -icount shift=1,sleep=off -display none -monitor none -no-reboot -nic none -audiodev none,id=none \
        -kernel "$work/kernel" -initrd "$work/initrd+bench" -append "$cmdline console=ttyAMA0 mitigations=off bench=$check" \
        -drive "file=$card,format=raw,if=none,id=card" -device virtio-blk-pci,drive=card -device i6300esb \
        -serial "file:$work/console" -serial "file:$work/uart" "$@" </dev/null || echo "qemu ended with $?"
}

# The guest's verdict on a check, and what the host read from the UART.
judge() { # CHECK
    tr -d '\r' <"$work/console" >"$work/console.txt"
    grep -aE '^(HIL|    )' "$work/console.txt" || true
    grep -aqx 'HIL VERDICT pass' "$work/console.txt" || fail "$1"
    local first
    first=$(grep -am 1 '^{"schema":1.*}' "$work/uart") || fail "no estimate on the UART"
    echo "    first on the UART: $(echo "$first" | cut -c1-160)"
    echo "    lines on the UART: $(grep -ac '^{"schema":1' "$work/uart")"
}

cuts() { # NUMBER
    write_card && write_bench
    local before reached=0 seconds
    before=$(sha256sum <"$card")
    for cut in $(seq "$1"); do
        seconds=$((RANDOM % ${HIL_CUT_SECONDS:-90} + 2))
        HIL_TIMEOUT=$seconds power_on wait >/dev/null 2>&1
        if grep -aqs '^{"schema":1' "$work/uart"; then reached=$((reached + 1)); fi
        echo "    cut $cut after $seconds s: $(grep -ac '^{"schema":1' "$work/uart" 2>/dev/null || true) estimates by then"
        [ "$(sha256sum <"$card")" = "$before" ] || fail "the card has changed"
    done
    echo "    $reached of $1 cuts came after the first estimate; the card is the same, bit by bit"
    power_on up
    judge cuts
}

slot() { mtype -i "$fat" ::config.txt | sed -n 's/^os_prefix=//p'; }

update() {
    local update=${image%.img}.update
    [ -e "$update" ] || fail "$update is missing"
    write_card && write_bench
    for try in cut confirmed; do
        power_on update -drive "file=$update,format=raw,if=none,id=update,readonly=on" -device virtio-blk-pci,drive=update
        [ "$(slot)" = b/ ] || fail "the update did not choose slot b"
        echo "    slot b on trial, $try"
        if [ $try = cut ]; then
            # Long enough for the initramfs, not for the minute of trial.
            HIL_TIMEOUT=${HIL_TRIAL_SECONDS:-60} power_on wait >/dev/null
            mdir -b -i "$fat" :: | grep -q trial.begun || fail "the trial had not begun"
            power_on wait
            [ "$(slot)" = a/ ] || fail "not back in slot a"
            echo "    back in slot a"
        else
            power_on confirmed
            judge confirmed
            [ "$(slot)" = b/ ] || fail "slot b did not stay"
            if mdir -b -i "$fat" :: | grep -q trial; then fail "the trial has not ended"; fi
        fi
    done
}

while [ $# -gt 0 ]; do
    check=$1 && shift
    step "$check"
    case $check in
    up) write_card && write_bench && power_on up && judge up ;;
    absent) write_card && write_bench && power_on absent -rtc base=1970-01-01T00:00:00 && judge absent ;;
    update) update ;;
    cuts)
        number=20
        case ${1:-} in [0-9]*) number=$1 && shift ;; esac
        cuts "$number"
        ;;
    *) echo "$check: no such check" >&2 && exit 2 ;;
    esac
done
step "verdict"
echo pass
