#!/usr/bin/env bash
# The Node package: it builds from source, its types are right, and what `npm pack` makes installs
# into an empty folder without a Rust toolchain and passes the tests from there. Then the examples.
# budget: bindings
source "$(dirname "$0")/lib.sh"

TYPESCRIPT=5.9
package=bindings/node
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for tool in node npm; do
    if ! command -v "$tool" >/dev/null; then
        skip "the Node package" "$tool is not installed"
        exit 0
    fi
done
if [ "$(node -p 'Number(process.versions.node.split(".")[0]) >= 20')" != true ]; then
    skip "the Node package" "Node $(node --version) is older than 20"
    exit 0
fi

quietly() { "$@" >"$work/log" 2>&1 || { tail -n 60 "$work/log"; return 1; }; }
in_folder() { (cd "$1" && shift && "$@"); }
npm_install() { npm install --no-audit --no-fund --no-update-notifier "$@"; }
# Where cargo is not found, whatever else is.
without_cargo() { env CARGO=/no/cargo "PATH=$(dirname "$(command -v node)"):/usr/bin:/bin" "$@"; }

if ! for_bindings $package; then
    skip "the Node package" "its crates are not in reach"
    exit 0
fi
manifest=(--manifest-path "$package/Cargo.toml")
check "the Node binding is formatted" cargo fmt "${manifest[@]}" --check
check "the Node binding has no warning" \
    quietly cargo clippy --locked --release "${manifest[@]}" -- --deny warnings

# A folder that npm links to: its install script builds what is missing.
rm -rf "$package/prebuilt"
mkdir "$work/source"
echo '{"private": true}' >"$work/source/package.json"
check "npm install builds it from source" \
    quietly in_folder "$work/source" npm_install --install-links=false "$ROOT/$package"
check "and it is there" test -n "$(files "$package"/prebuilt/*/fastmq.node)"

check "npm pack" quietly in_folder "$package" npm pack --pack-destination "$work"
tarball=$(files "$work"/libfastmq-*.tgz)
mkdir "$work/empty"
echo '{"private": true}' >"$work/empty/package.json"
check "the package installs into an empty folder without cargo" \
    quietly in_folder "$work/empty" without_cargo npm install --no-audit --no-fund --offline \
    "$tarball"
installed=$work/empty/node_modules/libfastmq
check "it is smaller than 3 MB" test "$(stat --format %s "$tarball")" -lt 3000000
check "it has its licence" cmp LICENSE "$installed/LICENSE"
check "and its README" cmp "$package/README.md" "$installed/README.md"
check "it has no source of the engine" test -z "$(find "$installed" -name '*.rs')"
# What somebody reads for whose system there is no file. says TEXT COMMAND...: it fails and says so.
says() {
    if "${@:2}" >"$work/log" 2>&1 || ! grep -q -- "$1" "$work/log"; then
        tail -n 20 "$work/log"
        return 1
    fi
}
mkdir "$work/other" "$work/refused"
tar --extract --file "$tarball" --directory "$work/other"
rm -r "$work/other/package/prebuilt"
echo '{"private": true}' >"$work/refused/package.json"
refused=(in_folder "$work/refused" without_cargo npm install --no-audit --no-fund --offline
    "$work/other/package")
check "without a prebuilt file it says where to build one" \
    says "no prebuilt file for this system.*npm install ./bindings/node" "${refused[@]}"
cp -r "$package"/{Cargo.toml,scripts} "$work/other/package"
check "and there that cargo is needed" says "cargo is needed: https://rustup.rs" "${refused[@]}"

hello="const all = mq.subscribe('a'); mq.publish('a', 'hello');
    if (all.tryReceive().at(0).text() !== 'hello') process.exit(1); mq.close();"
check "it works by require" in_folder "$work/empty" node -e \
    "const mq = require('libfastmq').open(); $hello"
check "it works by import" in_folder "$work/empty" node --input-type=module -e \
    "import { open } from 'libfastmq'; const mq = open(); $hello"

export FASTMQ_NODE=$installed
TAP_SECONDS=170 tap "Node" node --expose-gc --test --test-reporter tap tests/node/*.test.mjs

cp -r examples/node "$work/empty/examples"
for source in $(files examples/node/*.mjs); do
    example "$source" node "$work/empty/examples/$(basename "$source")"
done

check "the first program prints what it should" test "$(timeout 60 node \
    "$work/empty/examples/hello.mjs" </dev/null)" = "flight.LAX.JFK delayed 12 minutes"

tools=build/node
mkdir -p "$tools"
if [ ! -x "$tools/node_modules/.bin/tsc" ]; then
    echo '{"private": true}' >"$tools/package.json"
    quietly in_folder "$tools" npm_install "typescript@$TYPESCRIPT" @types/node@20
fi
if [ ! -x "$tools/node_modules/.bin/tsc" ]; then
    skip "the types" "typescript cannot be installed"
    exit 0
fi
mkdir -p "$work/types/node_modules/@types"
ln -s "$installed" "$work/types/node_modules/libfastmq"
ln -s "$ROOT/$tools/node_modules/@types/node" "$work/types/node_modules/@types/node"
ln -s "$ROOT/$tools/node_modules/undici-types" "$work/types/node_modules/undici-types"
cp tests/node/types.mts tests/node/types.cts "$work/types"
cp examples/node/*.mjs "$work/types"
compiles() {
    in_folder "$work/types" "$ROOT/$tools/node_modules/.bin/tsc" --noEmit --target es2022 \
        --lib es2022,esnext.disposable --module nodenext --types node "$@"
}
check "the types fit those who use them, strictly" \
    compiles --strict --exactOptionalPropertyTypes types.mts types.cts
for name in event_loop publish_subscribe request_reply streaming_reply; do
    check "and examples/node/$name.mjs" compiles --allowJs --checkJs "$name.mjs"
done
