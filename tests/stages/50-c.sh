#!/usr/bin/env bash
# The C tests against the release library: plain, and under valgrind where a test says
# /* valgrind */.
# budget: c
source "$(dirname "$0")/lib.sh"

# valgrind keeps all other threads waiting while one waits in io_uring_enter, so it has epoll.
valgrind=(env FASTMQ_DRIVER=epoll valgrind --quiet --fair-sched=try)

sources=$(files tests/c/*.c)
if [ -z "$sources" ]; then
    skip "C tests" "tests/c has no program"
    exit 0
fi
for source in $sources; do
    name=$(basename "$source" .c)
    if ! make --no-print-directory "build/tests/$name"; then
        not_ok "$name compiles"
        continue
    fi
    tap "$name" "build/tests/$name"
    grep -q '/\* valgrind \*/' "$source" || continue
    if ! command -v valgrind >/dev/null; then
        skip "$name under valgrind" "valgrind is not installed"
        continue
    fi
    TAP_SECONDS=300 tap "$name under valgrind" "${valgrind[@]}" --error-exitcode=99 \
        --leak-check=full --show-leak-kinds=definite,indirect --errors-for-leak-kinds=definite \
        "build/tests/$name"
done
