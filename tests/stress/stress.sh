#!/bin/sh
# Use that a daemon sees in months, one line of result for each kind. usage: tests/stress/stress.sh BUILD [NAME...]
# Without names: all of them. Their lengths are in the environment: STRESS_SIGTERMS (1000), STRESS_SIGHUPS (200),
# STRESS_KILLS (200), STRESS_ROUNDS (6) of slow, STRESS_SECONDS (20) of overload, STRESS_REQUESTS (1000000) of million;
# STRESS_SHORT=1 sets those that are not set for about two minutes in all. Exits with 1 if a bound was broken.
# slow and overload measure times: they want a machine that does nothing else.
set -u
build=$1
shift
[ $# -gt 0 ] || set -- sigterm sighup kill slow overload million
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
export VITD_BINARY="$build/vitd"
if [ -n "${STRESS_SHORT:-}" ]; then
    export STRESS_SIGTERMS="${STRESS_SIGTERMS:-50}" STRESS_SIGHUPS="${STRESS_SIGHUPS:-60}" \
        STRESS_KILLS="${STRESS_KILLS:-20}" STRESS_ROUNDS="${STRESS_ROUNDS:-2}" STRESS_SECONDS="${STRESS_SECONDS:-5}" \
        STRESS_REQUESTS="${STRESS_REQUESTS:-200000}"
fi
failed=0
for name; do
    "$build/tests/stress/$name" || failed=1
done
exit $failed
