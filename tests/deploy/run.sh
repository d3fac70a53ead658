#!/bin/bash
# The shipped config/deploy/haproxy.cfg in front of three vitd built under BUILD, and load on them while one is
# restarted on another model and one is killed: no request may fail. Then metrics.sh. usage: tests/deploy/run.sh BUILD
# CLIENTS (16): how many send at once.
# shellcheck disable=SC2317 # functions that within and check call
set -u
if [ $# -ne 1 ]; then
    sed -n '3s/.*usage/usage/p' "$0" >&2
    exit 2
fi
build=$1 failed=0
clients=${CLIENTS:-16}
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
# shellcheck source=tests/deploy/common.sh
. "${0%/*}/common.sh"

old_model=config/models/vit-tiny-64 new_model=tests/golden/deit-hf
drain_delay_ms=2000
server_pids=() server_ports=()

# ---- the fleet ----

# start_server I MODEL [PORT]: vitd I, on any free port unless one is given
start_server() {
    start_vitd "$scratch/vitd$1.log" --config "$scratch/vitd.json" --model "vit=$2" --port "${3:-0}"
    server_pids[$1]=$pid server_ports[$1]=$port
}

# HAProxy takes no port 0: tries some until one is free.
start_haproxy() {
    local try
    for try in 1 2 3 4 5 6 7 8 9 10; do
        front=$((20000 + RANDOM % 10000)) status_port=$((front + 10000 + try))
        BIND=127.0.0.1:$front STATUS=127.0.0.1:$status_port VITD1=127.0.0.1:${server_ports[1]} \
            VITD2=127.0.0.1:${server_ports[2]} VITD3=127.0.0.1:${server_ports[3]} LD_LIBRARY_PATH=$libraries \
            "$haproxy" -db -f config/deploy/haproxy.cfg >"$scratch/haproxy.log" 2>&1 &
        pid=$!
        pids+=("$pid")
        within 5 server_is 1 UP && return
        kill -0 "$pid" 2>/dev/null && break
        forget "$pid"
    done
    die "HAProxy does not start: $(cat "$scratch/haproxy.log")"
}

# figure NAME FIELD: of HAProxy's statistics, for a server, or BACKEND for all of them
figure() {
    body "$status_port" GET '/;csv' | awk -F , -v server="$1" -v field="$2" '
        sub(/^# pxname/, "pxname") { for (i = 1; i <= NF; i++) column[$i] = i }
        $1 == "vitd" && $2 == server { print $column[field] }'
}

server_is() { [ "$(figure "vitd$1" status)" = "$2" ]; }
moved() { figure BACKEND wredis; }    # requests that went to a second server
retried() { figure BACKEND wretr; }   # those of them that the first one had
answers() { figure "vitd$1" hrsp_2xx; }
answers_more_than() { [ "$(answers "$1")" -gt "$2" ]; }

# ---- what is checked ----

check() { # SUBJECT COMMAND...
    if "${@:2}"; then
        echo "  ok      $1"
    else
        echo "  FAILED  $1"
        failed=1
    fi
}

start_load() { # SECONDS
    moved_before=$(moved) retried_before=$(retried)
    "$build/tests/http_load" --json --clients "$clients" --seconds "$1" 127.0.0.1 "$front" /classify \
        config/samples/cat.jpg config/samples/coffee.jpg >"$scratch/load" 2>&1 &
    load_pid=$!
    pids+=("$load_pid")
    sleep 2 # it warms up for one
}

load_figure() { sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p" "$scratch/load"; }

end_load() {
    wait "$load_pid"
    load_status=$?
    forget "$load_pid"
    moved=$(($(moved) - moved_before)) retried=$(($(retried) - retried_before))
    echo "  answered with 200: $(load_figure answered), failed: $(load_figure failed), sent to a second server:" \
        "$moved, of which the first had read $retried"
    check "no request failed" [ "$load_status" -eq 0 ]
    [ "$load_status" -eq 0 ] || grep -v ' 200 [0-9]* - - ' "$scratch/haproxy.log" | tail -n 20
}

# Back on its port, and in rotation while the load lasts.
restart_server() { # I MODEL
    start_server "$1" "$2" "${server_ports[$1]}"
    check "vitd$1 is back" within 5 server_is "$1" UP
    check "vitd$1 answers again" within 5 answers_more_than "$1" "$(answers "$1")"
}

test_all() {
    echo "three vitd, $clients clients"
    start_load 2
    end_load
    for i in 1 2 3; do
        check "vitd$i answered some" [ "$(answers $i)" -gt 0 ]
    done
}

serves_new_model() { body "${server_ports[$1]}" GET /models/vit | grep -q '"classes":7,'; }

test_restart() {
    echo "vitd1 restarted on another model by SIGTERM"
    start_load 10
    kill -TERM "${server_pids[1]}"
    check "vitd1 is out within its drain_delay_ms" within $((drain_delay_ms / 1000)) server_is 1 DOWN
    wait "${server_pids[1]}"
    check "vitd1 exits with 0" [ $? -eq 0 ]
    forget "${server_pids[1]}"
    restart_server 1 $new_model
    check "vitd1 has the new model" serves_new_model 1
    end_load
    check "no request had to be sent a second time" [ "$moved" -eq 0 ]
}

test_kill() {
    local under_way
    echo "vitd2 killed by SIGKILL"
    start_load 8
    under_way=$(figure vitd2 scur)
    kill -KILL "${server_pids[2]}"
    wait "${server_pids[2]}" 2>/dev/null
    forget "${server_pids[2]}"
    check "vitd2 is out" within 5 server_is 2 DOWN
    sleep 1
    restart_server 2 $old_model
    end_load
    echo "  it had about $under_way under way"
    check "what it had was sent a second time" [ "$retried" -gt 0 ]
}

find_programs
scratch=$(mktemp -d)
trap 'stop_all; rm -rf "$scratch"' EXIT
echo "{\"drain_delay_ms\": $drain_delay_ms}" >"$scratch/vitd.json"
for i in 1 2 3; do
    start_server $i $old_model
done
start_haproxy
for i in 1 2 3; do
    check "vitd$i is in" within 5 server_is $i UP
done
test_all
test_restart
test_kill
check "metrics" "${0%/*}/metrics.sh" "$build"
[ "$failed" -eq 0 ] && echo "deploy: all passed"
exit "$failed"
