#!/usr/bin/env bash
# ThreadSanitizer over the tests of the crates where threads meet. The standard library is not
# instrumented: what it hides is in tests/support/tsan.txt, each line with its reason.
# budget: core
source "$(dirname "$0")/lib.sh"

if [ "$(uname -m)" != x86_64 ]; then
    skip "ThreadSanitizer" "this stage knows x86-64 only"
    exit 0
fi
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$TARGET/tsan"
# fastmq_tsan takes the portable fences: the sanitizer does not see membarrier.
export RUSTFLAGS="--cfg fastmq_tsan -Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer"
suppressions=$ROOT/tests/support/tsan.txt
export TSAN_OPTIONS="halt_on_error=0"
[ -e "$suppressions" ] && TSAN_OPTIONS+=":suppressions=$suppressions"

# Compiling is most of the time here. Names of inlined functions stay: the suppressions need them.
export CARGO_PROFILE_TEST_OPT_LEVEL=1

# Here the tests that start threads; make soak runs all (THOROUGH).
passes "ThreadSanitizer" cargo test --locked -p fastmq-memory -p fastmq-route --lib --tests \
    --target "$HOST_TARGET" --no-fail-fast
driver=(--test null --test simulated)
[ -n "${THOROUGH:-}" ] && driver=(--tests)
passes "ThreadSanitizer over the driver" cargo test --locked -p fastmq-driver --lib \
    "${driver[@]}" --target "$HOST_TARGET" --no-fail-fast
engine=(--tests)
if [ -z "${THOROUGH:-}" ]; then
    engine=()
    modules=()
    for source in $(grep -l -e 'thread::' -e 'Delivery::Thread' core/engine/tests/*{,/*}.rs); do
        name=$(basename "$source" .rs)
        case $source in
            */broker/* | */server/*) modules+=("$name::") ;;
            */tests/simulation.rs | */tests/*/*) ;;
            *) engine+=(--test "$name") ;;
        esac
    done
    passes "ThreadSanitizer over the broker and servers" cargo test --locked -p fastmq-engine \
        --test broker --test server --target "$HOST_TARGET" --no-fail-fast -- "${modules[@]}"
fi
passes "ThreadSanitizer over the engine" cargo test --locked -p fastmq-engine --lib \
    "${engine[@]}" --target "$HOST_TARGET" --no-fail-fast
