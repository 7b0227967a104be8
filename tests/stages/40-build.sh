#!/usr/bin/env bash
# The release build that every later stage looks at.
# budget: c
source "$(dirname "$0")/lib.sh"

check "make build" make --no-print-directory build
for file in lib/libfastmq.so lib/libfastmq.so.0 lib/libfastmq.a bin/fastmq; do
    check "build/$file is there" test -s "build/$file"
done
