#!/bin/sh
# Speed of each architecture at its published size, with random weights, beside the same matrix products alone.
# usage: tests/bench/architectures.sh BUILD [NAME...], names as tests/bench/make_model.py has them
# THREADS (1): most threads to measure. DTYPES (fp32): arithmetics to measure, separated by blanks.
set -eu
build=$1
shift
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
[ $# -gt 0 ] || set -- vit-s dinov2-s swin-t mvitv2-t t2t-vit-14 t2t-vit-t-14 deepvit-s r26-vit-s resnetv2-50
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

measure() { # NAME DTYPE: the rows of vitd bench
    options=''
    [ "$2" = fp32 ] || options="--dtype $2"
    # shellcheck disable=SC2086 # two words or none
    "$build/vitd" bench --model "$folder/$1" --threads "${THREADS:-1}" $options >"$folder/table" || exit 1
    awk -v name="$1" -v dtype="$2" '/^threads/ { table = 1; next } !NF { table = 0 }
        table { printf "%-14s %-5s %s\n", name, dtype, $0 }' "$folder/table"
}

echo "model          dtype threads  batch  ms per image   GEMMs alone   images/s   GFLOP/s  of peak  floor/forward"
for name; do
    python3 tests/bench/make_model.py "$name" "$folder/$name" >/dev/null
    for dtype in ${DTYPES:-fp32}; do
        measure "$name" "$dtype"
    done
    rm -rf "${folder:?}/$name"
done
