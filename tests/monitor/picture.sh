#!/usr/bin/env bash
# Makes cross/monitor.svg, the picture of the monitor in the documents:
#
#     tests/monitor/picture.sh [FILE]
#
# affectd replays the demo clip several times in real time to a real broker, and `affectd monitor` shows it in a terminal of tmux. It takes
# a minute. AFFECTD names another affectd than target/release/affectd. It installs what is missing, as root or with sudo, on Debian or
# Ubuntu.
set -euo pipefail

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }
case "$#:${1:-}" in
1:-h | 1:--help) usage && exit ;;
0: | 1:[!-]*) ;;
*) usage >&2 && exit 2 ;;
esac
file=$(realpath "${1:-$(dirname "$0")/../../cross/monitor.svg}")
cd "$(dirname "$0")/../.."
cross/install-packages.sh ffmpeg mosquitto python3 tmux
[ -n "${AFFECTD:-}" ] || cargo build --release
affectd=$(realpath "${AFFECTD:-target/release/affectd}")
port=18830

work=$(mktemp -d)
end() {
    tmux -S "$work/tmux" kill-server 2>/dev/null || true
    # shellcheck disable=SC2046 # one word for each process
    kill $(jobs -p) 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap end EXIT
PATH=$PATH:/usr/sbin mosquitto -p $port 2>"$work/mosquitto.log" &
until grep -qs running "$work/mosquitto.log"; do sleep .1; done
clip=models/demo.mkv
ffmpeg -v error -stream_loop 6 -i "$clip" -c copy "$work/clip.mkv"
export AFFECTD_CONFIG=/dev/null LC_ALL=C.UTF-8
broker=mqtt://127.0.0.1:$port
tmux -S "$work/tmux" -f /dev/null new-session -d -x 90 -y 28 "$affectd monitor $broker/affectd/kitchen"
"$affectd" run --realtime --input "$work/clip.mkv" --output "$broker?device=kitchen" 2>"$work/log" &
replay=$!
screen() { tmux -S "$work/tmux" capture-pane -e -p; }
# The last screen with a face.
while kill -0 $replay 2>/dev/null; do
    screen >"$work/new"
    ! grep -q 'face [0-9]' "$work/new" || mv "$work/new" "$work/screen"
    sleep 1
done
/usr/bin/python3 tests/monitor/screen_to_svg.py <"$work/screen" >"$file"
echo "$file: $(wc -c <"$file") bytes"
