#!/usr/bin/env bash
# The models of core/memory and core/route: every interleaving up to two preemptions; up to three in
# make soak (THOROUGH).
# budget: core
source "$(dirname "$0")/lib.sh"

if [ ! -e core/memory/tests/loom.rs ]; then
    skip "loom models" "core/memory/tests/loom.rs is not there"
    exit 0
fi
export RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-$((2 + ${THOROUGH:-0}))}"
export CARGO_TARGET_DIR="$TARGET/loom" CARGO_PROFILE_RELEASE_LTO=off
export CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
passes "loom models of memory" cargo test --locked -p fastmq-memory --release --test loom
passes "loom models of route" cargo test --locked -p fastmq-route --release --lib models::
