#!/usr/bin/env bash
# Counts the instructions that an aarch64 program executes, without a board:
#
#     cross/qemu-count.sh [--cpu CPU]... [--functions FILE] PROGRAM [ARGUMENT...]
#     cross/qemu-count.sh target/aarch64-unknown-linux-gnu/release/affectd bench --model FILE --iterations {}
#
# It prints a line with name and count for each CPU; the default is cortex-a72, cortex-a76 and max. With `{}` among the
# arguments, it runs the program twice, with 2 and with 12 in that place, and prints the count of one iteration; the counts of
# starting and loading cancel out. The program's own output goes to stderr.
#
# --functions writes the count of each function of the last run to FILE, most first. The program needs its symbols.
#
# cortex-a72 is the Raspberry Pi 4 (ARMv8.0) and cortex-a76 the Pi 5 (ARMv8.2 with dot products). max has all extensions that
# QEMU supports, such as matrix products and SVE, which neither board has. The count measures the amount of work, not the time.
#
# It needs qemu-user with plugins, which Debian 12 has; later packages are static and have none. QEMU=PATH names another
# qemu-aarch64, and QEMU_LD_PREFIX the root folder of the program's libraries.
set -euo pipefail

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }
usage_error() {
    echo "$0: $1" >&2
    usage >&2
    exit 2
}

cpus=()
functions=
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit ;;
    --cpu)
        case ${2:--} in -*) usage_error "--cpu needs a name" ;; esac
        cpus+=("$2")
        shift
        ;;
    --functions)
        case ${2:--} in -*) usage_error "--functions needs a file" ;; esac
        functions=$2
        shift
        ;;
    -*) usage_error "unknown argument: $1" ;;
    *) break ;;
    esac
    shift
done
[ $# -gt 0 ] || usage_error "the program is missing"
[ ${#cpus[@]} -gt 0 ] || cpus=(cortex-a72 cortex-a76 max)

# The runs take minutes. Whether the file can be written is known before.
[ -z "$functions" ] || : >"$functions" || { echo "$0: $functions: cannot be written: name a file in a folder that exists" >&2 && exit 1; }

qemu=${QEMU:-qemu-aarch64}
if [ -z "${QEMU_LD_PREFIX:-}" ]; then
    # Use the libc of the foreign architecture if it is installed, otherwise the cross compiler's. With both installed, the
    # cross compiler's loader would find the other libc, and threads would not start.
    QEMU_LD_PREFIX=/usr/aarch64-linux-gnu
    [ ! -e /lib/ld-linux-aarch64.so.1 ] || QEMU_LD_PREFIX=/
fi
export QEMU_LD_PREFIX
# grep -q would end early, QEMU would get a broken pipe, and pipefail would report it as a failure.
if ! command -v "$qemu" >/dev/null || ! "$qemu" --help | grep -e '^-plugin ' >/dev/null; then
    echo "$0: $qemu is not installed or has no plugins: install qemu-user of Debian 12, or set QEMU" >&2
    exit 1
fi
version=$("$qemu" --version | sed -n '1s/.*version \([0-9]*\).*/\1/p')
api=$((version < 9 ? 1 : 2))

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cc -O2 -fPIC -shared -DPLUGIN_API=$api -o "$scratch/insn_count.so" "$(dirname "$0")/qemu/insn_count.c"

count() {
    local cpu=$1
    shift
    "$qemu" -cpu "$cpu" -plugin "$scratch/insn_count.so,out=$scratch/count${functions:+,functions=$scratch/functions}" "$@" >&2 ||
        { echo "$0: the program failed: see its message above" >&2 && return 1; }
    cat "$scratch/count"
}

few=2
many=12
for cpu in "${cpus[@]}"; do
    case " $* " in
    *"{}"*)
        least=$(count "$cpu" "${@//"{}"/$few}")
        most=$(count "$cpu" "${@//"{}"/$many}")
        executed=$(((most - least) / (many - few)))
        ;;
    *) executed=$(count "$cpu" "$@") ;;
    esac
    printf '%-12s %15d\n' "$cpu" "$executed"
done
[ -z "$functions" ] || sort -rn "$scratch/functions" | c++filt >"$functions"
