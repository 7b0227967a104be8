#!/usr/bin/env bash
# The rules that a tool can check: form, lints, house rules, vectors.
# budget: core
source "$(dirname "$0")/lib.sh"

check "cargo fmt" cargo fmt --all --check
check "clippy" cargo clippy --locked --workspace --all-targets --quiet -- -D warnings
check "vectors are what generate.py makes" python3 tests/vectors/generate.py --check
check "vectors are what protocol.py makes" python3 tests/vectors/protocol.py --check
check "a stranger reads the protocol's vectors" python3 tests/protocol/stranger.py
check "the runner counts what stages say" python3 tests/stages/run_test.py
passes "house rules" cargo test --locked -p fastmq-tidy --no-fail-fast
