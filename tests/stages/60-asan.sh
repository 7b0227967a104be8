#!/usr/bin/env bash
# AddressSanitizer over the library with the C tests, and over the Rust tests of the crates that
# have unsafe code.
# budget: core
source "$(dirname "$0")/lib.sh"

if [ "$(uname -m)" != x86_64 ]; then
    skip "AddressSanitizer" "this stage knows x86-64 only"
    exit 0
fi
# The compiler is the pinned stable one; the sanitizer is switched on for this build alone.
export RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR="$TARGET/asan"
export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1
suppressions=$ROOT/tests/support/lsan.txt
[ -e "$suppressions" ] && export LSAN_OPTIONS="suppressions=$suppressions"

passes "Rust tests under AddressSanitizer" cargo test --locked -p fastmq-memory \
    -p fastmq-driver --lib --tests --target "$HOST_TARGET" --no-fail-fast

sources=$(files tests/c/*.c)
if [ -z "$sources" ]; then
    skip "C tests under AddressSanitizer" "tests/c has no program"
    exit 0
fi
if ! cargo build --locked -p fastmq-ffi --target "$HOST_TARGET"; then
    not_ok "the library builds with AddressSanitizer"
    exit 0
fi
library=$CARGO_TARGET_DIR/$HOST_TARGET/debug
ln -sf libfastmq_c.so "$library/libfastmq.so"
ln -sf libfastmq_c.so "$library/libfastmq.so.0"
mkdir -p build/asan
for source in $sources; do
    name=$(basename "$source" .c)
    # A test that counts allocations replaces malloc, which is the sanitizer's to do.
    if grep -q '/\* no asan' "$source"; then
        skip "$name under AddressSanitizer" "its source says no asan"
        continue
    fi
    if ! make --no-print-directory "build/asan/$name" ASAN_LIB="$library"; then
        not_ok "$name compiles with AddressSanitizer"
        continue
    fi
    tap "$name under AddressSanitizer" "build/asan/$name"
done
