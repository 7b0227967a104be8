#!/usr/bin/env bash
# All Rust tests in the test profile.
# budget: core
source "$(dirname "$0")/lib.sh"

passes "Rust tests" cargo test --locked --workspace --exclude fastmq-tidy --no-fail-fast
