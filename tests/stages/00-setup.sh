#!/usr/bin/env bash
# Installs what is missing and needed; does nothing where all is there.
# With the argument `build`, only what building needs.
# budget: core
# timeout: 600
source "$(dirname "$0")/lib.sh"

apt_missing=()
need() { command -v "$1" >/dev/null || apt_missing+=("$2"); }
need cc gcc
need c++ g++
need python3 python3
if [ "${1:-}" != build ]; then
    need readelf binutils
    need valgrind valgrind
fi
if [ "${#apt_missing[@]}" -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq && apt-get install -y -qq --no-install-recommends "${apt_missing[@]}"
    else
        echo "missing: ${apt_missing[*]}; install them with your package manager"
    fi
fi
for tool in cc c++ python3 cargo; do check "$tool is there" command -v "$tool"; done
[ "${1:-}" = build ] && exit 0

check "readelf is there" command -v readelf
command -v valgrind || echo "no valgrind: the C tests run without it"

has_cbindgen() { [ "$(cbindgen --version 2>/dev/null)" = "cbindgen $CBINDGEN_VERSION" ]; }
if ! has_cbindgen; then
    # Its own target directory: the flags of this workspace are not for it.
    CARGO_TARGET_DIR="$ROOT/.tools/target" cargo install --locked --root .tools \
        --version "$CBINDGEN_VERSION" cbindgen
    rm -rf .tools/target
fi
check "cbindgen $CBINDGEN_VERSION is there" has_cbindgen
