#!/bin/bash
# Tests the units as far as that goes without systemd as the first process: what systemd makes of them, how exposed it finds
# them, and whether vitd works under the same system call filters, without rights, and on a socket that was passed to it.
# Needs the packages systemd and libseccomp-dev, and build/tests/confine. usage: tests/systemd/sandbox.sh BUILD
set -euo pipefail
[ $# -eq 1 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
build=$1
root=$(mktemp -d)
units=$root/usr/lib/systemd/system
pids=()
finish() {
    [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
    rm -rf "$root"
}
trap finish EXIT
trap 'exit 1' INT TERM
fail() { echo "tests/systemd: $*" >&2; exit 1; }
step() { echo "== $*"; }

# The allowed system calls of a unit: what its SystemCallFilter lines allow, less what those with ~ take away.
names_of() { # GROUP...
    local name
    for name; do
        case $name in
        @*) # shellcheck disable=SC2046 # words
            names_of $(systemd-analyze syscall-filter "$name" | sed -n '2,$s/^ *\([-@a-z0-9_]*\)$/\1/p') ;;
        *) echo "$name" ;;
        esac
    done
}
allowed_calls() { # UNIT
    # shellcheck disable=SC2046 # words
    comm -23 <(names_of $(sed -n 's/^SystemCallFilter=\([^~]\)/\1/p' "$1") | sort -u) \
        <(names_of $(sed -n 's/^SystemCallFilter=~//p' "$1") | sort -u)
}

# The address in the line that says vitd is ready.
address_in() { # LOG
    local i
    touch "$1"
    for ((i = 0; i < 300; i++)); do
        sed -n 's|.*listening on http://\([^ ]*\) .*|\1|p' "$1" | grep . && return
        sleep 0.1
    done
    cat "$1" >&2
    fail "vitd did not get ready"
}

check_answers() { # ADDRESS
    local path
    for path in classify explain; do
        curl -fsS --max-time 60 --data-binary @config/samples/cat.jpg -o "$root/$path" "http://$1/$path" ||
            fail "POST http://$1/$path failed"
    done
    grep -q '"predictions":\[{' "$root/classify" || fail "no classes: $(cat "$root/classify")"
    head -c 8 "$root/explain" | cmp - <(printf '\x89PNG\r\n\x1a\n') || fail "no picture"
}

make -s install BUILD="$build" PREFIX="$root/usr" SYSCONFDIR="$root/etc" >/dev/null

step "systemd understands every line"
complaints=$(MANPATH=$root/usr/share/man systemd-analyze verify "$units"/vitd{.service,@example.service,.socket} 2>&1 |
    grep -F vitd || true) # the machine's own units have their own faults
[ -z "$complaints" ] || fail "$complaints"
for page in "$root"/usr/share/man/man?/*; do
    complaints=$(LC_ALL=C.UTF-8 MANROFFSEQ='' man --warnings -l -Tutf8 -Z "$page" 2>&1 >/dev/null)
    [ -z "$complaints" ] || fail "$page: $complaints"
done

step "exposure is at most 1.0"
for unit in vitd.service vitd@example.service; do
    systemd-analyze security --offline=yes --threshold=10 --no-pager "$units/$unit" | tail -n 1
done

step "vitd works under the unit's filters, without rights"
allowed_calls "$units/vitd.service" >"$root/allowed"
grep -qx mbind "$root/allowed" && fail "mbind is allowed: the list is wrong"
drop=()
[ "$(id -u)" -ne 0 ] || drop=(--reuid=65534 --regid=65534 --clear-groups)
chmod 755 "$root"
log=$root/filters-log
(cd / && OPENBLAS_NUM_THREADS=1 exec setpriv --no-new-privs --inh-caps=-all "${drop[@]}" \
    "$OLDPWD/$build/tests/confine" "$root/allowed" "$root/usr/bin/vitd" serve --port 0 \
    --model "$root/usr/share/vitd/models/vit-tiny-64") 2>"$log" &
pids=($!)
address=$(address_in "$log")
grep -qx 'Seccomp:	2' "/proc/${pids[0]}/status" || fail "there is no filter"
grep -qx 'NoNewPrivs:	1' "/proc/${pids[0]}/status" || fail "new rights are possible"
grep -qx 'CapEff:	0000000000000000' "/proc/${pids[0]}/status" || fail "it has rights"
check_answers "$address"
kill "${pids[0]}"
wait "${pids[0]}" || fail "it ended with $?: $(cat "$log")"
pids=()

step "vitd serves a socket that was passed to it"
log=$root/socket-log
# it takes no port 0: the first of some that is free. Without OPENBLAS_NUM_THREADS, so that vitd also keeps the socket while
# it runs itself once more.
for ((tries = 0; tries < 20; tries++)); do
    address=127.0.0.1:$((20000 + RANDOM % 10000))
    systemd-socket-activate -l "$address" "$root/usr/bin/vitd" serve --port 1 \
        --model "$root/usr/share/vitd/models/vit-tiny-64" 2>"$log" &
    pids=($!)
    while kill -0 "${pids[0]}" 2>/dev/null; do
        grep -q '^Listening on' "$log" && break 2
        sleep 0.1
    done
done
curl -fs --max-time 20 --retry 20 --retry-delay 1 --retry-max-time 30 -o /dev/null "http://$address/readyz" || # starts it
    fail "nobody serves the socket: $(cat "$log")"
[ "$(address_in "$log")" = "$address" ] || fail "it listens on $(address_in "$log"), not on $address"
check_answers "$address"
kill "${pids[0]}"
wait "${pids[0]}" || fail "it ended with $?: $(cat "$log")"
pids=()

echo "tests/systemd: passed"
