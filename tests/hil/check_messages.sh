#!/usr/bin/env bash
# Checks that affectd's source has every message that the bench waits for, which takes a second instead of a bench run:
#
#     tests/hil/check_messages.sh
set -euo pipefail

case "$#:${1:-}" in
0:) ;;
1:-h | 1:--help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" && exit ;;
*)
    echo "$0: unknown argument: $1" >&2
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
cd "$(dirname "$0")"

missing=0
while read -r name text; do
    # Only code counts: a comment does not print the message.
    if ! grep -rhF --include='*.rs' -e "$text" ../../src | grep -v '^ *//' | grep -q '"'; then
        echo "$0: no message in src/ has \"$text\": adapt $name in tests/hil/guest/messages.sh" >&2
        missing=1
    fi
done < <(sed -n "s/^\([a-z_]*\)='\(.*\)'$/\1 \2/p" guest/messages.sh)
exit $missing
