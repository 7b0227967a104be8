#!/usr/bin/env bash
# The Python package: built by pip into an empty environment and used from there, types, tests,
# examples.
# budget: bindings
source "$(dirname "$0")/lib.sh"

check "every function of C has its name in every language" python3 tests/languages/check.py

package=bindings/python
venv=$ROOT/build/python/venv
python=$venv/bin/python
# As the C++ stage: what `make build` has made, to be loaded beside the package's own copy.
export FASTMQ_LIBRARY=$ROOT/build/lib/libfastmq.so
export PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 PYTHONWARNINGS=error

quietly() {
    local out
    out=$(mktemp)
    "$@" >"$out" 2>&1 || { cat "$out"; rm -f "$out"; return 1; }
    rm -f "$out"
}

if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    skip "the Python package" "python3 is older than 3.11"
    exit 0
fi
if ! for_bindings $package; then
    skip "the Python package" "its crates are not in reach"
    exit 0
fi
check "cargo fmt of $package" cargo fmt --manifest-path "$package/Cargo.toml" --check
check "clippy of $package" env PYO3_PYTHON="$(command -v python3)" cargo clippy --release --locked \
    --manifest-path "$package/Cargo.toml" --quiet -- -D warnings

# The environment is empty but for the tools; they are kept, the package is new each time.
tools=(maturin mypy numpy pip)
if ! { [ -x "$python" ] || quietly python3 -m venv "$venv"; } ||
    ! quietly env -u PYTHONWARNINGS "$python" -m pip install --quiet "${tools[@]}"; then
    skip "the Python package" "no virtual environment, or no package index is in reach"
    exit 0
fi
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
if ! PATH=$venv/bin:$PATH quietly env -u PYTHONWARNINGS "$python" -m pip wheel --quiet --no-deps \
    --no-build-isolation --wheel-dir "$wheels" "./$package"; then
    not_ok "pip builds a wheel"
    exit 0
fi
ok "pip builds a wheel"
wheel=$(files "$wheels"/libfastmq-*.whl)
check "it is one wheel for all of Python from 3.11 on" \
    grep -q -- '-cp311-abi3-' <<<"$wheel"
check "it is smaller than 3 MB" test "$(stat -c %s "$wheel")" -lt 3000000
check "it has the package, its types, its licence, and nothing else" "$python" - "$wheel" <<'PYTHON'
import pathlib, sys, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
names = wheel.namelist()
about = names[-1].partition("/")[0]
expected = {"fastmq/_fastmq.abi3.so", "fastmq/_fastmq.pyi", "fastmq/py.typed"}
expected |= {f"{about}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "licenses/LICENSE")}
expected |= {name for name in names if name.startswith("fastmq/") and name.endswith(".py")}
assert set(names) == expected, set(names) ^ expected
assert wheel.read(f"{about}/licenses/LICENSE") == pathlib.Path("LICENSE").read_bytes()
readme = pathlib.Path("bindings/python/README.md").read_bytes()
assert readme.strip() in wheel.read(f"{about}/METADATA")
PYTHON
empty=$wheels/empty
quietly python3 -m venv "$empty"
check "pip installs it into an empty environment, without an index" quietly \
    env -u PYTHONWARNINGS "$empty/bin/python" -m pip install --quiet --no-index "$wheel"
check "it works there" test "$("$empty/bin/python" examples/python/hello.py)" = \
    "flight.LAX.JFK b'delayed 12 minutes'"
check "pip installs it beside the tools" quietly env -u PYTHONWARNINGS "$python" -m pip install --quiet --no-deps \
    --force-reinstall "$wheel"

check "mypy --strict" quietly "$venv/bin/mypy" --strict --cache-dir "$ROOT/build/python/mypy" \
    "$package/python/fastmq" "$package"/tests/*.py examples/python/*.py benches/python/*.py

for file in $(files "$package"/tests/test_*.py); do
    name=$(basename "$file" .py)
    TAP_SECONDS=150 tap "Python $name" "$python" -X faulthandler "$package/tests/tap.py" "$name"
done

for example in $(files examples/python/*.py); do
    example "$example" "$python" -W error "$example"
done
