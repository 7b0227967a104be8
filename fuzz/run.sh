#!/usr/bin/env bash
# Fuzzes each target for SECONDS (60), from the corpus that it keeps in fuzz/corpus, with
# AddressSanitizer and coverage guidance. Ends with an error at the first finding, which it leaves
# in fuzz/findings.
#
#     fuzz/run.sh [SECONDS [TARGET...]]
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-60}
shift || true
targets=("$@")
[ "${#targets[@]}" -gt 0 ] || mapfile -t targets < <(sed -nE 's/^name = "([a-z_]+)"$/\1/p' Cargo.toml)

# The compiler is the pinned stable one; these flags are what cargo-fuzz gives a nightly one.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Zsanitizer=address -Cpasses=sancov-module -Ccodegen-units=1 \
-Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
target=$(rustc -vV | sed -n 's/^host: //p')
directory=${CARGO_TARGET_DIR:-../target}/fuzz
CARGO_TARGET_DIR=$directory cargo build --quiet --locked --release --target "$target"

mkdir -p findings
for name in "${targets[@]}"; do
    mkdir -p "corpus/$name"
    echo "fuzz: $name for $seconds s"
    "$directory/$target/release/$name" -max_total_time="$seconds" -max_len=4200 -timeout=10 \
        -print_final_stats=1 -verbosity=0 -artifact_prefix="findings/$name-" "corpus/$name" \
        2>&1 | grep -E "stat::(number_of_executed_units|new_units_added)|ERROR|panicked|SUMMARY|artifact" || true
    # The pipe hides the status of the target.
    if compgen -G "findings/$name-*" >/dev/null; then
        echo "fuzz: $name found something: see fuzz/findings" >&2
        exit 1
    fi
done
