#!/usr/bin/env bash
# Compares the ABI of the library with the one that was accepted last (`make abi-check`), or accepts
# it as it is (`make abi-accept`). docs/abi.md says what may change.
#
# The library is built once more for it, unstripped, with full debug information of the C interface
# alone: so the dump holds what C programs see and nothing of the inside.
set -euo pipefail
cd "$(dirname "$0")/../.."
action=$1
accepted=packaging/abi/libfastmq.abi
target=${CARGO_TARGET_DIR:-target}/abi
mkdir -p build

for tool in abidw abidiff; do
    if ! command -v "$tool" >/dev/null; then
        echo "skipped: $tool is not installed (Debian: abigail-tools)"
        [ "$action" = check ] && exit 0 || exit 1
    fi
done
if [ "$(uname -m)" != x86_64 ]; then
    echo "skipped: the accepted ABI is that of x86-64"
    [ "$action" = check ] && exit 0 || exit 1
fi

CARGO_TARGET_DIR=$target cargo build --quiet --locked -p fastmq-ffi \
    --config profile.dev.opt-level=0 \
    --config profile.dev.debug=0 \
    --config profile.dev.package.fastmq-ffi.debug=2 \
    --config profile.dev.package.fastmq-ffi.codegen-units=1
abidw --no-comp-dir-path --no-corpus-path --no-elf-needed --no-show-locs --type-id-style hash \
    --suppressions packaging/abi/suppressions.ini --out-file build/libfastmq.abi \
    "$target/debug/libfastmq_c.so"
# Units without content, and the names of files and code units of this build: no ABI.
sed -i -e '/^  <abi-instr /{N;/\n  <\/abi-instr>$/d}' build/libfastmq.abi
sed -i -E "s|^(  <abi-instr .*) path='[^']*'|\1|" build/libfastmq.abi

if [ "$action" = accept ]; then
    cp build/libfastmq.abi "$accepted"
    echo "accepted: $accepted"
# Harmless for programs that are linked, a renamed field still breaks those that are compiled.
elif abidiff --harmless "$accepted" build/libfastmq.abi; then
    echo "the ABI is that of $accepted"
else
    echo "the ABI differs from $accepted; docs/abi.md says what may change" >&2
    exit 1
fi
