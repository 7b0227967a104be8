#!/usr/bin/env bash
# Other targets, where they are installed (rustup target add TARGET).
# budget: core
source "$(dirname "$0")/lib.sh"

installed=$(rustc --print target-libdir --target "$HOST_TARGET" 2>/dev/null)
for target in aarch64-unknown-linux-gnu x86_64-unknown-linux-musl; do
    if [ ! -d "${installed/$HOST_TARGET/$target}" ]; then
        skip "cargo check for $target" "the target is not installed"
        continue
    fi
    check "cargo check for $target" \
        env CARGO_TARGET_DIR="$TARGET/cross" cargo check --locked --workspace --target "$target"
done
