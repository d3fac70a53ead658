#!/bin/sh
# Speed of each architecture at its published size, with random weights, on one thread, beside the same matrix products
# alone. usage: tests/bench/architectures.sh BUILD [NAME...], names as tests/bench/make_model.py has them
set -eu
build=$1
shift
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
[ $# -gt 0 ] || set -- vit-s dinov2-s swin-t mvitv2-t t2t-vit-14 t2t-vit-t-14 deepvit-s r26-vit-s resnetv2-50
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
echo "model          threads  batch  ms per image   GEMMs alone   images/s   GFLOP/s  of peak  floor/forward"
for name; do
    python3 tests/bench/make_model.py "$name" "$folder/$name" >/dev/null
    "$build/vitd" bench --model "$folder/$name" --threads 1 | awk -v name="$name" \
        '/^threads/ { table = 1; next } !NF { table = 0 } table { printf "%-14s %s\n", name, $0 }'
    rm -rf "${folder:?}/$name"
done
