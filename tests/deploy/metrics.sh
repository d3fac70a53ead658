#!/bin/bash
# Has promtool check GET /metrics of the vitd built under BUILD after requests of all kinds, and looks for each metric
# that is documented. usage: tests/deploy/metrics.sh BUILD
set -u
if [ $# -ne 1 ]; then
    sed -n '3s/.*usage/usage/p' "$0" >&2
    exit 2
fi
build=$1 failed=0
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
# shellcheck source=tests/deploy/common.sh
. "${0%/*}/common.sh"

documented='vitd_requests_total vitd_images_total vitd_queue_depth vitd_inflight_requests vitd_batch_size
    vitd_request_duration_seconds vitd_queue_duration_seconds vitd_preprocess_duration_seconds
    vitd_inference_duration_seconds vitd_rejected_total vitd_model_info vitd_build_info process_cpu_seconds_total
    process_resident_memory_bytes process_virtual_memory_bytes process_open_fds process_max_fds
    process_start_time_seconds'

# expect STATUS METHOD PATH [FILE]
expect() {
    local found
    found=$(status "$port" "${@:2}")
    [ "$found" = "$1" ] || die "${*:2}: found status ${found:-none}, expected $1"
}

find_programs
scratch=$(mktemp -d)
trap 'stop_all; rm -rf "$scratch"' EXIT
start_vitd "$scratch/log" --port 0 --model vit=config/models/vit-tiny-64
cat=config/samples/cat.jpg
head -c 1000 $cat >"$scratch/cut.jpg"
expect 200 POST /classify $cat
expect 200 POST '/classify?attention=legrad' $cat
expect 200 POST /explain $cat
expect 200 POST /embed $cat
expect 400 POST '/classify?top_k=many' $cat
expect 415 POST /classify LICENSE
expect 422 POST /classify "$scratch/cut.jpg"
expect 404 GET /nothing
expect 405 GET /classify
expect 200 GET /models
expect 200 GET /readyz

body "$port" GET /metrics >"$scratch/metrics"
"$promtool" check metrics <"$scratch/metrics" >"$scratch/found" 2>&1 || failed=1
if [ -s "$scratch/found" ]; then
    sed 's/^/promtool: /' "$scratch/found"
    failed=1
fi
for name in $documented; do
    grep -qE "^$name(_count)?[{ ]" "$scratch/metrics" || { echo "metrics: there is no $name"; failed=1; }
done
[ "$failed" -ne 0 ] || echo "metrics: $(grep -c '^# TYPE' "$scratch/metrics") of them, and nothing for promtool to say"
exit "$failed"
