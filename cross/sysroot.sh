#!/usr/bin/env bash
# Unpacks Debian 11's C library, ALSA library and kernel headers into a folder, for cross/build.sh to link against:
#
#     cross/sysroot.sh arm64|armhf FOLDER
#
# A program runs with the C library it was linked against, or with a newer one. Debian 11 has glibc 2.31. Ubuntu 20.04, the base
# of JetPack 5, has the same version. apt downloads and verifies the packages; it does not change the host's packages. If the
# folder is already complete, the script does nothing.
set -euo pipefail

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }

case "$#:${1:-}" in
1:-h | 1:--help) usage && exit ;;
2:arm64 | 2:armhf) ;;
*)
    echo "$0: expected an architecture and a folder" >&2
    usage >&2
    exit 2
    ;;
esac
arch=$1
folder=$(realpath -m "$2")
packages=(libc6 libc6-dev libgcc-s1 linux-libc-dev libasound2 libasound2-dev)
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e $keys ] || { echo "$0: $keys is missing: install the package debian-archive-keyring" >&2; exit 1; }

[ ! -e "$folder/.done" ] || exit 0
rm -rf "$folder"
mkdir -p "$folder/.apt/lists/partial"
apt=(apt-get -qq -o "Dir::Etc::SourceList=$folder/.apt/sources" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$folder/.apt/lists" -o "Dir::State::Status=$folder/.apt/status" -o "Dir::Cache=$folder/.apt"
    -o "APT::Architecture=$arch" -o "APT::Architectures::=$arch" -o APT::Sandbox::User=)
: >"$folder/.apt/status"
# When a release is old, Debian moves it from the first server to the second.
for mirror in http://deb.debian.org/debian http://archive.debian.org/debian; do
    echo "deb [signed-by=$keys] $mirror bullseye main" >"$folder/.apt/sources"
    "${apt[@]}" update -o APT::Update::Error-Mode=any && found=yes && break
done
[ "${found:-}" = yes ] || { echo "$0: no Debian 11 at deb.debian.org or archive.debian.org: is the network up?" >&2; exit 1; }
(cd "$folder/.apt" && "${apt[@]}" download "${packages[@]}")
for package in "$folder"/.apt/*.deb; do dpkg-deb -x "$package" "$folder"; done
# An absolute link would point to the host's library.
find "$folder" -type l -lname '/*' | while read -r link; do
    ln -sfn "$(realpath -m --relative-to "$(dirname "$link")" "$folder$(readlink "$link")")" "$link"
done
rm -rf "$folder/.apt"
touch "$folder/.done"
