#!/usr/bin/env bash
# Every example compiles and ends with 0: with --check where its text has that word (a short run
# without endless loops), else without an argument.
# budget: c
source "$(dirname "$0")/lib.sh"

sources=$(files examples/c/*.c)
if [ -z "$sources" ]; then
    skip "examples" "examples/c has no program"
    exit 0
fi
for source in $sources; do
    name=$(basename "$source" .c)
    if ! make --no-print-directory "build/examples/$name"; then
        not_ok "examples/c/$name.c compiles"
        continue
    fi
    # A server and its client are run together, below.
    [[ $name = *_client || $name = *_server ]] && continue
    arguments=()
    grep -q -e '--check' "$source" && arguments=(--check)
    check "examples/c/$name.c ${arguments[*]:-}" \
        timeout --kill-after=10 60 "build/examples/$name" "${arguments[@]}" </dev/null
done

for client in market_client market_loop_client; do
    [ -x "build/examples/$client" ] || continue
    check "examples/c/$client.c with market_server.c" market "build/examples/$client"
done

# With the profile of the Rust tests, which have built most of it.
if cargo build --locked --quiet --profile test -p fastmq --example market_client; then
    check "examples/rust/market_client.rs with market_server.c" \
        market "$TARGET/debug/examples/market_client"
else
    not_ok "examples/rust/market_client.rs compiles"
fi

# What README.md says that the first program prints.
if [ -x build/examples/hello ]; then
    check "the first program prints what README.md says" \
        test "$(timeout 60 build/examples/hello </dev/null)" = "greet.world: hello"
fi

# The bench programs use the same header; running them is `make bench`.
if [ -e benches/Makefile ]; then
    check "the bench programs compile" make --no-print-directory -C benches check
fi
