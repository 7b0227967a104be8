#!/usr/bin/env bash
# What the shared library shows to the linker: names, SONAME, what it needs, its size.
# budget: c
source "$(dirname "$0")/lib.sh"

library=build/lib/libfastmq.so
if [ ! -e "$library" ]; then
    not_ok "$library is there"
    exit 0
fi
# The messaging core alone is to be below 2,000,000; servers and their clients are beside it here.
bytes_max=2500000

exported() { nm -D --defined-only "$library" | awk '{ print $3 }' | LC_ALL=C sort; }
if [ -e ffi/symbols.txt ]; then
    check "exported symbols are those of ffi/symbols.txt" diff -u ffi/symbols.txt <(exported)
else
    skip "exported symbols" "ffi/symbols.txt is not there"
fi
check "the SONAME is libfastmq.so.0" \
    test "$(readelf -d "$library" | sed -nE 's/.*\(SONAME\).*\[(.*)\]/\1/p')" = libfastmq.so.0

needed=$(readelf -d "$library" | sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p' |
    grep -vE '^(libc|libgcc_s)\.so\.[0-9]+$|^ld-linux' | tr '\n' ' ')
[ -z "$needed" ] || echo "needed beyond libc and libgcc_s: $needed"
check "the library needs libc and libgcc_s only" test -z "$needed"

stripped=$(mktemp)
trap 'rm -f "$stripped"' EXIT
strip -o "$stripped" "$library"
bytes=$(stat -c %s "$stripped")
echo "libfastmq.so, stripped: $bytes bytes"
check "libfastmq.so, stripped, is below $bytes_max bytes" test "$bytes" -lt "$bytes_max"
