#!/bin/sh
# Installs the VPNs that `adit-bench peers` compares Adit with, beside the system, and says what it did.
#
#   bench/install-peers.sh [DIR]
#
# DIR is ~/.cache/adit-peers unless named (or $ADIT_PEERS, or below $XDG_CACHE_HOME); programs go to DIR/bin, where
# `adit-bench peers` looks. Run it again to get what is missing; what is there stays. PEERS_FORCE=1 installs anew.
#
# - wireguard-go and nebula: Debian sid's packages, unpacked and not installed, as they need only the C library. They come
#   from the mirror this system's apt is configured for.
# - boringtun-cli, gotatun and quincy: built from crates.io, one job at the lowest priority.
# - openvpn, ocserv, openconnect, iperf3: this system's own packages, where this runs as root.
set -eu

default=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/adit-peers
dir=${1:-${ADIT_PEERS:-$default}}
mkdir -p "$dir/bin"
dir=$(cd "$dir" && pwd)
failed=

say() { printf '%s\n' "$*"; }

# A part that cannot be had is no reason to go without the others.
without() {
    say "$1: not installed: $2"
    failed="$failed $1"
}

is_there() { [ -z "${PEERS_FORCE:-}" ] && [ -x "$dir/bin/$1" ]; }

# apt-get with lists and packages of its own, so that this system's stay as they are.
sid() {
    tool=$1
    shift
    "$tool" -q \
        -o "Dir::Etc::sourcelist=$work/sid.list" -o Dir::Etc::sourceparts=- \
        -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" \
        -o APT::Sandbox::User= "$@"
}

# The mirror of this system's main Debian archive, and the key its packages are signed with.
mirror() {
    # shellcheck disable=SC2016  # apt expands these
    apt-get indextargets --format '$(SITE) $(LABEL) $(RELEASE)' 'Created-By: Packages' |
        awk '$2 == "Debian" && $3 !~ /-security/ { print $1; exit }'
}

unpack_from_sid() {
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        return 1
    fi
    site=$(mirror)
    [ -n "$site" ] || return 1
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/root"
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    printf 'deb [signed-by=%s] %s sid main\n' "$keyring" "$site" >"$work/sid.list"
    sid apt-get update >"$work/log" 2>&1 || { cat "$work/log"; return 1; }
    (cd "$work" && sid apt-get download "$@" >"$work/log" 2>&1) || { cat "$work/log"; return 1; }
    for package in "$work"/*.deb; do
        dpkg-deb -x "$package" "$work/root"
        # shellcheck disable=SC2016  # dpkg-deb expands these
        say "unpacked $(dpkg-deb -W --showformat='${Package} ${Version}' "$package")"
    done
}

from_sid() {
    if is_there wireguard-go && is_there nebula; then
        say "wireguard-go, nebula: already there"
        return
    fi
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT INT TERM
    if unpack_from_sid wireguard-go nebula; then
        for program in wireguard-go nebula nebula-cert; do
            install -m 755 "$work/root/usr/bin/$program" "$dir/bin/$program"
        done
    else
        without "wireguard-go, nebula" "Debian sid's packages are not to be had"
    fi
}

# Builds the package $2 for its program $1.
from_crates() {
    program=$1
    package=$2
    if is_there "$program"; then
        say "$program: already there"
        return
    fi
    if ! command -v cargo >/dev/null; then
        without "$program" "there is no cargo"
        return
    fi
    # Outside any source tree, whose configuration and lock file are not meant.
    if (cd "$dir" && CARGO_TARGET_DIR="$dir/build" nice -n 19 cargo install --locked --quiet --force -j 1 --root "$dir" "$package"); then
        say "built $program"
    else
        without "$program" "its build failed"
    fi
}

# A package may start a VPN server at once; here only its program is wanted.
stop_services() {
    command -v systemctl >/dev/null || return 0
    for package in $1; do
        case $package in
            openvpn | ocserv) systemctl disable --now --quiet "$package.service" 2>/dev/null || true ;;
        esac
    done
}

from_this_system() {
    missing=
    for package in openvpn ocserv openconnect iperf3; do
        if ! command -v "$package" >/dev/null && [ ! -x "/usr/sbin/$package" ]; then
            missing="$missing $package"
        fi
    done
    if [ -z "$missing" ]; then
        say "openvpn, ocserv, openconnect, iperf3: already there"
    elif [ "$(id -u)" -ne 0 ]; then
        without "${missing# }" "needs root: apt-get install$missing"
    else
        # shellcheck disable=SC2086  # one word for each package
        if DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >"$dir/apt.log" 2>&1; then
            say "installed$missing"
            stop_services "$missing"
        else
            without "${missing# }" "apt-get failed, see $dir/apt.log"
        fi
    fi
}

from_sid
from_this_system
for program in boringtun-cli quincy-server quincy-client; do
    from_crates "$program" "$program"
done
from_crates gotatun gotatun-cli
say "programs are in $dir/bin; use them with: adit-bench peers --peers-dir $dir"
[ -z "$failed" ] || exit 1
