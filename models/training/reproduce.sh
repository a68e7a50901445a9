#!/usr/bin/env bash
# Trains models like the shipped ones, from data to manifest. See --help.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: models/training/reproduce.sh --data DIR --work DIR --out DIR

Trains models like the shipped ones, from the data sets to a models folder for affectd. It never changes models/.

  --data DIR   the data sets: faces/, speech/, av/, clips/, teachers/ and circumplex.csv, as models/training/DATA.md describes
  --work DIR   a virtual environment, caches and checkpoints; the same command continues after an interruption
  --out DIR    receives the four graphs in both forms, manifest.json, risk_coverage.svg and demo.mkv

Needs python3 (3.11), ffmpeg and espeak-ng. The face encoder's 48 epochs take about a day on two cores: 32 to 37 minutes each were
measured beside other work. The other steps take about two hours of one core, as the sum of single steps. It was never run to its end in
one go.
How the shipped files differ from one run: see models/EXPERIMENTS.md.
TEXT
}

data='' work='' out=''
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        usage
        exit 0
        ;;
    --data | --work | --out)
        if [ $# -lt 2 ]; then
            echo "$1: no folder given" >&2
            exit 2
        fi
        printf -v "${1#--}" %s "$2"
        shift 2
        ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
done
if [ -z "$data" ] || [ -z "$work" ] || [ -z "$out" ]; then
    usage >&2
    exit 2
fi
if [ ! -d "$data" ]; then
    echo "$data: no such folder: --data names the folder with the data sets" >&2
    exit 2
fi
root=$(realpath "$(dirname "$0")/../..")
mkdir -p "$work" "$out"
data=$(realpath "$data")
work=$(realpath "$work")
out=$(realpath "$out")
if [ "$out" = "$root/models" ]; then
    echo "$out: holds the shipped models: use another folder for --out" >&2
    exit 2
fi

python3 -m venv "$work/venv"
# shellcheck source=/dev/null
. "$work/venv/bin/activate"
pip install --quiet --requirement "$root/models/training/requirements.txt"

# Binding threads made training several times faster on two cores.
export OMP_PROC_BIND=true

cd "$root"
train() {
    local script=$1
    shift
    python -m "models.training.$script" --data "$data" "$@"
}
train convert_face_detector --work "$work/detector" --out "$out"
train measure_face_framing --models "$out"
train train_face_encoder --work "$work/train" --models "$out" --out "$out"
train train_voice_encoder --work "$work/train" --out "$out"
train train_fusion --work "$work/train" --models "$out" --out "$out"
python -m models.training.make_demo_clip --out "$out"
