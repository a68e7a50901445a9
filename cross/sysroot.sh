#!/usr/bin/env bash
# The C library, ALSA and kernel headers of Debian 11, to link against what every board has:
#
#     cross/sysroot.sh arm64|armhf FOLDER
#
# A binary needs the C library it was linked with, or a newer one. Ubuntu 20.04, which is what JetPack 5 is, has glibc 2.31;
# so has Debian 11. apt fetches and verifies the packages, into FOLDER and without touching this machine's.
set -euo pipefail
[ $# = 2 ] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
arch=$1
folder=$(realpath -m "$2")
packages=(libc6 libc6-dev libgcc-s1 linux-libc-dev libasound2 libasound2-dev)
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e $keys ] || { echo "$keys is missing: apt install debian-archive-keyring" >&2; exit 1; }

[ ! -e "$folder/.done" ] || exit 0
rm -rf "$folder"
mkdir -p "$folder/.apt/lists/partial"
apt=(apt-get -qq -o "Dir::Etc::SourceList=$folder/.apt/sources" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$folder/.apt/lists" -o "Dir::State::Status=$folder/.apt/status" -o "Dir::Cache=$folder/.apt"
    -o "APT::Architecture=$arch" -o "APT::Architectures::=$arch" -o APT::Sandbox::User=)
: >"$folder/.apt/status"
# Debian moves old releases from the first to the second.
for mirror in http://deb.debian.org/debian http://archive.debian.org/debian; do
    echo "deb [signed-by=$keys] $mirror bullseye main" >"$folder/.apt/sources"
    "${apt[@]}" update -o APT::Update::Error-Mode=any && found=yes && break
done
[ "${found:-}" = yes ] || { echo "no Debian 11 at deb.debian.org or archive.debian.org" >&2; exit 1; }
(cd "$folder/.apt" && "${apt[@]}" download "${packages[@]}")
for package in "$folder"/.apt/*.deb; do dpkg-deb -x "$package" "$folder"; done
# An absolute link would lead out of the folder, to this machine's library.
find "$folder" -type l -lname '/*' | while read -r link; do
    ln -sfn "$(realpath -m --relative-to "$(dirname "$link")" "$folder$(readlink "$link")")" "$link"
done
rm -rf "$folder/.apt"
touch "$folder/.done"
