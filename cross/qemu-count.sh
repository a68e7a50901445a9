#!/usr/bin/env bash
# Counts the instructions an aarch64 program executes, with no board at hand:
#
#     cross/qemu-count.sh [--cpu CPU]... PROGRAM [ARGUMENT...]
#     cross/qemu-count.sh target/aarch64-unknown-linux-gnu/release/affectd bench --model FILE --iterations {}
#
# Prints one line for each CPU (by default cortex-a72, cortex-a76 and max): its name and the count. With `{}` among the
# arguments the program runs twice, with 2 and with 12 in that place, and what it prints is the count of one iteration:
# what starting and loading take cancels out. The program's own output goes to stderr.
#
# cortex-a72 is a Raspberry Pi 4 (ARMv8.0), cortex-a76 a Pi 5 (ARMv8.2 with dot products), max has all that QEMU knows,
# matrix products and SVE among them, which no such board has. Instructions are not time: they say how much work there
# is, not how long each takes.
#
# Wants qemu-user with plugins, as Debian 12 has it: later packages are static and have none. QEMU=PATH names another
# qemu-aarch64, QEMU_LD_PREFIX the root folder of the program's libraries.
set -euo pipefail

usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

cpus=()
while [ $# -gt 0 ]; do
    case $1 in
    --cpu) cpus+=("${2:?--cpu wants a name}") && shift ;;
    -*) usage ;;
    *) break ;;
    esac
    shift
done
[ $# -gt 0 ] || usage
[ ${#cpus[@]} -gt 0 ] || cpus=(cortex-a72 cortex-a76 max)

qemu=${QEMU:-qemu-aarch64}
if [ -z "${QEMU_LD_PREFIX:-}" ]; then
    # The board's own libc where it is installed, else the cross compiler's. With both, the latter's loader would find the
    # former's libc, of another build, and threads would never start.
    QEMU_LD_PREFIX=/usr/aarch64-linux-gnu
    [ ! -e /lib/ld-linux-aarch64.so.1 ] || QEMU_LD_PREFIX=/
fi
export QEMU_LD_PREFIX
# Not with grep -q, which would leave QEMU with a broken pipe and the pipe with its failure.
if ! "$qemu" --help | grep -e '^-plugin ' >/dev/null; then
    echo "$qemu: not installed, or built without plugins (see the head of $0)" >&2
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
    "$qemu" -cpu "$cpu" -plugin "$scratch/insn_count.so,out=$scratch/count" "$@" >&2
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
