#!/usr/bin/env bash
# Measures the offset between the flashes and the beeps of a recording, which coincide in the original:
#
#     tests/hil/audio_video_sync.sh CLIP
#
# Prints the mean, the worst, the first and the last offset of the pairs; positive means that the sound is late. Fails if an
# offset is larger than 40 ms or if there are fewer than five pairs.
set -euo pipefail

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }

case "$#:${1:-}" in
1:-h | 1:--help) usage && exit ;;
1:[!-]*) ;;
*)
    echo "$0: expected one clip" >&2
    usage >&2
    exit 2
    ;;
esac
[ -f "$1" ] || { echo "$0: $1: no such file" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ffprobe -v error -f lavfi -i "movie='$1',signalstats" -show_entries frame=pts_time:frame_tags=lavfi.signalstats.YAVG \
    -of csv=p=0 2>/dev/null | awk -F, '$2 > 128 && !lit { print $1 } { lit = $2 > 128 }' >"$work/flashes"
# -copyts: without it, ffmpeg counts from the first timestamp of the clip, and ffprobe from zero.
ffmpeg -v info -copyts -i "$1" -vn -af silencedetect=noise=-30dB:d=0.2 -f null - 2>&1 |
    sed -n 's/.*silence_end: \([0-9.]*\).*/\1/p' >"$work/beeps"
awk 'NR == FNR { beep[n++] = $1; next }
    {
        best = 9
        for (i = 0; i < n; i++) if ((d = beep[i] - $1) ^ 2 < best ^ 2) best = d
        if (best > 0.9 || best < -0.9) next
        pairs++; sum += best; if (best < 0 ? -best > worst : best > worst) worst = best < 0 ? -best : best
        if (pairs == 1) first = best
        last = best
    }
    END {
        printf "%d pairs: mean %+.1f ms, worst %.1f ms, first %+.1f ms, last %+.1f ms\n", pairs, sum / (pairs ? pairs : 1) * 1000, worst * 1000, first * 1000, last * 1000
        exit pairs < 5 || worst > 0.040
    }' "$work/beeps" "$work/flashes"
