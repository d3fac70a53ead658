#!/bin/sh
# Tests the page of the vitd built under BUILD in headless Chromium. Needs the packages chromium, chromium-driver, python3.
# usage: tests/web/run.sh BUILD [--screenshot FILE.png]
set -u
if [ $# -lt 1 ]; then
    sed -n '2,3s/^# //p' "$0" >&2
    exit 2
fi
build=$1
shift
for program in chromium chromedriver python3; do
    if ! command -v "$program" >/dev/null; then
        echo "tests/web: there is no $program; install the packages chromium, chromium-driver and python3" >&2
        exit 2
    fi
done
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
exec python3 -B "${0%/*}/test_page.py" "$build/vitd" "$@"
