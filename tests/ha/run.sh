#!/usr/bin/env bash
# Runs a real Home Assistant, a mosquitto and affectd together, and asks Home Assistant what it has:
#
#     tests/ha/run.sh [--home-assistant VERSION] [--keep DIR] [SCENARIO…]
#
# VERSION is 2026.11.0 (the default) or 2024.12.5. Without a SCENARIO, all run; `--list` prints them. It takes about 15 minutes the first
# time and 10 afterwards, 1.6 GB in DIR, and needs root, x86-64 and Debian or Ubuntu. With --keep, DIR is used again the next time.
#
# Everything runs in a new Debian system below DIR, in a network namespace of its own: Home Assistant reaches neither the Internet
# nor this machine. affectd plays the demo clip in a loop. AFFECTD names another affectd than target/release/affectd.
set -euo pipefail

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }
usage_error() {
    echo "$0: $1" >&2
    usage >&2
    exit 2
}

version=2026.11.0
keep=
scenarios=()
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit ;;
    --list) exec python3 "$(dirname "$0")/bench.py" --list ;;
    --home-assistant) version=${2:?} && shift ;;
    --keep) keep=${2:?} && shift ;;
    -*) usage_error "unknown option $1" ;;
    *) scenarios+=("$1") ;;
    esac
    shift
done
# Each version of Home Assistant supports two versions of Python; the Debian release has one of them.
case $version in
2026.11.*) release=forky ;;
2024.12.*) release=trixie ;;
*) usage_error "Home Assistant $version was not tried: expected 2026.11.0 or 2024.12.5" ;;
esac
[ "$(id -u)" = 0 ] || usage_error "must run as root"

here=$(realpath "$(dirname "$0")")
cd "$here/../.."
requirements=$here/requirements-$version.txt
cross/install-packages.sh debootstrap ca-certificates ffmpeg
affectd=${AFFECTD:-target/release/affectd}
[ -n "${AFFECTD:-}" ] || cargo build --release
folder=${keep:-$(mktemp -d)}
root=$folder/$version
clean_up() {
    for mounted in proc dev ''; do
        if mountpoint -q "$root/$mounted"; then umount -R -l "$root/$mounted"; fi
    done
    [ -n "$keep" ] || rm -rf --one-file-system "$folder"
}
trap clean_up EXIT

mkdir -p "$root"
# A mount point of its own, so that mounts inside do not reach this system.
mount --bind "$root" "$root"
mount --make-private "$root"
if [ ! -e "$root/srv/installed" ]; then
    echo "a new Debian $release with Home Assistant $version"
    # An older debootstrap has no script for a newer release. That of sid serves all.
    debootstrap --variant=minbase --include=ca-certificates,ffmpeg,gcc,g++,iproute2,libasound2t64,libc6-dev,mosquitto,mosquitto-clients,python3-dev,python3-venv \
        "$release" "$root" http://deb.debian.org/debian /usr/share/debootstrap/scripts/sid >"$folder/debootstrap.log" 2>&1 ||
        { tail -n 20 "$folder/debootstrap.log" >&2; exit 1; }
fi
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev" && mount --make-rslave "$root/dev"
in_root() {
    chroot "$root" env -i PATH=/srv/venv/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
        SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt "$@"
}
if [ ! -e "$root/srv/installed" ]; then
    cp /etc/resolv.conf "$root/etc/"
    # A proxy that inspects TLS has certificates of its own.
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    cp "$requirements" "$root/srv/requirements.txt"
    in_root python3 -m venv /srv/venv
    in_root pip install --quiet uv
    in_root uv pip install --quiet --requirement /srv/requirements.txt
    touch "$root/srv/installed"
fi
ffmpeg -loglevel error -y -stream_loop 119 -i models/demo.mkv -c copy "$root/srv/clip.mkv"
cp "$affectd" "$root/usr/bin/affectd"
cp "$here/bench.py" "$root/srv/"
unshare --net chroot "$root" env -i PATH=/srv/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
    python3 /srv/bench.py "${scenarios[@]}"
