#!/usr/bin/env bash
# The C++ header: compiles without a warning with every compiler and standard that is here, covers
# the whole C header, and its tests and examples run, the tests also under valgrind where they say
# /* valgrind */.
# budget: c
source "$(dirname "$0")/lib.sh"

# valgrind keeps all other threads waiting while one waits in io_uring_enter, so it has epoll.
valgrind=(env FASTMQ_DRIVER=epoll valgrind --quiet --fair-sched=try)

include=(-Iinclude -Ibindings/cpp)
strict=(-Wall -Wextra -Wpedantic -Wshadow -Werror)
# What `make build` has made; the programs stand two levels below build.
link=(-Lbuild/lib -lfastmq "-Wl,-rpath,\$ORIGIN/../../lib" -lpthread)
out=build/cpp
mkdir -p "$out/tests" "$out/examples"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# flags_of SOURCE: the flags that a source asks for by /* flags: ... */.
flags_of() { sed -nE 's|^/\* flags: (.*) \*/$|\1|p' "$1"; }

check "the C++ header covers all of the C header" python3 tests/cpp/covers.py

# Each part alone, so that each includes what it uses.
parts=()
for part in bindings/cpp/fastmq.hpp bindings/cpp/fastmq/*.hpp; do
    name=$(basename "$part" .hpp)
    [ "$part" = bindings/cpp/fastmq.hpp ] && name=all
    echo "#include \"${part#bindings/cpp/}\"" >"$work/$name.cpp"
    parts+=("$work/$name.cpp")
done
check "each part of the header compiles alone" \
    c++ -std=c++17 "${include[@]}" "${strict[@]}" -fsyntax-only "${parts[@]}"

python3 tests/cpp/covers.py --statuses >"$work/statuses.cpp"
check "the statuses have their frozen numbers" \
    c++ -std=c++17 "${include[@]}" -fsyntax-only "$work/statuses.cpp"

# The examples and the test without exceptions use most templates.
for compiler in g++ clang++; do
    for standard in c++17 c++20; do
        name="$compiler -std=$standard"
        if ! command -v "$compiler" >/dev/null; then
            skip "$name" "$compiler is not installed"
            continue
        fi
        check "$name compiles the header" "$compiler" "-std=$standard" "${include[@]}" \
            "${strict[@]}" -fsyntax-only "$work/all.cpp" examples/cpp/*.cpp
        check "$name -fno-exceptions compiles the header" "$compiler" "-std=$standard" \
            "${include[@]}" "${strict[@]}" -fno-exceptions -fno-rtti -fsyntax-only \
            "$work/all.cpp" tests/cpp/no_exceptions.cpp
    done
done

check "the programs of benches/cpp compile" make --no-print-directory -s -C benches/cpp check

# compile SOURCE PROGRAM FLAG...: in the background, two at a time.
compile() {
    local source=$1 program=$2
    shift 2
    while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n; done
    rm -f "$program"
    c++ -std=c++17 "${include[@]}" "${strict[@]}" -g "$@" "$source" -o "$program" "${link[@]}" &
}

tests=$(files tests/cpp/*.cpp)
examples=$(files examples/cpp/*.cpp)
for source in $tests; do
    # shellcheck disable=SC2046 # Flags are words.
    compile "$source" "$out/tests/$(basename "$source" .cpp)" -O1 $(flags_of "$source")
done
for source in $examples; do
    compile "$source" "$out/examples/$(basename "$source" .cpp)" -O2
done
wait

for source in $tests; do
    name=$(basename "$source" .cpp)
    program=$out/tests/$name
    if [ ! -x "$program" ]; then
        not_ok "$source compiles"
        continue
    fi
    tap "C++ $name" "$program"
    grep -q '/\* valgrind \*/' "$source" || continue
    if ! command -v valgrind >/dev/null; then
        skip "C++ $name under valgrind" "valgrind is not installed"
        continue
    fi
    TAP_SECONDS=300 tap "C++ $name under valgrind" "${valgrind[@]}" --error-exitcode=99 \
        --leak-check=full --show-leak-kinds=definite,indirect --errors-for-leak-kinds=definite \
        "$program"
done
for source in $examples; do
    program=$out/examples/$(basename "$source" .cpp)
    if [[ $program = *_client ]]; then
        make --no-print-directory build/examples/market_server
        check "$source with market_server.c" market "$program"
        continue
    fi
    example "$source" "$program"
done
