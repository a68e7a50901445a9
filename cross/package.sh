#!/usr/bin/env bash
# Makes the Debian package of affectd, target/affectd_VERSION-1_ARCH.deb:
#
#     cross/package.sh [amd64|arm64|armhf] [--binary FILE] [--output DIR]
#
# The architecture is this machine's unless given. Without --binary it builds one, for size, which takes some minutes.
set -euo pipefail

usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

arch=$(dpkg --print-architecture)
binary=
output=target
while [ $# -gt 0 ]; do
    case $1 in
    amd64 | arm64 | armhf) arch=$1 ;;
    --binary) binary=$(realpath "$2") && shift ;;
    --output) output=$(realpath "$2") && shift ;;
    *) usage ;;
    esac
    shift
done
cd "$(dirname "$0")/.."

case $arch in
amd64) triple=x86_64-unknown-linux-gnu gnu=x86_64-linux-gnu ;;
arm64) triple=aarch64-unknown-linux-gnu gnu=aarch64-linux-gnu ;;
armhf) triple=armv7-unknown-linux-gnueabihf gnu=arm-linux-gnueabihf ;;
esac

if [ -z "$binary" ]; then
    if [ "$arch" = "$(dpkg --print-architecture)" ]; then
        cargo build --profile dist --locked
        binary=target/dist/affectd
    else
        cross/build.sh "${triple%%-*}" --dist
        binary=target/$triple/dist/affectd
    fi
fi

# The package that brings a shared library, with the version that the binary's symbols ask of it.
library_package() {
    case $1 in
    libc.so.6 | libm.so.6 | libpthread.so.0 | libdl.so.2 | librt.so.1 | libutil.so.1 | ld-linux-*)
        echo "libc6 (>= $("$gnu-objdump" -T "$binary" | grep -o 'GLIBC_[0-9.]*' | cut -d_ -f2 | sort -V | tail -n 1))"
        ;;
    libgcc_s.so.1) echo "libgcc-s1" ;;
    libasound.so.2) echo "libasound2 (>= 1.2) | libasound2t64" ;;
    *)
        echo "cross/package.sh: $binary needs $1, and no package is known for that: add it to library_package" >&2
        return 1
        ;;
    esac
}
depends=
for library in $("$gnu-objdump" -p "$binary" | awk '/NEEDED/ { print $2 }'); do
    depends+="$(library_package "$library")"$'\n'
done
depends=$(sort -u <<<"$depends" | sed '/^$/d' | paste -sd, | sed 's/,/, /g')

# The same commit gives the same package. (Not in the environment of cargo, which would then build everything again.)
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
maintainer="the affectd authors <affectd@users.noreply.github.com>"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
umask 022
chmod 755 "$root"
doc=$root/usr/share/doc/affectd

install -D "$binary" "$root/usr/bin/affectd"
"$gnu-strip" --strip-unneeded "$root/usr/bin/affectd"
install -D -m 644 -t "$root/usr/share/affectd/models" models/*.int8.onnx models/manifest.json models/demo.mkv
install -D -m 644 cross/package/affectd.toml "$root/etc/affectd/affectd.toml"
install -D -m 644 cross/package/affectd.service "$root/usr/lib/systemd/system/affectd.service"
install -D -m 644 cross/package/affectd.sysusers "$root/usr/lib/sysusers.d/affectd.conf"
install -D cross/package/affectd-generator "$root/usr/lib/systemd/system-generators/affectd-generator"

# Man pages and completions come from the command line's own definition, built for this machine.
cargo run --quiet --release --locked --example pages -- "$root/pages"
install -D -m 644 -t "$root/usr/share/man/man1" "$root"/pages/*.1
gzip -9n "$root"/usr/share/man/man1/*.1
install -D -m 644 "$root/pages/affectd.bash" "$root/usr/share/bash-completion/completions/affectd"
install -D -m 644 -t "$root/usr/share/zsh/vendor-completions" "$root/pages/_affectd"
install -D -m 644 -t "$root/usr/share/fish/vendor_completions.d" "$root/pages/affectd.fish"
rm -r "$root/pages"

install -D -m 644 models/README.md "$doc/models.md"
install -D -m 644 README.md "$doc/README.md"
install -D -m 644 CHANGELOG.md "$doc/changelog"
cat >"$doc/changelog.Debian" <<CHANGELOG
affectd ($version-1) unstable; urgency=medium

  * See changelog.gz.

 -- $maintainer  $(date -R -d "@$epoch")
CHANGELOG
gzip -9n "$doc"/changelog*
{
    cat cross/package/copyright
    sed 's/^$/./; s/^/ /' LICENSE-MIT
} >"$doc/copyright"

mkdir -p "$root/usr/share/lintian/overrides"
cat >"$root/usr/share/lintian/overrides/affectd" <<'OVERRIDES'
# The package is not in Debian, so that no request for it waits there.
affectd: initial-upload-closes-no-bugs
OVERRIDES

mkdir "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<CONTROL
Package: affectd
Version: $version-1
Architecture: $arch
Maintainer: $maintainer
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
Depends: $depends, init-system-helpers (>= 1.54), passwd, systemd | systemd-standalone-sysusers
Suggests: ffmpeg
Section: science
Priority: optional
Description: valence and arousal from a camera and a microphone
 A headless daemon for small boards. It watches one camera and one microphone
 and estimates how the person in front of them seems to feel, as two numbers,
 which go out over a serial line, MQTT or standard output. No picture and no
 sound leaves the board.
 .
 The models are for research only.
CONTROL
echo /etc/affectd/affectd.toml >"$root/DEBIAN/conffiles"
for script in postinst prerm postrm; do
    install "cross/package/$script" "$root/DEBIAN/$script"
done
(cd "$root" && find usr etc -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"

mkdir -p "$output"
SOURCE_DATE_EPOCH=$epoch dpkg-deb --root-owner-group -Zxz --build "$root" "$output/affectd_$version-1_$arch.deb"
