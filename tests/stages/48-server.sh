#!/usr/bin/env bash
# The Rust tests of what needs a server: the library's clients against servers in processes of their
# own, and the command.
# budget: server
source "$(dirname "$0")/lib.sh"

passes "Rust tests of clients and of the command" cargo test --locked -p fastmq -p fastmq-cli \
    --no-fail-fast
