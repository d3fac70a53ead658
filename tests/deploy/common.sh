# common.sh - what run.sh and metrics.sh share: HAProxy and promtool without installing them, HTTP without curl, and
# processes that end with the test. For bash, sourced with build and scratch set.
# shellcheck shell=bash disable=SC2034,SC2154

die() { echo "tests/deploy: $*" >&2; exit 1; }

# ---- the programs ----

# Debian's packages are unpacked under $build/deploy rather than installed: once installed, haproxy and prometheus would
# run as services. Of HAProxy's libraries those that the machine lacks come along; promtool needs none.
unpack_programs() {
    local packages=$build/deploy/packages missing package
    rm -rf "$build/deploy"
    mkdir -p "$packages"
    missing=$(apt-get install --simulate --no-install-recommends haproxy | awk '$1 == "Inst" {print $2}') || return
    # shellcheck disable=SC2086 # a list of names
    (cd "$packages" && apt-get download -qq ${missing:-haproxy} prometheus) || return
    for package in "$packages"/*.deb; do
        dpkg-deb -x "$package" "$build/deploy/root" || return
    done
}

# Sets haproxy, promtool, and libraries, where HAProxy's are.
find_programs() {
    local root=$build/deploy/root sudo=''
    if [ ! -x "$root/usr/sbin/haproxy" ] || [ ! -x "$root/usr/bin/promtool" ]; then
        echo "unpacking Debian's haproxy and prometheus into $root"
        if ! unpack_programs 2>/dev/null; then
            [ "$(id -u)" = 0 ] || sudo=sudo
            if ! $sudo apt-get update -qq || ! unpack_programs; then
                die "cannot download haproxy and prometheus"
            fi
        fi
    fi
    haproxy=$root/usr/sbin/haproxy promtool=$root/usr/bin/promtool
    libraries=$(find "$(realpath "$root")/usr/lib" -maxdepth 1 -name '*-linux-gnu' 2>/dev/null)
}

# ---- HTTP ----

# request PORT METHOD PATH [FILE]: the whole reply; nothing if there is none
request() {
    local port=$1 method=$2 path=$3 file=${4:-/dev/null}
    (
        exec 3<>"/dev/tcp/127.0.0.1/$port" || exit
        printf '%s %s HTTP/1.1\r\nHost: vitd\r\nConnection: close\r\nContent-Length: %s\r\n\r\n' "$method" "$path" \
            "$(stat -L -c %s "$file")" >&3
        cat "$file" >&3
        cat <&3
    ) 2>/dev/null
}

# body PORT METHOD PATH [FILE]: what follows the header
body() { request "$@" | sed '1,/^\r$/d'; }

# status PORT METHOD PATH [FILE]: the status code
status() { request "$@" | sed -n '1s/^[^ ]* \([0-9]*\).*\r$/\1/p;1q'; }

# ---- processes ----

pids=()

# Ends what was started and is still there.
stop_all() {
    local process
    for process in "${pids[@]}"; do
        kill -KILL "$process" 2>/dev/null
        wait "$process" 2>/dev/null
    done
}

# within SECONDS COMMAND...: whether it succeeds by then
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.05
    done
}

started() { grep -q 'listening on' "$1" || ! kill -0 "$pid"; } 2>/dev/null # or ended

# start_vitd LOG ARGUMENT...: sets pid, and port once it is ready
start_vitd() {
    local log=$1
    shift
    : >"$log" # here, not only in the child: what an earlier one wrote must not be found
    "$build/vitd" serve --threads 1 "$@" 2>"$log" &
    pid=$!
    pids+=("$pid")
    within 30 started "$log"
    grep -q 'listening on' "$log" || die "vitd does not start: $(cat "$log")"
    port=$(sed -n 's|.*listening on http://127\.0\.0\.1:\([0-9]*\).*|\1|p' "$log")
}

# forget PID: it has ended, and its id may be another's
forget() {
    local process left=()
    for process in "${pids[@]}"; do
        [ "$process" = "$1" ] || left+=("$process")
    done
    pids=("${left[@]}")
}
