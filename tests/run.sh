#!/bin/sh
# Runs every suite built under BUILD, replays the fuzz corpora, and sums up. usage: tests/run.sh BUILD
set -u
build=$1
export VITD_BINARY="$build/vitd" OPENBLAS_NUM_THREADS=1
unset OPENBLAS_L2_SIZE
passed=0 failed=0
for suite in "$build"/tests/test_*; do
    case $suite in *.d | *.o) continue ;; esac
    echo "== ${suite##*/}"
    if "$suite"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED: ${suite##*/}"; fi
done
for target in "$build"/tests/fuzz_*; do
    [ -e "$target" ] || continue
    case $target in *.d | *.o) continue ;; esac
    name=${target##*/fuzz_}
    if "$target" tests/fuzz/corpus-"$name"/*; then passed=$((passed + 1)); else
        failed=$((failed + 1)); echo "FAILED: corpus $name"; fi
done
echo
echo "suites: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
