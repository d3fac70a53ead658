#!/bin/sh
# Speed of the engine, and of the daemon over HTTP beside the same work back to back. usage: tests/bench/bench.sh BUILD
# Model and picture: DeiT-tiny and a 500x375 photograph of VITD_SHARED (../shared) where they are, else the bundled
# model and a sample. All figures are of this machine and this run: compare the ratios.
set -eu
build=$1
seconds=${BENCH_SECONDS:-8}
shared=${VITD_SHARED:-../shared}
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
model=config/models/vit-tiny-64
set -- config/samples/coffee.jpg
if [ -d "$shared/models/deit-tiny-patch16-224" ] && [ -d "$shared/photos" ]; then
    model=$shared/models/deit-tiny-patch16-224
    set -- "$shared"/photos/n01440764_tench.JPEG
fi

log=$(mktemp)
"$build/vitd" bench --model "$model" --image "$1"
echo
"$build/vitd" serve --model "$model" --port 0 2>"$log" &
pid=$!
trap 'kill $pid 2>/dev/null; wait $pid 2>/dev/null; rm -f "$log"' EXIT
port=
while [ -z "$port" ]; do
    kill -0 $pid || { cat "$log"; exit 1; }
    port=$(sed -n 's/.*listening on http:\/\/127\.0\.0\.1:\([0-9]*\).*/\1/p' "$log" | head -n 1)
    sleep 0.02
done
echo "HTTP, POST /classify, keep-alive, $(basename "$1"), ${seconds} s each:"
for clients in 1 2 8 32; do
    "$build/tests/http_load" --clients "$clients" --seconds "$seconds" 127.0.0.1 "$port" /classify "$1"
done
awk '/VmHWM/ { printf "peak resident memory of the daemon: %.1f MB\n", $2 / 1024 }' "/proc/$pid/status"
