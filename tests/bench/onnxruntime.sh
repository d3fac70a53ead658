#!/bin/sh
# Times ONNX Runtime beside vitd on plain ViTs with random weights: milliseconds per image, and vitd's share of it.
# usage: tests/bench/onnxruntime.sh BUILD [SIZE...], sizes ti, s, b and l (default ti s b)
#   DTYPES (fp32)  arithmetics of vitd, separated by blanks; int8 meets ONNX Runtime's dynamic int8, all others its fp32
#   ROUNDS (3)     the two take turns so often, lest a slow minute of the machine falls on one of them
#   ORT            a folder whose node_modules holds onnxruntime-node (default: npm installs it in a scratch folder)
#   VITD_SHARED    where peers/make_vit_onnx.py and peers/bench_ort.js are (default ../shared)
# A round's figure is the median of its runs, for both. Each takes one image at a time, on one thread that is pinned to one
# CPU, or on two that share it.
# others: the CPUs that everything else on the machine took meanwhile. Threads that share an image wait for each other:
# rows of two threads count only where others is near 0.
set -eu
build=$1
shift
[ $# -gt 0 ] || set -- ti s b
rounds=${ROUNDS:-3}
shared=${VITD_SHARED:-../shared}
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
export LC_ALL=C # decimal points
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

fail() {
    echo "onnxruntime.sh: $1" >&2
    exit 1
}

check_needs() {
    for size; do
        case $size in ti | s | b | l) ;; *) fail "$size is not a size: ti, s, b or l" ;; esac
    done
    for command in node python3 taskset; do
        command -v $command >/dev/null || fail "needs $command"
    done
    [ -x "$build/vitd" ] || fail "$build/vitd is missing: run make"
    for file in make_vit_onnx.py bench_ort.js; do
        [ -r "$shared/peers/$file" ] || fail "$shared/peers/$file is missing: set VITD_SHARED"
    done
    shared=$(cd "$shared" && pwd)
    python=$(sed -n '1s/^#!//p' "$shared/peers/make_vit_onnx.py") # the system's, which has the system's packages
    "$python" -c 'import onnx' 2>/dev/null || fail "$python has no onnx: apt-get install python3-onnx"
    if [ -z "${ORT:-}" ]; then
        command -v npm >/dev/null || fail "needs npm, or ORT=FOLDER with node_modules/onnxruntime-node in it"
        ORT=$folder/ort
        mkdir "$ORT"
        (cd "$ORT" && npm install --silent --ignore-scripts onnxruntime-node) ||
            fail "npm install onnxruntime-node failed"
    fi
    [ -d "$ORT/node_modules/onnxruntime-node" ] || fail "$ORT/node_modules/onnxruntime-node is missing"
}

first_cpu() {
    taskset -cp $$ | sed 's/.*: *\([0-9]*\).*/\1/'
}

# Runs a command for so many threads; its output goes to $folder/out, the errors of a failure to standard error.
run() { # THREADS COMMAND...
    pin=''
    [ "$1" -gt 1 ] || pin="taskset -c $(first_cpu)"
    shift
    # shellcheck disable=SC2086 # words
    $pin "$@" >"$folder/out" 2>"$folder/err" || fail "$* failed: $(cat "$folder/err")"
}

time_ort() { # SIZE DTYPE THREADS: ms per image to stdout
    file=$folder/$1.onnx
    [ "$2" != int8 ] || file=$folder/$1-int8.onnx
    case $1 in ti) runs=40 ;; s) runs=15 ;; *) runs=5 ;; esac
    cd "$ORT" # where bench_ort.js looks for node_modules
    run "$3" node "$shared/peers/bench_ort.js" "$file" "$3" 1 $runs
    sed -n 's/.*"median_ms": *\([0-9.]*\).*/\1/p' "$folder/out"
}

time_vitd() { # SIZE DTYPE THREADS: ms per image to stdout
    run "$3" "$build/vitd" bench --config "$folder/vitd.json" --model "$folder/vit-$1" --threads "$3" --dtype "$2"
    awk -v threads="$3" '$2 == threads && $3 == 1 && $4 != "each" { print $(NF - 3) }' "$folder/out"
}

best() {
    sort -n "$1" | head -n 1
}

median() {
    sort -n "$1" | sed -n "$(((rounds + 1) / 2))p"
}

# CPU seconds of the machine (steal too) and of this shell's children, and seconds on the clock. `times` must not run in
# a subshell.
snapshot() { # FILE
    times >"$folder/times"
    awk -v ticks="$(getconf CLK_TCK)" '
        FILENAME == "/proc/stat" && $1 == "cpu" { busy = ($2 + $3 + $4 + $7 + $8 + $9) / ticks }
        FILENAME == "/proc/uptime" { clock = $1 }
        FILENAME ~ /times$/ { for (i = 1; i <= 2; i++) { split($i, part, /[ms]/); own += 60 * part[1] + part[2] } }
        END { print busy, own, clock }' /proc/stat /proc/uptime "$folder/times" >"$1"
}

compare() { # SIZE DTYPE THREADS: a row
    : >"$folder/ort.ms"
    : >"$folder/vitd.ms"
    snapshot "$folder/before"
    round=0
    while [ $((round += 1)) -le "$rounds" ]; do
        (time_ort "$@") >>"$folder/ort.ms"
        (time_vitd "$@") >>"$folder/vitd.ms"
    done
    snapshot "$folder/after"
    echo "vit-$1 $2 $3 $(best "$folder/ort.ms") $(median "$folder/ort.ms")" \
        "$(best "$folder/vitd.ms") $(median "$folder/vitd.ms") $(cat "$folder/before" "$folder/after" | tr '\n' ' ')" |
        awk '{ printf "%-7s %-5s %7d %9.2f %8.2f %9.2f %8.2f %12.2f %8.2f %7.2f\n", $1, $2, $3, $4, $5, $6, $7,
            $6 / $4, $7 / $5, ($11 - $8 - ($12 - $9)) / ($13 - $10) }'
}

check_needs "$@"
build=$(cd "$build" && pwd)
echo '{"batching": {"max_batch_size": 1}}' >"$folder/vitd.json"
echo "ONNX Runtime $(sed -n 's/^ *"version": "\(.*\)".*/\1/p' "$ORT/node_modules/onnxruntime-node/package.json")," \
    "$("$build/vitd" --version), ms per image, $rounds rounds each"
echo "                      ONNX Runtime                vitd          vitd/ONNX Runtime"
echo "model   dtype threads      best   median      best   median         best   median  others"
for size; do
    "$python" "$shared/peers/make_vit_onnx.py" "$folder/$size" "$size"
    python3 tests/bench/make_model.py "vit-$size" "$folder/vit-$size" >/dev/null
    for dtype in ${DTYPES:-fp32}; do
        compare "$size" "$dtype" 1
        [ "$(nproc)" -eq 1 ] || compare "$size" "$dtype" 2
    done
    rm -rf "$folder/$size.onnx" "$folder/$size-int8.onnx" "$folder/vit-$size"
done
