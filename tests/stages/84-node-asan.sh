#!/usr/bin/env bash
# The tests of the Node package with its native half under AddressSanitizer; a part of make soak
# (THOROUGH), as it builds all of it once more.
# budget: bindings
# timeout: 1200
source "$(dirname "$0")/lib.sh"

name="the Node package under AddressSanitizer"
if [ -z "${THOROUGH:-}" ]; then
    skip "$name" "a part of make soak"
    exit 0
fi
runtime=$(cc -print-file-name=libasan.so)
if [ "$(uname -m)" != x86_64 ] || ! command -v node >/dev/null || [[ $runtime != /* ]]; then
    skip "$name" "it needs x86-64, Node and libasan"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The compiler is the pinned stable one; the sanitizer is switched on for this build alone.
if ! RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR="$TARGET/asan" cargo build \
    --locked --manifest-path bindings/node/Cargo.toml --target "$HOST_TARGET"; then
    not_ok "the native half builds with AddressSanitizer"
    exit 0
fi
cp -r bindings/node/{index.cjs,index.mjs,package.json,lib} "$work"
mkdir -p "$work/prebuilt/linux-x64-gnu"
cp "$TARGET/asan/$HOST_TARGET/debug/libfastmq_node.so" "$work/prebuilt/linux-x64-gnu/fastmq.node"

# Leaks are Node's own, which frees little at its end. What is freed waits in 8 MiB, so that the
# test that looks at the memory of the process can.
export FASTMQ_NODE=$work ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=8
TAP_SECONDS=600 tap "Node under AddressSanitizer" \
    env LD_PRELOAD="$runtime" node --expose-gc --test --test-reporter tap tests/node/*.test.mjs
