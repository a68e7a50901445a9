#!/usr/bin/env bash
# Runs affectd with a real RTSP server, GStreamer's, and a real ffmpeg:
#
#     tests/rtsp/run.sh
#
# The server sends the demo clip as H.264 with AAC and as MJPEG with G.711. It is killed and started again, frozen, and demands a
# password. Each time, estimates must have face and voice again, no log may have the password, and no ffmpeg may be left. It takes two
# minutes. AFFECTD names another affectd than target/release/affectd. It installs what is missing, as root or with sudo, on Debian or Ubuntu.
set -euo pipefail

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }
case "$#:${1:-}" in
0:) ;;
1:-h | 1:--help) usage && exit ;;
*) usage >&2 && exit 2 ;;
esac
cd "$(dirname "$0")/../.."
cross/install-packages.sh ffmpeg procps python3 python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
    gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav
[ -n "${AFFECTD:-}" ] || cargo build --release
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Twenty minutes, so that the server never comes to the end.
ffmpeg -v error -stream_loop 119 -i models/demo.mkv -c copy "$work/clip.mkv"
/usr/bin/python3 tests/rtsp/check.py "$(realpath "${AFFECTD:-target/release/affectd}")" "$work/clip.mkv"
