#!/usr/bin/env bash
# Makes models of the shipped kind, from data to manifest; the end of models/README.md says what was done otherwise for the
# shipped files:
#
#     models/training/reproduce.sh DATA WORK
#
# DATA holds faces/, speech/, av/, clips/ and circumplex.csv as models/README.md describes; WORK gets caches and checkpoints,
# from which an interrupted run goes on. By the sum of its parts it takes three hours on two cores. Needs python3 (3.11),
# ffmpeg and espeak-ng.
set -euo pipefail

if [ $# -ne 2 ]; then
    echo "usage: $0 DATA WORK" >&2
    exit 2
fi
data=$(realpath "$1")
mkdir -p "$2"
work=$(realpath "$2")
here=$(dirname "$(realpath "$0")")

python3 -m venv "$work/venv"
# shellcheck source=/dev/null
. "$work/venv/bin/activate"
pip install --quiet --requirement "$here/requirements.txt"

# Binding threads made training several times faster on two cores.
export OMP_PROC_BIND=true

cd "$here"
python blazeface.py --data "$data" --work "$work/blazeface"
python framing.py --data "$data"
python face_encoder.py --data "$data" --work "$work/face" --epochs 64
python voice_encoder.py --data "$data" --work "$work/voice"
python fusion.py --data "$data" --work "$work/voice"
python demo_clip.py
