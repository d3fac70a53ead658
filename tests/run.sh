#!/bin/sh
# Runs every suite built under BUILD, replays the fuzz corpora, and sums up. usage: tests/run.sh BUILD
set -u
build=$1
export VITD_BINARY="$build/vitd" OPENBLAS_NUM_THREADS=1
unset OPENBLAS_L2_SIZE
passed=0 failed=0 names=
# Counts what has just ended with that status.
count() {
    if [ "$1" -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)) names="$names $2"; fi
}
for suite in "$build"/tests/test_*; do
    case $suite in *.d | *.o) continue ;; esac
    echo "== ${suite##*/}"
    "$suite"
    count $? "${suite##*/}"
done
for target in "$build"/tests/fuzz_*; do
    [ -e "$target" ] || continue
    case $target in *.d | *.o) continue ;; esac
    name=${target##*/fuzz_}
    "$target" tests/fuzz/corpus-"$name"/*
    count $? "corpus-$name"
done
echo
echo "suites: $passed passed, $failed failed${names:+:$names}"
[ "$failed" -eq 0 ]
