#!/usr/bin/env bash
# Fuzzes the targets one after the other with cargo-fuzz:
#
#     tests/fuzz/run.sh SECONDS [TARGET…]
#     tests/fuzz/run.sh --minimize [TARGET…]
#
# Needs a nightly toolchain, clang and cargo-fuzz (cargo install cargo-fuzz). What is found goes to target/fuzz/corpus, inputs that
# fail to target/fuzz/artifacts. With --minimize, the smallest inputs that reach the same code replace those in tests/fuzz/corpus.
set -euo pipefail
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }
case ${1:-} in
-h | --help) usage && exit ;;
--minimize) ;;
'' | *[!0-9]*) usage >&2 && exit 2 ;;
esac
mode=$1
shift
cd "$(git rev-parse --show-toplevel)"
# The dependencies of the program, not newer ones.
cp Cargo.lock tests/fuzz/
export CARGO_TARGET_DIR=$PWD/target/fuzz
fuzz() { cargo +nightly fuzz "$1" --fuzz-dir tests/fuzz "${@:2}"; }

[ $# -gt 0 ] || mapfile -t targets < <(fuzz list)
[ $# -eq 0 ] || targets=("$@")
fuzz build
failed=()
for target in "${targets[@]}"; do
    found=target/fuzz/corpus/$target kept=tests/fuzz/corpus/$target artifacts=target/fuzz/artifacts/$target/
    mkdir -p "$found" "$artifacts"
    if [ "$mode" = --minimize ]; then
        minimal=$(mktemp -d)
        fuzz run "$target" "$minimal" "$kept" "$found" -- -merge=1 -rss_limit_mb=2048
        rm -r "$kept"
        mv "$minimal" "$kept"
        chmod 755 "$kept"
        continue
    fi
    printf '\n== %s, %s s\n' "$target" "$mode"
    fuzz run "$target" "$found" "$kept" -- "-max_total_time=$mode" -rss_limit_mb=2048 -timeout=10 \
        -print_final_stats=1 "-artifact_prefix=$artifacts" || failed+=("$target")
done
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}" >&2 && exit 1; }
