#!/bin/sh
# The page in a real browser: a daemon on a free port, chromium under chromedriver, and page.py, which drives it.
# usage: tests/web/run.sh BUILD [SCREENSHOT.png]
set -eu
build=$1
screenshot=${2:-}
folder=$(mktemp -d)
daemon='' driver=''
trap 'kill $daemon $driver 2>/dev/null; wait 2>/dev/null; rm -rf "$folder"' EXIT INT TERM

"$build/vitd" serve --port 0 ${VITD_WEB_MODEL:+--model "$VITD_WEB_MODEL"} 2>"$folder/vitd.log" &
daemon=$!
chromedriver --port=0 --log-path="$folder/driver.log" >"$folder/driver.out" 2>&1 &
driver=$!

# what a log says after the words; both write it once they listen
wait_for() {
    tries=0
    until found=$(sed -n "s/.*$2\([0-9][0-9]*\).*/\1/p" "$1" | head -n 1) && [ -n "$found" ]; do
        tries=$((tries + 1))
        [ $tries -lt 200 ] || { echo "nothing listens:"; cat "$1"; exit 1; }
        sleep 0.1
    done
    echo "$found"
}
port=$(wait_for "$folder/vitd.log" 'listening on http:\/\/127\.0\.0\.1:')
driver_port=$(wait_for "$folder/driver.out" 'started successfully on port ')
python3 "$(dirname "$0")/page.py" "http://127.0.0.1:$port/" "http://127.0.0.1:$driver_port" "$folder" "$screenshot"
