#!/usr/bin/env bash
# All languages alike: each runs the scenarios and finds the wrong ones, then each publishes to,
# asks and answers each. Python and Node are those that their stages have built.
# budget: bindings
source "$(dirname "$0")/lib.sh"

scenarios=tests/scenarios
out=build/languages
python=build/python/venv/bin/python
mkdir -p "$out"
export PYTHONDONTWRITEBYTECODE=1 FASTMQ_NODE=$ROOT/bindings/node
strict=(-Wall -Wextra -Wpedantic -Wshadow -Werror -g -Iinclude)
link=(-Lbuild/lib -lfastmq "-Wl,-rpath,\$ORIGIN/../lib" -lpthread)

declare -A runners
if [ ! -e build/lib/libfastmq.so ]; then
    skip "C, C++ and the server" "make build has not made the library"
    exit 0
fi
if cc -std=gnu11 "${strict[@]}" "$scenarios/runner.c" -o "$out/runner_c" "${link[@]}"; then
    runners[c]=$out/runner_c
else
    not_ok "the runner in C compiles"
fi
if c++ -std=c++17 "${strict[@]}" -Ibindings/cpp "$scenarios/runner.cpp" -o "$out/runner_cpp" \
    "${link[@]}"; then
    runners[cpp]=$out/runner_cpp
else
    not_ok "the runner in C++ compiles"
fi
# With the profile of the Rust tests, which have built most of it.
if cargo build --locked --quiet --profile test -p fastmq-scenarios; then
    runners[rust]=$TARGET/debug/scenario_runner
else
    not_ok "the runner in Rust compiles"
fi
if [ -x "$python" ] && "$python" -c 'import fastmq' 2>/dev/null; then
    runners[python]="$python $scenarios/runner.py"
else
    skip "Python among the languages" "the stage python has not installed the package"
fi
if [ -n "$(files bindings/node/prebuilt/*/fastmq.node)" ] && command -v node >/dev/null; then
    runners[node]="node $scenarios/runner.mjs"
else
    skip "Node among the languages" "the stage node has not built the package"
fi

# Python and Node run these vectors among their own tests; what C calls is Rust.
python3 tests/vectors/headers.py >"$out/headers.inc"
strict+=("-I$out" -Wno-overlength-strings)
if cc -std=gnu11 "${strict[@]}" tests/vectors/headers.c -o "$out/headers_c" "${link[@]}" -lm; then
    tap "vectors of headers in C" "$out/headers_c"
else
    not_ok "the vectors of headers in C compile"
fi
if c++ -std=c++17 "${strict[@]}" -Ibindings/cpp tests/vectors/headers.cpp -o "$out/headers_cpp" \
    "${link[@]}"; then
    tap "vectors of headers in C++" "$out/headers_cpp"
else
    not_ok "the vectors of headers in C++ compile"
fi

# finds_wrong LANGUAGE: its runner says of each wrong scenario that its last line is wrong.
finds_wrong() {
    local language=$1 file name
    # shellcheck disable=SC2086 # A command is words.
    timeout --kill-after=10 60 ${runners[$language]} "$scenarios"/wrong/*.scenario \
        >"$out/wrong" 2>&1 </dev/null
    for file in "$scenarios"/wrong/*.scenario; do
        name=$(basename "$file" .scenario)
        check "$language finds what is wrong in $name" \
            grep -qF "not ok - $name: line $(wc -l <"$file"): " "$out/wrong"
    done
}

peers=()
for language in c cpp python node rust; do
    [ -n "${runners[$language]:-}" ] || continue
    # shellcheck disable=SC2086
    tap "scenarios in $language" ${runners[$language]} "$scenarios"/*.scenario
    [ "$language" != python ] || tap "scenarios in python by asyncio" \
        ${runners[python]} --aio "$scenarios"/*.scenario
    finds_wrong "$language"
    peers+=("$language=${runners[$language]}")
done
tap "interop" python3 tests/interop/run.py build/bin/fastmq "${peers[@]}"
