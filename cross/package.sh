#!/usr/bin/env bash
# Makes the Debian package of affectd, target/affectd_VERSION-1_ARCH.deb:
#
#     cross/package.sh [amd64|arm64|armhf] [--binary FILE] [--output FOLDER] [--install]
#
#     amd64, arm64, armhf  the architecture; the host's is the default
#     --binary FILE        packages this program; without it, the script builds one for size, which takes several minutes
#     --output FOLDER      where the package goes; the default is target
#     --install            installs missing packages; without it, the script only lists them
#
# The package names its maintainer after DEBFULLNAME and DEBEMAIL, as Debian's own tools do.
set -euo pipefail

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }
usage_error() {
    echo "$0: $1" >&2
    usage >&2
    exit 2
}

arch=
binary=
output=target
install=no
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit ;;
    amd64 | arm64 | armhf) arch=$1 ;;
    --binary | --output)
        [ -n "${2:-}" ] || usage_error "$1 needs a value"
        if [ "$1" = --binary ]; then binary=$(realpath -m "$2"); else output=$(realpath -m "$2"); fi
        shift
        ;;
    --install) install=yes ;;
    *) usage_error "unknown argument: $1" ;;
    esac
    shift
done
[ -z "$binary" ] || [ -f "$binary" ] || usage_error "$binary: no such file"
cd "$(dirname "$0")/.."
# shellcheck source=cross/debian-packages.sh
. cross/debian-packages.sh
host=$(dpkg --print-architecture)
arch=${arch:-$host}

case $arch in
amd64) triple=x86_64-unknown-linux-gnu gnu=x86_64-linux-gnu ;;
arm64) triple=aarch64-unknown-linux-gnu gnu=aarch64-linux-gnu ;;
armhf) triple=armv7-unknown-linux-gnueabihf gnu=arm-linux-gnueabihf ;;
*)
    echo "$0: this machine's architecture is $arch: name the package's: amd64, arm64 or armhf" >&2
    exit 1
    ;;
esac

# A package with a wrong program would install, and then not start.
if [ -n "$binary" ]; then
    found=$(program_architecture <"$binary")
    if [ "$found" != "$arch" ]; then
        echo "$0: $binary is a program for $found, not for $arch: name one that cross/build.sh ${triple%%-*} made" >&2
        exit 1
    fi
fi

# The host compiles the man pages' program, and the program too if the package is for the host.
packages=("binutils-${gnu//_/-}" build-essential pkg-config libasound2-dev libclang-dev)
[ -n "${SOURCE_DATE_EPOCH:-}" ] || packages+=(git)
require_packages $install "the package" "${packages[@]}"
# Not exported: cargo would rebuild everything for every commit.
epoch=$(commit_time)

if [ -z "$binary" ]; then
    if [ "$arch" = "$host" ]; then
        # In a subshell: with other flags, cargo would build the host's programs below again.
        (hide_build_folders && cargo build --profile dist --locked)
        binary=target/dist/affectd
    else
        options=(--dist)
        [ $install = no ] || options+=(--install)
        cross/build.sh "${triple%%-*}" "${options[@]}"
        binary=target/$triple/dist/affectd
    fi
fi

# Prints the package of a shared library, with the version that the program's symbols need.
library_package() {
    case $1 in
    libc.so.6 | libm.so.6 | libpthread.so.0 | libdl.so.2 | librt.so.1 | libutil.so.1 | ld-linux-*)
        echo "libc6 (>= $("$gnu-objdump" -T "$binary" | grep -o 'GLIBC_[0-9.]*' | cut -d_ -f2 | sort -V | tail -n 1))"
        ;;
    libgcc_s.so.1) echo "libgcc-s1" ;;
    libasound.so.2) echo "libasound2 (>= 1.2) | libasound2t64" ;;
    *)
        echo "$0: $binary needs $1, whose package is unknown: add it to library_package in this script" >&2
        return 1
        ;;
    esac
}
depends=
for library in $("$gnu-objdump" -p "$binary" | awk '/NEEDED/ { print $2 }'); do
    depends+="$(library_package "$library")"$'\n'
done
depends=$(sort -u <<<"$depends" | sed '/^$/d' | paste -sd, | sed 's/,/, /g')

# The project has no mail address. A distributor sets one in DEBEMAIL.
maintainer="${DEBFULLNAME:-the affectd authors} <${DEBEMAIL:-nobody@example.invalid}>"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
umask 022
chmod 755 "$root"
doc=$root/usr/share/doc/affectd

install -D "$binary" "$root/usr/bin/affectd"
"$gnu-strip" --strip-unneeded "$root/usr/bin/affectd"
install -D -m 644 -t "$root/usr/share/affectd" models/demo.mkv
install -D -m 644 cross/package/affectd.toml "$root/etc/affectd/affectd.toml"
install -D -m 644 cross/package/affectd.service "$root/usr/lib/systemd/system/affectd.service"
install -D -m 644 cross/package/affectd.sysusers "$root/usr/lib/sysusers.d/affectd.conf"
install -D cross/package/affectd-generator "$root/usr/lib/systemd/system-generators/affectd-generator"

# Man pages come from the definition of the command line, by a program for the host. Completions come from affectd itself,
# built for the host.
cargo run --quiet --release --locked --example pages -- "$root/pages"
install -D -m 644 -t "$root/usr/share/man/man1" "$root"/pages/*.1
gzip -9n "$root"/usr/share/man/man1/*.1
rm -r "$root/pages"
completions() {
    mkdir -p "$(dirname "$2")"
    cargo run --quiet --release --locked --bin affectd -- completions "$1" >"$2"
    chmod 644 "$2"
}
completions bash "$root/usr/share/bash-completion/completions/affectd"
completions zsh "$root/usr/share/zsh/vendor-completions/_affectd"
completions fish "$root/usr/share/fish/vendor_completions.d/affectd.fish"

mkdir -p "$doc"
cargo run --quiet --release --locked --example sbom -- "$triple" "$epoch" >"$doc/sbom.cdx.json"

# In the folders of the repository, so that the links between these pages work.
pages=({README,SECURITY,CONTRIBUTING}.md models/{README,EXPERIMENTS,PORTABILITY}.md models/training/{README,DATA}.md
    cross/{README,boards,messages,recipes,status,wire}.md cross/python/README.md benches/README.md benches/mqtt/README.md tests/{hil,ha}/README.md src/model/int8/README.md)
for file in "${pages[@]}" models/*.svg cross/{monitor,uart}.svg cross/status.png cross/telegraf.conf cross/schema/*.json \
    cross/readers/*.{c,h} cross/readers/affectd_lamp/* cross/python/{pyproject.toml,affectd_reader/*.py} cross/{grafana,nodered}.json \
    cross/prometheus.yml cross/ros2_node.py; do
    install -D -m 644 "$file" "$doc/$file"
done
ln -s cross/readers "$doc/examples"
install -D -m 644 CHANGELOG.md "$doc/changelog"
cat >"$doc/changelog.Debian" <<CHANGELOG
affectd ($version-1) unstable; urgency=medium

  * See changelog.gz.

 -- $maintainer  $(date -R -d "@$epoch")
CHANGELOG
gzip -9n "$doc"/changelog*

# A page that leads to a file that is not installed is a dead end.
for page in "${pages[@]}"; do
    { grep -o '](\([^)#:]*\)[)#]' "$page" || true; } | sed 's/^](//; s/[)#]$//' | while read -r link; do
        [ -z "$link" ] || [ "$link" = CHANGELOG.md ] || [ -e "$doc/$(dirname "$page")/$link" ] || echo "$page: $link"
    done
done >"$root/dead-ends"
{ zgrep -oh '/usr/share/[a-z/]*[.a-z]*[a-z]' "$root"/usr/share/man/man1/*.gz || true; } | sort -u | while read -r file; do
    [ -e "$root$file" ] || echo "the man pages: $file"
done >>"$root/dead-ends"
if [ -s "$root/dead-ends" ]; then
    echo "$0: these pages name files that are not in the package; add the files above: $(paste -sd ' ' "$root/dead-ends")" >&2
    exit 1
fi
rm "$root/dead-ends"
{
    cat cross/package/copyright
    sed 's/^$/./; s/^/ /' LICENSE-MIT
} >"$doc/copyright"

mkdir -p "$root/usr/share/lintian/overrides"
cat >"$root/usr/share/lintian/overrides/affectd" <<'OVERRIDES'
# A new package in Debian closes a bug report that requests it. This package is not in Debian, so there is no such report.
affectd: initial-upload-closes-no-bugs
OVERRIDES

# As dpkg-gencontrol counts, because the blocks of a file system depend on the machine: files in KiB, and one for everything else.
installed_kib=$(find "$root" -printf '%y %s\n' | awk '{ kib += $1 == "f" ? int(($2 + 1023) / 1024) : 1 } END { print kib }')
mkdir "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<CONTROL
Package: affectd
Version: $version-1
Architecture: $arch
Maintainer: $maintainer
Installed-Size: $installed_kib
Depends: $depends, init-system-helpers (>= 1.54), passwd, systemd | systemd-standalone-sysusers
Suggests: ffmpeg
Section: science
Priority: optional
Description: valence and arousal from a camera and a microphone
 A headless daemon for small boards. It reads one camera and one microphone
 and estimates how the person in front of them appears to others, as two
 numbers. It sends them over a serial line, MQTT, a file or standard output.
 Images and sound stay on the board.
 .
 The models are for research only.
CONTROL
echo /etc/affectd/affectd.toml >"$root/DEBIAN/conffiles"
for script in postinst prerm postrm; do
    install "cross/package/$script" "$root/DEBIAN/$script"
done
(cd "$root" && find usr etc -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"

mkdir -p "$output"
# Level 8 takes 32 MiB to unpack, as much as the package holds, and saves 3 % against the default.
SOURCE_DATE_EPOCH=$epoch dpkg-deb --root-owner-group -Zxz -z8 --build "$root" "$output/affectd_$version-1_$arch.deb"
