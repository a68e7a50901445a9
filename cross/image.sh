#!/usr/bin/env bash
# Makes an SD-card image for a Raspberry Pi 3, 4 or Zero 2 W from Debian packages, without loop devices:
#
#     cross/image.sh pi [--output FILE.img] [--deb FILE] [--key NAME] [--install]
#
#     --output FILE.img  the image; the default is affectd-pi.img. Its update, FILE.update, goes beside it
#     --deb FILE         puts this package on the image; without it, cross/package.sh makes one first
#     --key NAME         signs the update with the key NAME.sec; boards with the image accept only updates of this key. The default
#                        is ~/.config/affectd/update, which the script makes if it is missing
#     --install          installs missing packages; without it, the script only lists them
#
# On x86-64, qemu-user runs the arm64 programs. Root is not needed where the kernel allows unprivileged user namespaces and
# knows qemu-user.
set -euo pipefail

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }
usage_error() {
    echo "$0: $1" >&2
    usage >&2
    exit 2
}

board=
output=affectd-pi.img
deb=
key=${XDG_CONFIG_HOME:-$HOME/.config}/affectd/update
install=no
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit ;;
    pi) board=pi ;;
    --output | --deb | --key)
        [ -n "${2:-}" ] || usage_error "$1 needs a value"
        case $1 in
        --output) output=$2 ;;
        --deb) deb=$(realpath -m "$2") ;;
        --key) key=$(realpath -m "$2") ;;
        esac
        shift
        ;;
    --install) install=yes ;;
    *) usage_error "unknown argument: $1" ;;
    esac
    shift
done
[ -n "$board" ] || usage_error "the board is missing: pi"
[ -z "$deb" ] || [ -f "$deb" ] || usage_error "$deb: no such file"
output=$(realpath "$output")
cd "$(dirname "$0")/.."
# shellcheck source=cross/debian-packages.sh
. cross/debian-packages.sh
host=$(dpkg --print-architecture)
# Debian keeps /usr/sbin out of a user's PATH; mkfs.vfat and sfdisk are there.
PATH=$PATH:/usr/sbin:/sbin

if [ -n "$deb" ]; then
    found=$(dpkg-deb --fsys-tarfile "$deb" | tar -xO ./usr/bin/affectd | program_architecture)
    if [ "$found" != arm64 ]; then
        echo "$0: $deb has a program for $found, not for arm64: make the package with cross/package.sh arm64" >&2
        exit 1
    fi
fi

# mmdebstrap needs gpg to verify Debian's lists on Ubuntu, and uidmap to work without root.
packages=(mmdebstrap arch-test gpg uidmap signify-openbsd squashfs-tools-ng dosfstools mtools fdisk debian-archive-keyring)
[ "$host" = arm64 ] || packages+=(qemu-user-static)
[ -n "${SOURCE_DATE_EPOCH:-}" ] || packages+=(git)
require_packages $install "the image" "${packages[@]}"
# In a container, no systemd registers qemu-user with the kernel.
binfmt=/proc/sys/fs/binfmt_misc
if [ "$host" != arm64 ] && [ "$(id -u)" = 0 ]; then
    [ -e $binfmt/register ] || mount -t binfmt_misc binfmt_misc $binfmt
    # It may be registered outside of this container.
    [ -e $binfmt/qemu-aarch64 ] || cat /usr/lib/binfmt.d/qemu-aarch64.conf >$binfmt/register
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
# The same commit, packages and key give the same image.
epoch=$(commit_time)
reproducible_tar=(tar --owner=0 --group=0 --numeric-owner --sort=name "--mtime=@$epoch" "--mode=u+rwX,go=rX")

steps=6
done=0
step() { # WHAT
    done=$((done + 1))
    echo "$0: step $done of $steps, after $SECONDS s: $1" >&2
}

step "the package of affectd"
if [ -z "$deb" ]; then
    options=(--output "$work")
    [ $install = no ] || options+=(--install)
    cross/package.sh arm64 "${options[@]}"
    deb=$(echo "$work"/affectd_*_arm64.deb)
fi

if [ ! -e "$key.sec" ]; then
    mkdir -p "$(dirname "$key")"
    (umask 077 && signify-openbsd -G -n -c "updates of affectd" -p "$key.pub" -s "$key.sec")
    echo "$0: made the key $key.sec: keep it, because boards with this image accept no updates of another key" >&2
fi
mkdir "$work/root"
cp -a cross/image/root/. "$work/root"
cp "$key.pub" "$work/root/etc/affectd-update.pub"
"${reproducible_tar[@]}" -C "$work/root" -cf "$work/root.tar" .
cp "$deb" "$work/affectd.deb"

step "Debian from the network, which takes the longest"
# Network, time, time zones, name resolution, SSH, Wi-Fi, and the kernel with its initramfs.
include=systemd-sysv,systemd-timesyncd,tzdata,systemd-resolved,dbus,udev,kmod,iproute2,ca-certificates,openssh-server
include+=,libasound2t64,signify-openbsd,wpasupplicant,firmware-brcm80211,wireless-regdb,linux-image-arm64,initramfs-tools,busybox,zstd
mirror=http://deb.debian.org
cat >"$work/sources" <<SOURCES
deb $mirror/debian trixie main non-free-firmware
deb $mirror/debian trixie-updates main non-free-firmware
deb $mirror/debian-security trixie-security main non-free-firmware
SOURCES
# Without the files .updated, systemd would update caches of /etc and /var at every boot, because it cannot keep them.
# shellcheck disable=SC2016  # $1 belongs to the hooks.
SOURCE_DATE_EPOCH=$epoch mmdebstrap --architectures=arm64 --variant=minbase --format=tar \
    --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt=path-exclude=/usr/share/doc/\* --dpkgopt=path-include=/usr/share/doc/\*/copyright \
    --dpkgopt=path-exclude=/usr/share/man/\* --dpkgopt=path-exclude=/usr/share/locale/\* \
    --include=$include \
    --essential-hook="tar-in $work/root.tar /" \
    --customize-hook="copy-in $work/affectd.deb /var/tmp" \
    --customize-hook='chroot "$1" dpkg -i /var/tmp/affectd.deb && rm "$1/var/tmp/affectd.deb"' \
    --customize-hook='cd "$1/var/tmp" && APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get download -qq raspi-firmware && dpkg-deb -x raspi-firmware_*.deb firmware && rm raspi-firmware_*.deb' \
    --customize-hook='cp "$1"/usr/lib/linux-image-*/broadcom/*rpi*.dtb "$1/var/tmp/firmware"' \
    --customize-hook='cp "$1"/boot/vmlinuz-* "$1/var/tmp/firmware/vmlinuz"' \
    --customize-hook='cp "$1"/boot/initrd.img-* "$1/var/tmp/firmware/initrd.img"' \
    --customize-hook="copy-out /var/tmp/firmware $work" \
    --customize-hook='cd "$1" && rm -rf var/tmp/firmware boot/initrd.img-* boot/vmlinuz-* boot/System.map-* etc/ssh/ssh_host_* var/lib/apt/lists/* var/cache/apt/*.bin' \
    --customize-hook='mkdir -p "$1/boot/firmware"' \
    --customize-hook='chroot "$1" systemctl enable affectd systemd-networkd systemd-timesyncd systemd-resolved ssh' \
    --customize-hook='chroot "$1" systemctl disable wpa_supplicant apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer' \
    --customize-hook='ln -sf ../run/systemd/resolve/stub-resolv.conf "$1/etc/resolv.conf"' \
    --customize-hook='touch "$1/etc/.updated" "$1/var/.updated"' \
    --customize-hook='echo affectd >"$1/etc/hostname" && printf "127.0.0.1 localhost\n::1 localhost\n" >"$1/etc/hosts"' \
    trixie "$work/tar" "$work/sources"

step "compressing the root"
tar2sqfs --quiet --compressor zstd --defaults "mtime=$epoch" "$work/root.squashfs" <"$work/tar"
rm "$work/tar"

step "the boot partition"
# The boot partition holds the firmware, the settings, and a folder with kernel and initramfs for each slot.
boot=$work/boot
mkdir -p "$boot/a"
cp "$work"/firmware/usr/lib/raspi-firmware/{bootcode.bin,start*.elf,fixup*.dat} "$boot/"
mv "$work"/firmware/{vmlinuz,initrd.img,*.dtb} "$boot/a/"
disk=afec7d00
slot_line() { # PARTITION
    echo "root=PARTUUID=$disk-0$1 rootfstype=squashfs ro rootwait console=tty1 quiet loglevel=4 panic=10"
}
slot_line 2 >"$boot/a/cmdline.txt"
cp cross/image/boot/* "$boot/"
sed 's#^output = .*#output = ["serial:/dev/serial0?baud=115200\&wire=json"]#' cross/package/affectd.toml >"$boot/affectd.toml"
find "$boot" -exec touch -d "@$epoch" {} +

# Sizes are in MiB. The first partition begins at 1.
boot_size=192
slot_size=256
root_size=$(stat -c %s "$work/root.squashfs")
[ "$root_size" -le $((slot_size << 20)) ] || { echo "$0: the root is $((root_size >> 20)) MiB, but a slot has $slot_size: leave packages out" >&2; exit 1; }
step "the image"
rm -f "$output"
truncate -s $((1 + boot_size + 2 * slot_size))M "$output"
sfdisk --quiet "$output" <<TABLE
label: dos
label-id: 0x$disk
start=1MiB, size=${boot_size}MiB, type=c, bootable
start=$((1 + boot_size))MiB, size=${slot_size}MiB, type=83
start=$((1 + boot_size + slot_size))MiB, size=${slot_size}MiB, type=83
TABLE
truncate -s ${boot_size}M "$work/fat"
mkfs.vfat -F 32 -n AFFECTD -i "$disk" --invariant "$work/fat" >/dev/null
(cd "$boot" && find . -mindepth 1 -maxdepth 1 | sort | xargs -I{} env MTOOLS_SKIP_CHECK=1 mcopy -i "$work/fat" -s -m -Q {} ::)
dd if="$work/fat" of="$output" bs=1M seek=1 conv=notrunc,sparse status=none
dd if="$work/root.squashfs" of="$output" bs=1M seek=$((1 + boot_size)) conv=notrunc status=none
step "the signed update"
# The update holds the contents of a slot. The checksums and their signature come first.
update=${output%.img}.update
mkdir "$work/update"
mv "$boot/a" "$work/update/boot"
mv "$work/root.squashfs" "$work/update/"
(
    cd "$work/update"
    for file in boot/* root.squashfs; do
        echo "$(sha256sum <"$file" | cut -d' ' -f1) $(stat -c %s "$file") $file"
    done >sums
    signify-openbsd -S -s "$key.sec" -m sums -x sums.sig
    signify-openbsd -V -q -p "$key.pub" -m sums -x sums.sig
    "${reproducible_tar[@]}" -cf "$update" sums.sig sums boot root.squashfs
)
echo "$0: done after $SECONDS s" >&2
echo "$output: $(($(stat -c %s "$output") / 1000000)) MB, of which the root is $((root_size / 1000000)) MB"
