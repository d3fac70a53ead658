#!/bin/sh
# Speed of the engine, and of the daemon over HTTP beside the same work back to back: a table on standard output, and
# BUILD/bench.json. usage: tests/bench/bench.sh BUILD
# Model and picture: DeiT-tiny and a 500x375 photograph of VITD_SHARED (../shared) where they are, else the bundled
# model and a sample. BENCH_SECONDS (8): the length of each run over HTTP. DTYPE (fp32): the daemon's arithmetic. All
# figures are of this machine and this run: compare the ratios. Needs GNU date.
set -eu
build=$1
seconds=${BENCH_SECONDS:-8}
dtype=${DTYPE:-fp32}
shared=${VITD_SHARED:-../shared}
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
export LC_ALL=C # decimal points
model=config/models/vit-tiny-64
image=config/samples/coffee.jpg
if [ -d "$shared/models/deit-tiny-patch16-224" ] && [ -d "$shared/photos" ]; then
    model=$shared/models/deit-tiny-patch16-224
    image=$shared/photos/n01440764_tench.JPEG
fi

folder=$(mktemp -d)
log=$folder/log run=$folder/run.json
pid='' runs='' failed=0
stop() {
    [ -z "$pid" ] || { kill "$pid" 2>/dev/null; wait "$pid" 2>/dev/null || :; }
    pid=''
}
trap 'stop; rm -rf "$folder"' EXIT

# Prints the engine's table, and sets engine: its part of bench.json.
measure_engine() {
    "$build/vitd" bench --model "$model" --image "$image" --json "$folder/engine.json"
    engine=$(cat "$folder/engine.json")
}

# Starts the daemon and waits until it is ready; sets pid, port and startup_ms, from before exec to the line in its log.
# The defaults are enough: 1024 connections, and a queue of 256 for 128 clients or the 256 connections of the open loop.
start() {
    : >"$log"
    begun=$(date +%s%3N)
    "$build/vitd" serve --model "$model" --dtype "$dtype" --port 0 2>"$log" &
    pid=$!
    line=''
    while [ -z "$line" ]; do
        kill -0 $pid || { cat "$log" >&2; exit 1; }
        line=$(sed -n '/listening on http:/ { p; q; }' "$log")
        sleep 0.02
    done
    port=$(echo "$line" | sed 's/.*127\.0\.0\.1:\([0-9]*\).*/\1/')
    startup_ms=$(($(date -d "${line%% *}" +%s%3N) - begun))
}

# The median of five starts, with the files in the page cache; leaves the last one running.
measure_start() {
    start
    all=$startup_ms
    for _ in 2 3 4 5; do
        stop
        start
        all="$all $startup_ms"
    done
    # shellcheck disable=SC2086 # a list
    startup_ms=$(printf '%s\n' $all | sort -n | sed -n 3p)
}

memory_mib() { # FIELD of /proc/PID/status
    awk -v field="$1:" '$1 == field { printf "%.1f", $2 / 1024 }' "/proc/$pid/status"
}

value() { # KEY of the last run
    sed -n "s/.*\"$1\": \([0-9.]*\).*/\1/p" "$run"
}

# One run over HTTP: a row of the table, and an object in runs.
measure() { # LABEL OPTION...
    label=$1
    shift
    "$build/tests/http_load" --json "$@" --seconds "$seconds" 127.0.0.1 "$port" /classify "$image" >"$run" || failed=1
    [ -s "$run" ] || exit 1
    offered=$(value offered)
    [ -z "$offered" ] || offered=$(printf %.1f "$offered")
    printf '%-21s %9s %9.1f %8.1f %8.1f %8.1f %7d %7s\n' "$label" "${offered:--}" "$(value images_per_second)" \
        "$(value p50_ms)" "$(value p95_ms)" "$(value p99_ms)" "$(value failed)" \
        "$(awk -v cpu="$(value load_cpu)" 'BEGIN { printf "%.1f%%", 100 * cpu }')"
    runs="$runs${runs:+,
  }$(cat "$run")"
}

measure_http() {
    printf '\nPOST /classify of %s in %s, keep-alive, %s s each; load: CPU time of the load generator, of one core\n' \
        "$(basename "$image")" "$dtype" "$seconds"
    echo "                      offered/s  images/s   p50 ms   p95 ms   p99 ms  failed    load"
    measure "1 client" --clients 1
    for clients in 2 8 32; do
        measure "$clients clients" --clients $clients
    done
    capacity=$(value images_per_second)
    measure "128 clients" --clients 128
    for percent in 50 80; do
        rate=$(awk -v capacity="$capacity" -v percent=$percent 'BEGIN { print capacity * percent / 100 }')
        measure "Poisson, $percent % of $(printf %.1f "$capacity")" --rate "$rate"
    done
}

write_json() {
    cpu=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1 | sed 's/["\\]//g')
    cat >"$build/bench.json" <<END
{"vitd": "$("$build/vitd" --version | sed 's/.* //')", "cpu": "$cpu", "cpus": $(nproc),
 "model": "$(basename "$model")", "image": "$(basename "$image")", "dtype": "$dtype", "seconds": $seconds,
 "startup_ms": $startup_ms, "ready_rss_mib": $ready_rss, "peak_rss_mib": $peak_rss,
 "http": [
  $runs],
 "engine": $engine}
END
}

measure_engine
measure_start
ready_rss=$(memory_mib VmRSS)
measure_http
peak_rss=$(memory_mib VmHWM)
printf '\nstart-up, exec to ready: %s ms; resident memory: %s MiB when ready, %s MiB at most\n' \
    "$startup_ms" "$ready_rss" "$peak_rss"
write_json
echo "written: $build/bench.json"
[ "$failed" -eq 0 ] || echo "some requests failed" >&2
exit "$failed"
