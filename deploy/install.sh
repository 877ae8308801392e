#!/bin/sh
# Installs the Adit gateway and client on a host with systemd, or removes them. See --help.
set -eu
umask 022

usage() {
    cat <<'TXT'
Installs the Adit gateway and client on a host with systemd, or removes them.

Usage: install.sh [--server] [--client] [--from DIR | --build] [--prefix DIR] [--root DIR]
       install.sh --remove [--purge] [--server] [--client] [--prefix DIR] [--root DIR]

  --server       the gateway only
  --client       the client only (both are the default)
  --from DIR     take the programs from DIR
  --build        build the programs with cargo, even if target/release has them
  --prefix DIR   where programs go [default: /usr/local]
  --root DIR     install below DIR and leave the running system alone; needs no root
  --remove       stop the services and all clients, undo their changes to this host, and remove what was installed; keep
                 configuration and state
  --purge        with --remove: also delete /etc/adit, the state, and the user adit; refused while a journal there
                 holds changes to undo

Installing again replaces the old version. Exit codes: 0 done, 1 failed, 2 wrong usage, 6 root needed, 127 no systemd.
TXT
}

say() { printf '%s\n' "$*"; }

# fail CODE WHAT NEXT
fail() {
    printf '%s: %s\n  next: %s\n' "${0##*/}" "$2" "$3" >&2
    exit "$1"
}

repository=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
deploy=$repository/deploy
prefix=/usr/local
root=
from=
build=no
remove=no
purge=no
server=no
client=no

parse() {
    while [ $# -gt 0 ]; do
        case $1 in
            --server) server=yes ;;
            --client) client=yes ;;
            --build) build=yes ;;
            --remove) remove=yes ;;
            --purge) purge=yes ;;
            --from | --prefix | --root)
                [ -n "${2-}" ] || fail 2 "$1 needs a directory" "see ${0##*/} --help"
                case $1 in
                    --from) from=$2 ;;
                    --prefix) prefix=$2 ;;
                    --root) root=$2 ;;
                esac
                shift
                ;;
            -h | --help)
                usage
                exit 0
                ;;
            *) fail 2 "unknown option $1" "see ${0##*/} --help" ;;
        esac
        shift
    done
    [ "$server$client" != nono ] || { server=yes && client=yes; }
    prefix=${prefix%/}
    case $prefix in
        /*[!A-Za-z0-9_./-]* | /*..*) fail 2 "--prefix $prefix is not a plain path" "use letters, digits and - _ . / only" ;;
        /*) ;;
        *) fail 2 "--prefix must be an absolute path" "see ${0##*/} --help" ;;
    esac
    [ "$purge" = no ] || [ "$remove" = yes ] || fail 2 "--purge goes with --remove" "see ${0##*/} --help"
    [ "$build" = no ] || [ -z "$from" ] || fail 2 "--build and --from exclude each other" "see ${0##*/} --help"
    if [ -n "$root" ]; then
        mkdir -p -- "$root"
        root=$(CDPATH='' cd -- "$root" && pwd)
        [ "$root" != / ] || root=
    fi
}

# Whether the running system itself is meant.
live() { [ -z "$root" ]; }

require_host() {
    live || return 0
    [ "$(id -u)" -eq 0 ] || fail 6 "root is needed to change this system" "run it with sudo, or install into a tree with --root DIR"
    [ -d /run/systemd/system ] ||
        fail 127 "this system does not run systemd" \
            "copy the programs to a directory of your choice and let your service manager run \`adit-server run\`, or use --root DIR"
}

# The programs wanted, one a line.
programs() {
    [ "$server" = no ] || say adit-server
    [ "$client" = no ] || say adit-client
}

have_programs() {
    for program in $(programs); do
        [ -f "$1/$program" ] || return 1
    done
}

build_programs() {
    command -v cargo >/dev/null 2>&1 ||
        fail 1 "there are no programs in $repository/target/release, and no cargo to build them" \
            "build as your own user with \`cargo build --release --locked -p adit-server -p adit-client\`, or name their directory with --from"
    say "Building with cargo (some minutes)"
    packages=
    for program in $(programs); do
        packages="$packages -p $program"
    done
    # shellcheck disable=SC2086 # one word a package
    (cd "$repository" && CARGO_TARGET_DIR=target cargo build --release --locked $packages) ||
        fail 1 "the build failed" "see the messages above"
}

find_programs() {
    if [ -n "$from" ]; then
        have_programs "$from" || fail 2 "$from lacks one of: $(programs | tr '\n' ' ')" "name the directory that holds them with --from"
        return
    fi
    from=$repository/target/release
    if [ "$build" = yes ] || ! have_programs "$from"; then
        build_programs
    fi
}

# put MODE SOURCE TARGET: installs one file, never leaving half of it, and says so.
put() {
    target=$root$3
    mkdir -p -- "$(dirname -- "$target")"
    cp -- "$2" "$target.new"
    chmod "$1" "$target.new"
    [ "$(id -u)" -ne 0 ] || chown 0:0 "$target.new"
    mv -f -- "$target.new" "$target"
    say "  $target"
}

# put_unit NAME: a unit, with the prefix in place of the default one.
put_unit() {
    unit=$(mktemp)
    sed "s|/usr/local/bin/|$prefix/bin/|g" "$deploy/systemd/$1" >"$unit"
    put 644 "$unit" "/etc/systemd/system/$1"
    rm -f -- "$unit"
}

install_all() {
    require_host
    find_programs
    say "Installed:"
    for program in $(programs); do
        put 755 "$from/$program" "$prefix/bin/$program"
    done
    if [ "$server" = yes ]; then
        put_unit adit-server.service
        put 644 "$deploy/sysusers.d/adit.conf" /etc/sysusers.d/adit.conf
        put 644 "$deploy/tmpfiles.d/adit.conf" /etc/tmpfiles.d/adit.conf
        put 644 "$deploy/server.toml" "$prefix/share/doc/adit/server.toml"
        put 644 "$deploy/policy.toml" "$prefix/share/doc/adit/policy.toml"
    fi
    [ "$client" = no ] || put_unit adit-client@.service
    [ "$client" = no ] || put_unit adit-killswitch@.service
    for licence in LICENSE-MIT LICENSE-APACHE; do
        put 644 "$repository/$licence" "$prefix/share/doc/adit/$licence"
    done
    put_neighbours
    if live; then
        [ "$server" = no ] || systemd-sysusers adit.conf
        [ "$server" = no ] || systemd-tmpfiles --create adit.conf
        systemctl daemon-reload
        tell_neighbours
    fi
    next_steps
}

# Other programs that configure networks, and what tells them to leave Adit's devices, rules and routes alone:
# SOURCE TARGET, one a line. They go to directories that need not exist, and are read when such a program starts.
neighbours() {
    say networkd/10-adit.network /usr/lib/systemd/network/10-adit.network
    say networkd/adit.conf /usr/lib/systemd/networkd.conf.d/adit.conf
    say NetworkManager/10-adit.conf /usr/lib/NetworkManager/conf.d/10-adit.conf
}

put_neighbours() {
    neighbours | while read -r source target; do
        put 644 "$deploy/$source" "$target"
    done
}

# Has those programs read what was installed or removed, if they run. Neither takes a link down for that.
tell_neighbours() {
    ! running systemd-networkd.service || systemctl restart systemd-networkd.service || say "  restart systemd-networkd yourself"
    ! running NetworkManager.service || systemctl reload NetworkManager.service || say "  reload NetworkManager yourself"
}

drop_neighbours() {
    neighbours | while read -r _ target; do
        drop "$target"
    done
}

running() { live && systemctl --quiet is-active "$1"; }

next_steps() {
    say "Next:"
    if [ "$server" = yes ]; then
        if running adit-server.service; then
            say "  systemctl restart adit-server         # the old version still runs; clients come back by themselves"
        else
            say "  adit-server init --public HOST        # keys, address pools, /etc/adit/server.toml"
            say "  systemctl enable --now adit-server"
            say "  adit-server invite NAME               # a link for one device"
        fi
    fi
    if [ "$client" = yes ]; then
        say "  adit-client join -                    # on the device; paste the link, then Enter and Ctrl-D"
        say "  systemctl enable --now adit-client@NAME, or adit-client up NAME"
    fi
}

# drop PATH: removes a file that was installed, and says so.
drop() {
    [ -e "$root$1" ] || return 0
    rm -f -- "$root$1"
    say "  $root$1"
}

# prune PATH: removes a directory that is empty now; in a tree of its own, the empty ones above it too.
prune() {
    directory=$1
    while [ "$directory" != / ]; do
        [ ! -d "$root$directory" ] || rmdir -- "$root$directory" 2>/dev/null || return 0
        live && return 0
        directory=$(dirname -- "$directory")
    done
}

stop_services() {
    live || return 0
    [ "$server" = no ] || [ ! -e /etc/systemd/system/adit-server.service ] || systemctl --quiet disable --now adit-server.service
    if [ "$client" = yes ]; then
        systemctl stop 'adit-client@*.service'
        systemctl --quiet disable adit-client@.service adit-killswitch@.service 2>/dev/null || true
    fi
}

# undo WHAT COMMAND...: runs a command of ours that undoes something, and stops here if it cannot.
undo() {
    what=$1
    shift
    "$@" || fail 1 "$what could not be undone, so nothing was removed" "mend what is said above and remove again"
}

# Ends clients that run without systemd, and undoes what crashed ones and a crashed gateway left on this host.
undo_host_changes() {
    live || return 0
    adit_client=$prefix/bin/adit-client
    if [ "$client" = yes ] && [ -x "$adit_client" ]; then
        for socket in /run/adit-client/client-*.sock; do
            [ -S "$socket" ] || continue
            profile=${socket##*/client-}
            profile=${profile%.sock}
            undo "the connection of profile $profile" "$adit_client" down "$profile"
        done
        undo "what a crashed client left on this host" "$adit_client" cleanup
    fi
    if [ "$server" = yes ] && [ -x "$prefix/bin/adit-server" ] && gateway_may_have_changes; then
        undo "what a crashed gateway left on this host" "$prefix/bin/adit-server" cleanup
    fi
}

# Whether a gateway's journal has content, or lies where only its configuration says.
gateway_may_have_changes() {
    [ -s /var/lib/adit/host.journal ] || grep -qs '^ *state_dir' /etc/adit/server.toml
}

# The journals that still hold changes to undo, one a line.
unsettled() {
    [ "$server" = no ] || [ ! -s "$root/var/lib/adit/host.journal" ] || say "$root/var/lib/adit/host.journal"
    [ "$client" = yes ] || return 0
    for journal in "$root"/var/lib/adit-client/*.journal; do
        [ ! -s "$journal" ] || say "$journal"
    done
}

# A journal is all that is known of what a host was like before: until it is settled, neither it nor the program that can read it
# may go. Of a tree that is no running system, the programs may.
refuse_unsettled() {
    live || [ "$purge" = yes ] || return 0
    journals=$(unsettled | tr '\n' ' ')
    [ -z "$journals" ] ||
        fail 1 "changes to the host are not undone yet: ${journals% }" \
            "end what still runs, run \`adit-client cleanup\` or \`adit-server cleanup\`, and remove again"
}

remove_all() {
    require_host
    stop_services
    undo_host_changes
    refuse_unsettled
    say "Removed:"
    for program in $(programs); do
        drop "$prefix/bin/$program"
    done
    if [ "$server" = yes ]; then
        drop /etc/systemd/system/adit-server.service
        drop /etc/sysusers.d/adit.conf
        drop /etc/tmpfiles.d/adit.conf
        drop "$prefix/share/doc/adit/server.toml"
        drop "$prefix/share/doc/adit/policy.toml"
    fi
    [ "$client" = no ] || drop /etc/systemd/system/adit-client@.service
    [ "$client" = no ] || drop /etc/systemd/system/adit-killswitch@.service
    if [ ! -e "$root$prefix/bin/adit-server" ] && [ ! -e "$root$prefix/bin/adit-client" ]; then
        drop "$prefix/share/doc/adit/LICENSE-MIT"
        drop "$prefix/share/doc/adit/LICENSE-APACHE"
        drop_neighbours
    fi
    [ "$purge" = no ] || purge_all
    prune "$prefix/share/doc/adit"
    prune /etc/adit
    if ! live; then
        for directory in "$prefix/bin" /etc/systemd/system /etc/sysusers.d /etc/tmpfiles.d /var/lib \
            /usr/lib/systemd/network /usr/lib/systemd/networkd.conf.d /usr/lib/NetworkManager/conf.d; do
            prune "$directory"
        done
        return 0
    fi
    systemctl daemon-reload
    tell_neighbours
}

# wipe PATH: deletes a directory with all it holds.
wipe() {
    [ -e "$root$1" ] || return 0
    rm -rf -- "$root$1"
    say "  $root$1 and all in it"
}

purge_all() {
    if [ "$server" = yes ]; then
        drop /etc/adit/server.toml
        wipe /var/lib/adit
        if live && id adit >/dev/null 2>&1; then
            userdel adit && say "  user adit"
        fi
    fi
    if [ "$client" = yes ]; then
        wipe /etc/adit/clients
        wipe /var/lib/adit-client
        wipe /run/adit-client
    fi
}

parse "$@"
if [ "$remove" = yes ]; then
    remove_all
else
    install_all
fi
