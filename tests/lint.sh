#!/bin/sh
# The checks of `make lint`: include directions (always), shellcheck and cppcheck (where installed).
set -u
failed=0

# Which folders a folder's files may include. A folder may always include itself.
allowed() {
    case $1 in
    include) echo "include" ;;
    engine/base) echo "include" ;;
    engine/store | engine/image) echo "include engine/base" ;;
    engine/picture) echo "include engine/base" ;;
    engine/text) echo "include engine/base engine/store" ;;
    engine/math/kernels) echo "" ;;
    engine/math) echo "include engine/base engine/math/kernels" ;;
    engine/layers) echo "include engine/base engine/math engine/math/kernels" ;;
    engine/arch) echo "include engine/base engine/store engine/layers engine/math engine/math/kernels" ;;
    engine/explain) echo "include engine/base engine/layers" ;;
    engine/model) echo "include engine/base engine/store engine/arch engine/explain engine/math engine/text" ;;
    server) echo "include server/http server/models server/work" ;;
    server/http) echo "include server server/models server/work server/http/web" ;;
    server/http/web) echo "" ;;
    server/models) echo "include server server/work" ;;
    server/work) echo "include server" ;;
    *) echo "UNKNOWN" ;;
    esac
}

for file in include/*.h engine/*/*.[ch] engine/*/*/*.[ch] server/*.[ch] server/*/*.[ch] server/*/*/*.[ch]; do
    [ -e "$file" ] || continue
    folder=${file%/*}
    sed -n 's/^ *#include "\([^"]*\)".*/\1/p' "$file" | while read -r included; do
        case $included in
        */*) target=${included%/*} ;;
        *) target=include ;;
        esac
        [ "$target" = "$folder" ] && continue
        case " $(allowed "$folder") " in
        *" $target "*) ;;
        *) echo "$file: must not include $included ($folder may include: $(allowed "$folder"))" ;;
        esac
    done
done >"${TMPDIR:-/tmp}/vitd-lint.$$"
cat "${TMPDIR:-/tmp}/vitd-lint.$$"
[ -s "${TMPDIR:-/tmp}/vitd-lint.$$" ] && failed=1
rm -f "${TMPDIR:-/tmp}/vitd-lint.$$"

# The engine serves any program: no HTTP, no logging, no exit, no threads.
if grep -nE '#include <(microhttpd|systemd|pthread|syslog)|\b(exit|abort|fprintf|printf|perror|pthread_create)\(' \
    engine/*/*.[ch] engine/*/*/*.[ch]; then
    echo "the engine must not print, exit, start threads or know HTTP"
    failed=1
fi
# The HTTP library stays behind one folder, the queue knows nothing of it.
if grep -ln 'microhttpd' server/*.[ch] server/work/*.[ch]; then
    echo "libmicrohttpd belongs in server/http"
    failed=1
fi
if command -v shellcheck >/dev/null; then
    shellcheck tests/*.sh tests/*/*.sh .ci/run || failed=1
fi
if command -v cppcheck >/dev/null; then
    cppcheck --quiet --error-exitcode=1 --enable=warning,performance,portability --inline-suppr --std=c11 \
        --suppress=missingIncludeSystem -I. -Iinclude -D__x86_64__ -DVITD_VERSION='""' \
        -DLANES=8 engine server || failed=1
fi
[ "$failed" -eq 0 ] && echo "lint: clean"
exit "$failed"
