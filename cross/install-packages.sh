#!/usr/bin/env bash
# Installs the Debian packages that affectd needs and this machine lacks:
#
#     cross/install-packages.sh build            packages for building affectd
#     cross/install-packages.sh tests            packages for building and testing it
#     cross/install-packages.sh PACKAGE…         the named packages; `build` and `tests` may be among them
#
# For Debian, Ubuntu and Raspberry Pi OS. It runs apt-get as root, or through sudo, and only if something is missing. On other
# systems it prints what to install.
set -euo pipefail

usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
}

build=(build-essential pkg-config libasound2-dev libclang-dev)
tests=(mosquitto mosquitto-clients openssl python3 ffmpeg signify-openbsd)

[ $# -gt 0 ] || { usage >&2 && exit 2; }
packages=()
for argument; do
    case $argument in
    -h | --help) usage && exit 0 ;;
    '' | -*) usage >&2 && exit 2 ;;
    build) packages+=("${build[@]}") ;;
    tests) packages+=("${build[@]}" "${tests[@]}") ;;
    *) packages+=("$argument") ;;
    esac
done

if ! command -v apt-get >/dev/null; then
    cat >&2 <<'TEXT'
cross/install-packages.sh: this system has no apt-get. Install these with its own package manager, then run cargo:
    a C compiler, pkg-config, the ALSA headers and libclang
        Fedora: gcc pkgconf-pkg-config alsa-lib-devel clang-devel
        Arch: base-devel alsa-lib clang
        openSUSE: gcc pkgconf-pkg-config alsa-devel clang-devel
    for the tests: mosquitto with its clients, openssl, python3, ffmpeg and OpenBSD's signify
TEXT
    exit 1
fi

mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
missing=()
for package in "${packages[@]}"; do
    # dpkg-query also lists packages of other architectures, such as libasound2-dev:arm64. They do not count here.
    case $package in
    *:*) architectures=${package#*:} ;;
    *) architectures="$(dpkg --print-architecture)|all" ;;
    esac
    dpkg-query -W -f '${Architecture} ${Status}\n' "$package" 2>/dev/null |
        grep -qE "^($architectures) install ok installed$" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "cross/install-packages.sh: missing ${missing[*]}: install them as root, since this system has no sudo" >&2
        exit 1
    fi
    as_root=(sudo)
fi
echo "cross/install-packages.sh: installing ${missing[*]}" >&2
# A fresh system has no package lists, and old lists name versions that the mirrors no longer have.
"${as_root[@]}" apt-get update -qq
# env sets the variable because sudo passes none on. --no-remove: with -y alone, apt-get would remove a conflicting package
# without asking.
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --no-remove "${missing[@]}" >&2
