#!/bin/bash
# Installs into a scratch root, looks at what is there, has systemd judge the units, removes everything and looks again.
set -euo pipefail

here=$(cd -- "$(dirname -- "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
root=$scratch/root
programs=$scratch/programs

# Highest exposure that `systemd-analyze security` may find, times ten (0 is a closed box, 100 an open door).
declare -A most_exposed=([adit-server.service]=18 [adit-client@.service]=20 [adit-killswitch@.service]=20)

fail() {
    printf 'test-install: %s\n' "$*" >&2
    exit 1
}

# refuses CODE ARGUMENT...: install.sh must end with CODE, say why on stderr, and change nothing.
refuses() {
    local want=$1 code=0 before after
    shift
    before=$(tree)
    "$here/install.sh" "$@" >"$scratch/out" 2>"$scratch/err" || code=$?
    after=$(tree)
    [[ $code -eq $want ]] || fail "install.sh $*: exit $code, expected $want: $(<"$scratch/err")"
    grep -q '  next: ' "$scratch/err" || fail "install.sh $*: no next step in: $(<"$scratch/err")"
    [[ $before == "$after" ]] || fail "install.sh $* refused, yet changed: $(diff <(echo "$before") <(echo "$after"))"
    printf '  refused as it should: install.sh %s\n' "$*"
}

# Every path below the scratch root with its kind, mode, owner and content.
tree() {
    [[ -d $root ]] || return 0
    (cd "$root" && find . -printf '%P %y %m %u:%g ' -exec sh -c 'test ! -f "$1" || sha256sum <"$1"' _ {} \; -printf '\n' | sort)
}

files() { (cd "$root" && find . -type f | sort); }

expect_files() {
    diff <(printf './%s\n' "$@" | sort) <(files) || fail "the installed files are not the expected ones"
}

expect_mode() {
    local found
    found=$(stat -c '%a %u:%g' "$root/$2")
    [[ $found == "$1 $(id -u):$(id -g)" ]] || fail "$2 has mode and owner $found, expected $1 $(id -u):$(id -g)"
}

make_programs() {
    mkdir -p "$programs"
    local program
    for program in adit-server adit-client; do
        printf '#!/bin/sh\necho %s\n' "$program" >"$programs/$program"
        chmod 755 "$programs/$program"
    done
}

SERVER_FILES=(etc/systemd/system/adit-server.service etc/sysusers.d/adit.conf etc/tmpfiles.d/adit.conf)
CLIENT_FILES=(etc/systemd/system/adit-client@.service etc/systemd/system/adit-killswitch@.service)
# What tells other programs to leave ours alone comes with either part.
NEIGHBOUR_FILES=(usr/lib/systemd/network/10-adit.network usr/lib/systemd/networkd.conf.d/adit.conf usr/lib/NetworkManager/conf.d/10-adit.conf)

prefixed() {
    local prefix=$1 name
    shift
    for name in "$@"; do
        printf '%s/%s\n' "$prefix" "$name"
    done
}

install_and_check() {
    echo "Install into a scratch root"
    "$here/install.sh" --root "$root" --from "$programs" | tee "$scratch/said"
    grep -q 'adit-server init' "$scratch/said" || fail "the next command is not named"
    local shared
    mapfile -t shared < <(prefixed usr/local bin/adit-server bin/adit-client share/doc/adit/{server.toml,policy.toml,LICENSE-MIT,LICENSE-APACHE})
    expect_files "${SERVER_FILES[@]}" "${CLIENT_FILES[@]}" "${NEIGHBOUR_FILES[@]}" "${shared[@]}"
    local file
    for file in bin/adit-server bin/adit-client; do
        expect_mode 755 "usr/local/$file"
        cmp "$programs/${file##*/}" "$root/usr/local/$file"
    done
    for file in "${SERVER_FILES[@]}" "${CLIENT_FILES[@]}" "${NEIGHBOUR_FILES[@]}" usr/local/share/doc/adit/server.toml; do
        expect_mode 644 "$file"
    done
    for file in systemd/system/adit-server.service systemd/system/adit-{client,killswitch}@.service sysusers.d/adit.conf tmpfiles.d/adit.conf; do
        cmp "$here/${file/systemd\/system/systemd}" "$root/etc/$file"
    done
    local first
    first=$(tree)
    "$here/install.sh" --root "$root" --from "$programs" >/dev/null
    [[ $first == "$(tree)" ]] || fail "installing twice is not the same as installing once"
}

judge_units() {
    echo "What systemd says of the units"
    # The tree holds only what we installed; everything else that the units name is taken from stand-ins.
    local system=$scratch/system unit target
    cp -a "$root" "$system"
    mkdir -p "$system/usr/lib/systemd/system" "$system/usr/bin"
    for target in basic sysinit shutdown multi-user network-online network-pre local-fs nss-lookup; do
        printf '[Unit]\nDescription=Stand-in\nDefaultDependencies=no\n' >"$system/usr/lib/systemd/system/$target.target"
    done
    printf '#!/bin/sh\n' >"$system/usr/bin/systemd-tmpfiles"
    chmod 755 "$system/usr/bin/systemd-tmpfiles"
    for unit in adit-server.service adit-client@.service adit-killswitch@.service; do
        # systemd exits 0 for an unknown directive too, so silence is asked for.
        systemd-analyze --root="$system" --man=no verify "$unit" >"$scratch/verdict" 2>&1 ||
            fail "$unit is refused: $(<"$scratch/verdict")"
        [[ ! -s $scratch/verdict ]] || fail "systemd remarks on $unit: $(<"$scratch/verdict")"
        systemd-analyze --root="$system" --no-pager --offline=yes --threshold="${most_exposed[$unit]}" security "$unit" \
            >"$scratch/security" || fail "$unit is more exposed than ${most_exposed[$unit]} tenths: $(<"$scratch/security")"
        printf '  %s: accepted; %s\n' "$unit" "$(grep -o 'exposure level.*: [0-9.]*' "$scratch/security" | sed 's/ for .*:/:/')"
    done
    systemd-sysusers --root="$system" adit.conf 2>"$scratch/verdict" || fail "sysusers: $(<"$scratch/verdict")"
    grep -q '^adit:' "$system/etc/passwd" || fail "sysusers made no user adit"
    printf '  sysusers: %s\n' "$(grep '^adit:' "$system/etc/passwd")"
}

check_tmpfiles() {
    # Only root may give files away.
    [[ $(id -u) -eq 0 ]] || return 0
    local system=$scratch/system
    mkdir -p "$system/var/lib/adit"
    printf 'secret\n' >"$system/var/lib/adit/authority.key"
    chmod 600 "$system/var/lib/adit/authority.key"
    systemd-tmpfiles --root="$system" --create adit.conf
    local user found
    user=$(awk -F: '$1 == "adit" { print $3 ":" $4 }' "$system/etc/passwd")
    found=$(stat -c '%a %u:%g' "$system/var/lib/adit/authority.key")
    [[ $found == "600 $user" ]] || fail "after tmpfiles, the key has mode and owner $found, expected 600 $user"
    echo "  tmpfiles: the state belongs to the gateway's user"
}

remove_and_check() {
    echo "Remove"
    mkdir -p "$root/etc/adit/clients" "$root/var/lib/adit" "$root/var/lib/adit-client"
    touch "$root/etc/adit/server.toml" "$root/etc/adit/clients/home.toml" "$root/var/lib/adit/store.db"
    "$here/install.sh" --root "$root" --remove
    expect_files etc/adit/server.toml etc/adit/clients/home.toml var/lib/adit/store.db
    local journal
    for journal in adit/host.journal adit-client/client-home.journal; do
        echo '{"change":{}}' >"$root/var/lib/$journal"
        refuses 1 --root "$root" --remove --purge
        : >"$root/var/lib/$journal"
    done
    "$here/install.sh" --root "$root" --remove --purge
    [[ -z $(files) ]] || fail "left behind: $(files)"
    [[ ! -e $root || -z $(ls -A "$root") ]] || fail "directories left behind: $(find "$root")"
    "$here/install.sh" --root "$root" --remove --purge >/dev/null || fail "removing twice fails"
}

parts_and_prefix() {
    echo "One part, another prefix"
    "$here/install.sh" --root "$root" --from "$programs" --client --prefix /opt/adit >/dev/null
    expect_files "${CLIENT_FILES[@]}" "${NEIGHBOUR_FILES[@]}" opt/adit/bin/adit-client opt/adit/share/doc/adit/LICENSE-{MIT,APACHE}
    grep -q '^ExecStart=/opt/adit/bin/adit-client ' "$root/${CLIENT_FILES[0]}" || fail "the unit does not follow the prefix"
    ! grep -q /usr/local "$root/${CLIENT_FILES[0]}" || fail "the unit still names /usr/local"
    "$here/install.sh" --root "$root" --from "$programs" --server --prefix /opt/adit >/dev/null
    "$here/install.sh" --root "$root" --remove --client --prefix /opt/adit >/dev/null
    expect_files "${SERVER_FILES[@]}" "${NEIGHBOUR_FILES[@]}" opt/adit/bin/adit-server opt/adit/share/doc/adit/{server.toml,policy.toml,LICENSE-MIT,LICENSE-APACHE}
    "$here/install.sh" --root "$root" --remove --prefix /opt/adit >/dev/null
    [[ ! -e $root || -z $(ls -A "$root") ]] || fail "left behind: $(find "$root")"
}

# A small system of our own, with stand-ins for systemd and our programs that write down how they were called.
make_live_system() {
    local live=$1 directory name
    mkdir -p "$live"/{stubs,repository,run/systemd/system,run/adit-client,etc/adit,var/lib/adit,var/lib/adit-client,tmp,dev,usr}
    mkdir -p "$live/opt/adit/bin"
    for directory in bin sbin lib lib64; do
        [[ ! -L /$directory ]] || cp -a "/$directory" "$live/$directory"
    done
    : >"$live/dev/null"
    for name in stubs/systemctl stubs/userdel opt/adit/bin/adit-client opt/adit/bin/adit-server; do
        cat >"$live/$name" <<'SH'
#!/bin/sh
echo "${0##*/} $*" >>/calls
case "${0##*/} $*" in
    'adit-client cleanup') [ -e /stubborn ] || : >/var/lib/adit-client/client-old.journal ;;
    'adit-server cleanup') : >/var/lib/adit/host.journal ;;
esac
SH
        chmod 755 "$live/$name"
    done
    python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$live/run/adit-client/client-home.sock"
    echo '{"change":{}}' | tee "$live/var/lib/adit/host.journal" >"$live/var/lib/adit-client/client-old.journal"
}

# in_live_system LIVE COMMAND...: runs it with LIVE as the root of everything.
in_live_system() {
    # shellcheck disable=SC2016 # expanded inside
    here=$here unshare --mount --propagation private bash -euc '
        mount --rbind /usr "$1/usr"
        mount --bind "$here/.." "$1/repository"
        mount --bind /dev/null "$1/dev/null"
        exec chroot "$1" env PATH="/stubs:$PATH" "${@:2}"' _ "$@"
}

remove_from_live_system() {
    echo "Remove from a running system"
    local live=$scratch/live remove=(/repository/deploy/install.sh --remove --purge --prefix /opt/adit)
    if [[ ! -L /bin ]] || ! unshare --mount true 2>/dev/null; then
        [[ -z ${CI-} ]] || fail "a mount namespace is needed in CI"
        echo "  skipped: needs root, mount namespaces and a merged /usr"
        return
    fi
    make_live_system "$live"
    touch "$live/stubborn"
    ! in_live_system "$live" "${remove[@]}" >"$scratch/out" 2>"$scratch/err" || fail "a journal with content was wiped"
    grep -q 'client-old.journal' "$scratch/err" || fail "the journal is not named in: $(<"$scratch/err")"
    [[ -x $live/opt/adit/bin/adit-client && -s $live/var/lib/adit-client/client-old.journal ]] ||
        fail "a refused removal removed something"
    rm "$live/stubborn" "$live/calls"
    echo '{"change":{}}' >"$live/var/lib/adit/host.journal"
    in_live_system "$live" "${remove[@]}" >"$scratch/out"
    local call
    for call in 'adit-client down home' 'adit-client cleanup' 'adit-server cleanup'; do
        grep -qxF -- "$call" "$live/calls" || fail "not called: $call; but: $(<"$live/calls")"
    done
    [[ ! -e $live/opt/adit/bin/adit-client && ! -e $live/var/lib/adit && ! -e $live/var/lib/adit-client ]] ||
        fail "left behind: $(find "$live/opt" "$live/var")"
    echo "  clients are ended and journals settled before anything goes"
}

refusals() {
    echo "Refusals"
    mkdir -p "$scratch/empty"
    refuses 2 --frobnicate
    refuses 2 --from
    refuses 2 --purge
    refuses 2 --root "$root" --prefix relative
    refuses 2 --root "$root" --prefix '/a|b'
    refuses 2 --root "$root" --from "$scratch/empty"
    refuses 2 --root "$root" --build --from "$programs"
    if [[ ! -d /run/systemd/system ]]; then
        if [[ $(id -u) -eq 0 ]]; then refuses 127 --from "$programs"; else refuses 6 --from "$programs"; fi
    fi
}

make_programs
install_and_check
judge_units
check_tmpfiles
remove_and_check
remove_from_live_system
parts_and_prefix
refusals
echo "test-install: all as it should be"
