# What the stages share. A stage says its results as lines that the runner counts:
#   ok - NAME | not ok - NAME | ok - NAME # skip REASON
# and `test result:` lines of cargo. Everything else is its log.

set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
ROOT=$PWD
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
export PATH="$ROOT/.tools/bin:$PATH"
export CARGO_TERM_COLOR=never
HOST_TARGET=x86_64-unknown-linux-gnu
CBINDGEN_VERSION=0.29.4

ok() { echo "ok - $1"; }
not_ok() { echo "not ok - $1"; }
skip() { echo "ok - $1 # skip $2"; }

# is_there NAME: a command of the PATH, or a file by its absolute path.
is_there() { command -v "$1" >/dev/null || { [[ $1 = /* ]] && [ -e "$1" ]; }; }

# check NAME COMMAND...: one result from an exit code.
check() {
    local name=$1
    shift
    if "$@"; then ok "$name"; else not_ok "$name"; fi
}

# passes NAME COMMAND...: runs cargo test, whose results count themselves; a run that fails without
# a failed test (it does not compile, a test kills its process) is a failure of this name.
passes() {
    local name=$1 out code
    shift
    out=$(mktemp)
    "$@" 2>&1 | tee "$out"
    code=${PIPESTATUS[0]}
    if [ "$code" -ne 0 ] && ! grep -q '^test result: FAILED' "$out"; then
        not_ok "$name: exit code $code"
    fi
    rm -f "$out"
}

# tap NAME COMMAND...: runs a program that prints its own results, each named after NAME. A crash,
# a non-zero exit without a `not ok`, and a program without any result are failures. Bounded.
tap() {
    local name=$1 code out
    shift
    out=$(mktemp)
    timeout --kill-after=10 "${TAP_SECONDS:-120}" "$@" >"$out" 2>&1 </dev/null
    code=$?
    sed -E "s|^((not )?ok)( [0-9]+)?( -)? |\1 - $name: |" "$out"
    if [ "$code" -ne 0 ] && ! grep -q '^not ok' "$out"; then
        not_ok "$name: exit code $code"
    elif ! grep -qE '^(not )?ok\b' "$out"; then
        not_ok "$name: printed no result"
    elif grep -qE '^1\.\.[0-9]+$' "$out"; then
        local planned counted
        planned=$(sed -nE 's/^1\.\.([0-9]+)$/\1/p' "$out" | head -n 1)
        counted=$(grep -cE '^(not )?ok\b' "$out")
        [ "$planned" = "$counted" ] || not_ok "$name: planned $planned results, printed $counted"
    fi
    rm -f "$out"
}

# files PATTERN...: the files that exist, one a line; nothing for a pattern without a match.
files() {
    local file
    for file in "$@"; do [ -e "$file" ] && echo "$file"; done
    return 0
}

# example SOURCE COMMAND...: runs an example, with --check where its text has that word (a short run
# without endless loops). One whose output is in examples/output, which is the same in every
# language, must print that.
example() {
    local source=$1 printed
    shift
    grep -q -e '--check' "$source" && set -- "$@" --check
    printed=examples/output/$(basename "${source%.*}").txt
    if [ -e "$printed" ]; then
        check "$source prints $printed" prints "$printed" "$@"
    else
        check "$source" timeout --kill-after=10 60 "$@" </dev/null
    fi
}

# prints FILE COMMAND...: it ends with 0 and its output is what the file has.
prints() {
    local out code=1
    out=$(mktemp)
    timeout --kill-after=10 60 "${@:2}" </dev/null >"$out" && diff "$1" "$out" && code=0
    rm -f "$out"
    return $code
}

# market CLIENT: examples/c/market_server and a client of it; true if both end with 0.
market() {
    local url client=1 server=1
    url="unix:/tmp/market-$$.sock"
    coproc SERVER { timeout --kill-after=10 60 build/examples/market_server --check "$url"; }
    local pid=$SERVER_PID
    # Its first line says that it listens.
    if read -r -t 60 -u "${SERVER[0]}" _; then
        timeout --kill-after=10 60 "$1" "$url" </dev/null
        client=$?
        [ "$client" -eq 0 ] || kill "$pid"
    fi
    wait "$pid" && server=0
    [ "$client" -eq 0 ] && [ "$server" -eq 0 ]
}

# for_bindings PACKAGE: a package with a cargo workspace of its own is built as the others are, so
# that they share what is compiled; not optimized as a whole, which takes minutes. False: its crates
# are not to be had.
for_bindings() {
    export CARGO_TARGET_DIR=$TARGET/bindings CARGO_PROFILE_RELEASE_LTO=off
    export CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=0
    cargo fetch --locked --quiet --manifest-path "$1/Cargo.toml"
}
