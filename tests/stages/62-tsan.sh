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

passes "ThreadSanitizer" cargo test --locked -p fastmq-driver -p fastmq-memory \
    -p fastmq-route --lib --tests --target "$HOST_TARGET" --no-fail-fast
# The engine's own locks are the standard library's, which the sanitizer does not see: it reports
# what they guard. Until they are instrumented as memory's are (`memory::sync`), its tests prove
# nothing here.
skip "ThreadSanitizer over fastmq-engine" "std's Mutex and OnceLock are not instrumented"
