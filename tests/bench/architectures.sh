#!/bin/sh
# Speed of each architecture at its published size, with random weights, and what share of the peak that is.
# usage: tests/bench/architectures.sh BUILD [NAME...], names as tests/bench/make_model.py has them
# THREADS (1): most threads to measure. DTYPES (fp32): arithmetics to measure, separated by blanks. The figures go to
# BUILD/bench-models.json, too. A model with a text tower has rows of 192 texts as well.
set -eu
build=$1
shift
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
[ $# -gt 0 ] || set -- vit-s dinov2-s swin-t mvitv2-t t2t-vit-14 t2t-vit-t-14 deepvit-s r26-vit-s resnetv2-50
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

json=''
measure() { # NAME DTYPE: the rows of vitd bench
    "$build/vitd" bench --model "$folder/$1" --threads "${THREADS:-1}" --dtype "$2" --json "$folder/run.json" \
        >"$folder/table" || exit 1
    json="$json${json:+,}
$(cat "$folder/run.json")"
    awk -v name="$1" -v dtype="$2" '$1 == dtype && $2 ~ /^[0-9]+$/ { printf "%-14s %s\n", name, $0 }' "$folder/table"
}

echo "model          dtype  threads  batch           ms per image   images/s   GFLOP/s  of peak"
for name; do
    python3 tests/bench/make_model.py "$name" "$folder/$name" >/dev/null
    for dtype in ${DTYPES:-fp32}; do
        measure "$name" "$dtype"
    done
    rm -rf "${folder:?}/$name"
done
echo "[$json]" >"$build/bench-models.json"
