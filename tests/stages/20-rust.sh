#!/usr/bin/env bash
# The Rust tests of the core, in the test profile; those of clients, servers in processes of their own
# and the command are 48-server's.
# budget: core
source "$(dirname "$0")/lib.sh"

passes "Rust tests" cargo test --locked --workspace --exclude fastmq-tidy \
    --exclude fastmq --exclude fastmq-cli --no-fail-fast
