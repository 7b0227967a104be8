#!/usr/bin/env bash
# The tests of the Python package with its native half under AddressSanitizer; a part of make soak
# (THOROUGH), as it builds all of it once more.
# budget: bindings
# timeout: 1800
source "$(dirname "$0")/lib.sh"

name="the Python package under AddressSanitizer"
if [ -z "${THOROUGH:-}" ]; then
    skip "$name" "a part of make soak"
    exit 0
fi
# The environment with what the tests need, which the stage before has made.
python=$ROOT/build/python/venv/bin/python
runtime=$(cc -print-file-name=libasan.so)
if [ "$(uname -m)" != x86_64 ] || [ ! -x "$python" ] || [[ $runtime != /* ]]; then
    skip "$name" "it needs x86-64, the environment of stage 80 and libasan"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The compiler is the pinned stable one; the sanitizer is switched on for this build alone.
if ! PYO3_PYTHON=$(command -v python3) RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address \
    CARGO_TARGET_DIR="$TARGET/asan" cargo build --locked \
    --manifest-path bindings/python/Cargo.toml --target "$HOST_TARGET"; then
    not_ok "the extension module builds with AddressSanitizer"
    exit 0
fi
cp -r bindings/python/python/fastmq "$work"
cp "$TARGET/asan/$HOST_TARGET/debug/lib_fastmq.so" "$work/fastmq/_fastmq.abi3.so"

# Python's objects come from malloc too, so that the sanitizer sees whoever reads one that is gone.
# What is left at the end is the interpreter's own.
export PYTHONPATH=$work PYTHONMALLOC=malloc PYTHONDONTWRITEBYTECODE=1
export ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=8 LD_PRELOAD=$runtime
for file in bindings/python/tests/test_*.py; do
    module=$(basename "$file" .py)
    TAP_SECONDS=600 tap "Python under AddressSanitizer, $module" \
        "$python" -X faulthandler bindings/python/tests/tap.py "$module"
done
