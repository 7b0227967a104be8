#!/usr/bin/env bash
# Installs what is missing and needed; does nothing where all is there.
# With the argument `build`, only what building needs.
# budget: core
# timeout: 1500
source "$(dirname "$0")/lib.sh"

missing=()
# need FILE PACKAGE
need() { is_there "$1" || missing+=("$2"); }
# install_missing WHAT_FOR: the Debian packages that `need` found missing.
install_missing() {
    [ "${#missing[@]}" -gt 0 ] || return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        export DEBIAN_FRONTEND=noninteractive
        [ -n "${updated:-}" ] || apt-get update -qq -o Acquire::Retries=3
        updated=yes
        # A new machine may still be busy with its own upgrades.
        apt-get install -y -qq --no-install-recommends -o Acquire::Retries=3 \
            -o DPkg::Lock::Timeout=120 "${missing[@]}" ||
            echo "$1: apt-get could not install ${missing[*]}"
    else
        echo "$1: missing ${missing[*]}; install them with your package manager"
    fi </dev/null
    missing=()
}

need cc gcc
need c++ g++
need python3 python3
[ "${1:-}" = build ] || need readelf binutils
install_missing "needed"
# The pinned toolchain, for a rustup that does not install by itself.
cargo --version >/dev/null 2>&1 || rustup toolchain install
for tool in cc c++ python3; do check "$tool is there" command -v "$tool"; done
check "cargo runs" cargo --version
[ "${1:-}" = build ] && exit 0

check "readelf is there" command -v readelf

# Without these their stages skip, and say so. Each in a step of its own: a package that a
# distribution does not have must not keep the others away.
need valgrind valgrind
install_missing "for the C tests under valgrind"
need cmake cmake
need pkg-config pkg-config
need abidw abigail-tools
install_missing "for the checks of what make install installs"
need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
need /usr/aarch64-linux-gnu/lib/crt1.o libc6-dev-arm64-cross
need qemu-aarch64 qemu-user
need musl-gcc musl-tools
install_missing "for the other targets"
for target in aarch64-unknown-linux-gnu x86_64-unknown-linux-musl; do
    [ -d "$(rustc --print target-libdir --target "$target")" ] ||
        timeout 120 rustup target add "$target" || echo "for the other targets: no $target"
done

has_cbindgen() { [ "$(cbindgen --version 2>/dev/null)" = "cbindgen $CBINDGEN_VERSION" ]; }
if ! has_cbindgen; then
    # Its own target directory: the flags of this workspace are not for it. Not optimized: that
    # would take longer than all the headers that it makes.
    CARGO_TARGET_DIR="$ROOT/.tools/target" cargo install --debug --locked --root .tools \
        --version "$CBINDGEN_VERSION" cbindgen
    rm -rf .tools/target
fi
check "cbindgen $CBINDGEN_VERSION is there" has_cbindgen
