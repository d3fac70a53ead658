#!/bin/sh
# Runs every suite built under BUILD, replays the fuzz corpora, and sums up. usage: tests/run.sh BUILD
# Suites of the engine alone go side by side; those that time a daemon, or threads, have the machine to themselves.
set -u
build=$1
export VITD_BINARY="$build/vitd" OPENBLAS_NUM_THREADS=1
unset OPENBLAS_L2_SIZE
engine='' others='' count=0
for suite in "$build"/tests/test_*; do
    name=${suite##*/}
    case $name in *.d | *.o) continue ;; esac
    count=$((count + 1))
    if grep -qE '"(server/|tests/daemon)' "tests/$name.c"; then others="$others $name"; else engine="$engine $name"; fi
done

# shellcheck disable=SC2016 # the inner shell expands them; it prints the names of those that fail
failed=$(echo "$engine" | xargs -r -n 1 -P "$(nproc)" sh -c '
    output=$("$0/tests/$1" 2>&1) || echo " $1"
    printf "== %s\n%s\n" "$1" "$output" >&2' "$build" | tr -d '\n')
for name in $others; do
    echo "== $name"
    "$build/tests/$name" || failed="$failed $name"
done
for target in "$build"/tests/fuzz_*; do
    name=${target##*/fuzz_}
    case $name in \* | *.d | *.o) continue ;; esac
    count=$((count + 1))
    "$target" tests/fuzz/corpus-"$name"/* || failed="$failed corpus-$name"
done

# shellcheck disable=SC2086
set -- $failed
echo
echo "suites: $((count - $#)) passed, $# failed${failed:+:$failed}"
[ $# -eq 0 ]
