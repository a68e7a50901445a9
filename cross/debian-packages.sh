# Checks for the Debian packages that a script needs. Scripts source this file after they have read their arguments.
# shellcheck shell=bash

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    echo "$0: apt-get and dpkg are missing: run this on Debian or Ubuntu, for example in a container" >&2
    exit 1
fi

# Runs a command as root: directly for root, otherwise through sudo.
as_root() { # COMMAND…
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "$0: root is needed, and sudo is not installed: run this command as root: $*" >&2
        return 1
    fi
}

# Prints those of the packages that are not installed, each on a line. PACKAGE:ARCHITECTURE is for another architecture, and
# does not count as PACKAGE.
missing_packages() { # PACKAGE…
    local package architectures
    for package; do
        case $package in
        *:*) architectures=${package#*:} ;;
        *) architectures="$(dpkg --print-architecture)|all" ;;
        esac
        dpkg-query -W -f '${Architecture} ${Status}\n' "$package" 2>/dev/null |
            grep -qE "^($architectures) install ok installed$" || echo "$package"
    done
}

# Installs packages that are missing, and prints what it installs and why.
install_packages() { # REASON PACKAGE…
    echo "$0: these packages are missing for $1: ${*:2}" >&2
    "$(dirname "${BASH_SOURCE[0]}")/install-packages.sh" "${@:2}"
}

# Stops with the list of missing packages, or installs them if the user passed --install.
require_packages() { # yes|no REASON PACKAGE…
    local install=$1 reason=$2 missing
    shift 2
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$install" = no ]; then
        echo "$0: packages are missing for $reason: ${missing[*]}: run it with --install, or install them yourself" >&2
        return 1
    fi
    install_packages "$reason" "${missing[@]}"
}

# Prints the time of the newest commit, in seconds since 1970. With it, one commit always gives the same bytes.
commit_time() {
    if [ -n "${SOURCE_DATE_EPOCH:-}" ]; then
        echo "$SOURCE_DATE_EPOCH"
    elif ! git log -1 --format=%ct; then
        echo "$0: the commit's time is unknown: install git and use a clone, or set SOURCE_DATE_EPOCH to seconds since 1970" >&2
        return 1
    fi
}

# Prints the architecture of the program on standard input, from the header of its ELF file.
program_architecture() {
    local header
    header=$(od -An -v -tx1 -N20 | tr -d ' \n')
    # Otherwise, whatever writes the program would fail.
    cat >/dev/null
    case $header in
    7f454c46*3e00) echo amd64 ;;
    7f454c46*b700) echo arm64 ;;
    7f454c46*2800) echo armhf ;;
    7f454c46*) echo "another architecture" ;;
    *) echo "no machine" ;;
    esac
}

# Sets CARGO_ENCODED_RUSTFLAGS to RUSTFLAGS and flags that keep the names of this machine's folders out of the program, so that builds
# in different folders are equal.
hide_build_folders() {
    local separator=$'\x1f' flags=()
    read -r -a flags <<<"${RUSTFLAGS:-}"
    flags+=("--remap-path-prefix=$PWD=/usr/src/affectd" "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src=/usr/src/crates")
    printf -v CARGO_ENCODED_RUSTFLAGS "%s$separator" "${flags[@]}"
    export CARGO_ENCODED_RUSTFLAGS=${CARGO_ENCODED_RUSTFLAGS%"$separator"}
}
