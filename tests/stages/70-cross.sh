#!/usr/bin/env bash
# The other targets: aarch64 with glibc under qemu-user (shared library), x86-64 with musl as it is
# (static library). The Rust tests of the crates where the target shows, and C programs: those of the
# list below, and all in make soak (THOROUGH). The engine's Rust tests stay at home: the C tests take
# the same ways.
# budget: core
source "$(dirname "$0")/lib.sh"

if [ "$(uname -m)" != x86_64 ]; then
    skip "other targets" "this stage knows x86-64 hosts only"
    exit 0
fi
export CARGO_TARGET_DIR="$TARGET/cross"
# Compiling is most of the time here, and nobody debugs these programs.
export CARGO_PROFILE_TEST_DEBUG=0 CARGO_PROFILE_TEST_OPT_LEVEL=1
arm=aarch64-unknown-linux-gnu
musl=x86_64-unknown-linux-musl
emulator=(qemu-aarch64 -L /usr/aarch64-linux-gnu)
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="${emulator[*]}"

programs=(tests/c/{layout,publish,queue,request,claim,latest,threads,fork}.c examples/c/flights.c)
[ -n "${THOROUGH:-}" ] && mapfile -t programs < <(files tests/c/*.c examples/c/*.c)

libraries() { rustc --print target-libdir --target "$1"; }

# missing TARGET [FILE PACKAGE]...: says the first thing that is not there, or fails.
missing() {
    [ -d "$(libraries "$1")" ] || { echo "needs rustup target add $1"; return; }
    shift
    while [ $# -gt 0 ]; do
        is_there "$1" || { echo "needs $1 (Debian: $2)"; return; }
        shift 2
    done
    return 1
}

# compile SOURCE PROGRAM, with the flags of the Makefile.
compile() {
    "${compiler[@]}" -std=gnu11 -Wall -Wextra -Wpedantic -Werror -O2 -Iinclude -Itests/c \
        -Itests/support -Iexamples/c "$1" -o "$2" "${link[@]}" -lpthread -lm
}

# cross TARGET: reads `crates` (whose Rust tests run), `compiler`, `link`, `run` (before each
# program), `except` (Rust tests and C programs that the target cannot run, skipped with `because`).
cross() {
    local target=$1 source name program arguments filter=()
    # In the profile of the tests, which then need not compile the crates again.
    if ! cargo build --locked --profile test -p fastmq-ffi --target "$target"; then
        not_ok "the library builds for $target"
        return
    fi
    ok "the library builds for $target"
    for name in "${except[@]}"; do
        skip "$name for $target" "$because"
        filter+=(--skip "$name")
    done
    if [ ${#crates[@]} -gt 0 ]; then
        passes "Rust tests for $target" cargo test --locked "${crates[@]/#/-pfastmq-}" \
            --lib --tests --target "$target" --no-fail-fast -- "${filter[@]}"
    fi

    for source in "${programs[@]}"; do
        name=$(basename "$source" .c)
        case " ${except[*]} " in *" $source "*) continue ;; esac
        program=build/cross/$target/${source%.c}
        mkdir -p "$(dirname "$program")"
        if ! compile "$source" "$program"; then
            not_ok "$source compiles for $target"
        elif [[ $source = tests/* ]]; then
            tap "$name for $target" "${run[@]}" "$program"
        else
            arguments=()
            grep -q -e '--check' "$source" && arguments=(--check)
            check "$name for $target" \
                timeout --kill-after=10 60 "${run[@]}" "$program" "${arguments[@]}" </dev/null
        fi
    done
}

if reason=$(missing $arm aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu \
    /usr/aarch64-linux-gnu/lib/crt1.o libc6-dev-arm64-cross qemu-aarch64 qemu-user); then
    skip "$arm" "$reason"
else
    library=$CARGO_TARGET_DIR/$arm/debug
    mkdir -p "$library"
    ln -sf libfastmq_c.so "$library/libfastmq.so.0"
    crates=(memory)
    [ -n "${THOROUGH:-}" ] && crates=(driver memory route)
    compiler=(aarch64-linux-gnu-gcc)
    link=("$library/libfastmq_c.so" "-Wl,-rpath,$library")
    run=("${emulator[@]}")
    except=(the_hook_and_the_page_each_notice_a_fork a_child_knows_and_its_parent_does_not
        pages::tests tests/c/fork.c tests/c/no_memory.c tests/c/realtime.c)
    because="qemu-user does not do MADV_WIPEONFORK, nor start a program of its target, and shows \
pages and threads of its own"
    cross $arm
fi

if reason=$(missing $musl musl-gcc musl-tools); then
    skip "$musl" "$reason"
else
    crates=()
    [ -n "${THOROUGH:-}" ] && crates=(driver)
    # Debian's libgcc_eh wants glibc; Rust brings an unwinder for musl.
    compiler=(musl-gcc -static)
    link=("$CARGO_TARGET_DIR/$musl/debug/libfastmq_c.a"
        "-L$(libraries $musl)/self-contained" -lunwind)
    run=(env)
    except=(tests/c/no_memory.c tests/c/copies.c)
    because="it is about a shared library"
    cross $musl
    # Less optimized than `make static` has it: what is checked here is that it needs nothing.
    export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
    export CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_DEBUG=0
    check "make static" make --no-print-directory static STATIC_TARGET=$musl
    check "the static command needs no library" \
        eval '! readelf -d build/static/fastmq | grep -q NEEDED'
    check "and has no interpreter" eval '! readelf -l build/static/fastmq | grep -q INTERP'
    check "and runs" eval 'build/static/fastmq version >/dev/null'
    check "and is smaller than 6 MB" test "$(stat -c %s build/static/fastmq)" -lt 6000000
    check "and is answered by its own server" bash tests/stages/static.sh build/static/fastmq
fi

# The Node package for aarch64; all of it is compiled once more, so in make soak only.
name="the native half of the Node package for $arm"
if [ -z "${THOROUGH:-}" ] || ! command -v node >/dev/null || missing $arm >/dev/null; then
    skip "$name" "a part of make soak, with Node and the target's libraries"
else
    prebuilt=bindings/node/prebuilt/linux-arm64-gnu
    check "$name builds" node bindings/node/scripts/build.cjs $arm
    check "$name is for aarch64" eval 'readelf -h $prebuilt/fastmq.node | grep -q AArch64'
    check "$name needs glibc 2.34 at most" eval \
        '[ "$(readelf -V $prebuilt/fastmq.node | grep -oE "GLIBC_2\.[0-9]+" | sort -Vu | tail -n 1 \
            | cut -d. -f2)" -le 34 ]'
    rm -rf $prebuilt
fi
