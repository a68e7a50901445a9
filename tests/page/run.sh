#!/usr/bin/env bash
# Opens the status page of a running affectd in a real Chromium, tests it, and takes screenshots:
#
#     tests/page/run.sh [FOLDER]
#
# FOLDER receives the screenshots; the default is target/page. The demo clip is camera and microphone. AFFECTD names another affectd
# than target/release/affectd. It installs what is missing, as root or with sudo, on Debian or Ubuntu.
set -euo pipefail

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }
case "$#:${1:-}" in
1:-h | 1:--help) usage && exit ;;
0: | 1:[!-]*) ;;
*) usage >&2 && exit 2 ;;
esac
cd "$(dirname "$0")/../.."
cross/install-packages.sh ffmpeg chromium python3 python3-websocket
affectd=${AFFECTD:-target/release/affectd}
[ -n "${AFFECTD:-}" ] || cargo build --release
mkdir -p "${1:-target/page}"
# The Python of the system, which has Debian's packages.
exec /usr/bin/python3 tests/page/page.py "$(realpath "$affectd")" "${1:-target/page}"
