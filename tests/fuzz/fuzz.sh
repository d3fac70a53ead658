#!/bin/sh
# Fuzzes every target for SECONDS each with libFuzzer, starting from its corpus. usage: tests/fuzz/fuzz.sh SECONDS
# Crashing inputs are left in BUILD/fuzz; add them to the corpus once mended. Called by `make fuzz`.
set -eu
seconds=$1
command -v clang >/dev/null || { echo "make fuzz needs clang: apt-get install clang" >&2; exit 1; }
mkdir -p "$BUILD/fuzz"
sources=$(find engine server -name '*.c' ! -path server/main.c)
for target in tests/fuzz/fuzz_*.c; do
    name=$(basename "$target" .c)
    corpus=$BUILD/fuzz/corpus-${name#fuzz_}
    mkdir -p "$corpus"
    # shellcheck disable=SC2086 # lists of flags and files
    clang -g -O1 -std=gnu11 -D_GNU_SOURCE -DVITD_VERSION='"fuzz"' \
        -fsanitize=fuzzer,address,undefined -I. -Iinclude $INCLUDES "$target" $sources $LIBS -o "$BUILD/fuzz/$name"
    "$BUILD/fuzz/$name" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 \
        -artifact_prefix="$BUILD/fuzz/" "$corpus" "tests/fuzz/corpus-${name#fuzz_}"
done
