#!/bin/sh
# Fuzzes every target built under BUILD for SECONDS each, starting from its corpus. usage: tests/fuzz/fuzz.sh BUILD SECONDS
# Crashing inputs are left in BUILD; add them to the corpus once mended. Called by `make fuzz`.
set -eu
build=$1 seconds=$2
for target in "$build"/tests/fuzz_*; do
    case $target in *.d | *.o) continue ;; esac
    name=${target##*/fuzz_}
    corpus=$build/corpus-$name
    mkdir -p "$corpus"
    echo "== $name"
    "$target" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -artifact_prefix="$build/" \
        "$corpus" "tests/fuzz/corpus-$name"
done
