#!/usr/bin/env bash
# Every example in C and Rust compiles and ends with 0. The programs of examples/output are there in
# every language; 54-cpp, 80-python and 82-node run theirs.
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
    example "$source" "build/examples/$name"
done

for client in market_client market_loop_client; do
    [ -x "build/examples/$client" ] || continue
    check "examples/c/$client.c with market_server.c" market "build/examples/$client"
done

# With the profile of the Rust tests, which have built most of it.
if cargo build --locked --quiet --profile test -p fastmq --examples; then
    ok "the examples in Rust compile"
    for source in $(files examples/rust/*.rs); do
        program=$TARGET/debug/examples/$(basename "$source" .rs)
        [[ $program = *_client ]] || example "$source" "$program"
    done
    check "examples/rust/market_client.rs with market_server.c" \
        market "$TARGET/debug/examples/market_client"
else
    not_ok "the examples in Rust compile"
fi

for printed in examples/output/*.txt; do
    name=$(basename "$printed" .txt)
    for source in c/$name.c cpp/$name.cpp rust/$name.rs python/$name.py node/$name.mjs; do
        check "there is examples/$source" test -e "examples/$source"
    done
done

# What README.md says that the first program prints.
if [ -x build/examples/hello ]; then
    check "the first program prints what README.md says" \
        test "$(timeout 60 build/examples/hello </dev/null)" = "greet.world: hello"
fi

# The bench programs use the same header; running them is `make bench`.
if [ -e benches/Makefile ]; then
    check "the bench programs compile" make --no-print-directory -C benches check
fi
