#!/usr/bin/env bash
# The showcases against one server: the pipeline in Python, the board in Node that shows what it
# publishes, and the board in a real browser. With the packages that the stages python and node have
# built.
# budget: bindings
source "$(dirname "$0")/lib.sh"

CHROMIUM_PACKAGES=(chromium fonts-dejavu-core)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if ! command -v node >/dev/null || [ -z "$(files bindings/node/prebuilt/*/fastmq.node)" ]; then
    skip "the showcases" "the Node package is not there: the stage node makes it"
    exit 0
fi
[ -x build/bin/fastmq ] || make --no-print-directory build

venv=$ROOT/build/python/venv
if [ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'import fastmq'; then
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --requirement examples/showcase/python-flights/requirements.txt
    "$venv/bin/python" -c 'import rich' && export PYTHON=$venv/bin/python
fi
export PYTHONDONTWRITEBYTECODE=1

find_chromium() { CHROMIUM=$(command -v chromium || command -v chromium-browser); }
install_chromium() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq -o Acquire::Retries=3
    apt-get install -y -qq --no-install-recommends -o Acquire::Retries=3 \
        -o DPkg::Lock::Timeout=120 "${CHROMIUM_PACKAGES[@]}"
}
if ! find_chromium && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    install_chromium </dev/null
    find_chromium
fi
export CHROMIUM

# As after `npm install`: the examples, and the package where Node looks for it.
mkdir -p "$work/examples" "$work/node_modules" build/showcase
cp -r examples/data examples/showcase "$work/examples"
rm -rf "$work/examples/showcase/node-departures/node_modules"
ln -s "$ROOT/bindings/node" "$work/node_modules/libfastmq"

if [ -n "${PYTHON:-}" ] && [ -x "$venv/bin/mypy" ]; then
    types() {
        (cd examples/showcase/python-flights &&
            "$venv/bin/mypy" --strict --cache-dir "$ROOT/build/python/mypy" ./*.py)
    }
    check "mypy --strict of the pipeline" types
else
    skip "mypy --strict of the pipeline" "mypy, or what it looks at, is not there"
fi
SHOWCASE=$work/examples FASTMQ=$ROOT/build/bin/fastmq SCREENSHOTS=$ROOT/build/showcase \
    tap "showcase" node --test --test-reporter tap tests/showcase/*.test.mjs
