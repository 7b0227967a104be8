#!/usr/bin/env bash
# The header is what cbindgen makes, and compiles without a warning as C11 and as C++17.
# budget: c
source "$(dirname "$0")/lib.sh"

if [ -e ffi/cbindgen.toml ]; then
    check "include/fastmq.h is what make header makes" make --no-print-directory header-check
else
    skip "include/fastmq.h is what make header makes" "ffi/cbindgen.toml is not there"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
strict=(-Iinclude -Wall -Wextra -Wpedantic -Werror -fsyntax-only)
echo '#include <fastmq.h>' >"$work/header.c"
cp "$work/header.c" "$work/header.cpp"
check "the header compiles as C11" cc -std=c11 "${strict[@]}" "$work/header.c"
check "the header compiles as C++17" c++ -std=c++17 "${strict[@]}" "$work/header.cpp"

# The frozen view alone, so that padding in other structs does not count.
python3 - "$work/view.c" tests/vectors/view.json <<'PY'
import json, sys
view = json.load(open(sys.argv[2]))
lines = ["#include <fastmq.h>", "#include <stddef.h>"]
name = f"struct {view['struct']}"
lines.append(f'_Static_assert(sizeof({name}) == {view["size"]}, "size");')
lines.append(f'_Static_assert(_Alignof({name}) == {view["alignment"]}, "alignment");')
for field in view["fields"]:
    at = f"offsetof({name}, {field['name']}) == {field['offset']}"
    size = f"sizeof((({name} *)0)->{field['name']}) == {field['size']}"
    lines.append(f'_Static_assert({at} && {size}, "{field["name"]}");')
for flag, value in view["flags"].items():
    lines.append(f'_Static_assert(FASTMQ_MESSAGE_{flag} == {value}, "{flag}");')
open(sys.argv[1], "w").write("\n".join(lines) + "\n")
PY
check "fastmq_message has the frozen layout" cc -std=c11 "${strict[@]}" "$work/view.c"
python3 - "$work/status.c" tests/vectors/status.json <<'PY'
import json, sys
lines = ["#include <fastmq.h>"]
for status in json.load(open(sys.argv[2]))["statuses"]:
    lines.append(f'_Static_assert({status["c"]} == {status["number"]}, "{status["name"]}");')
open(sys.argv[1], "w").write("\n".join(lines) + "\n")
PY
check "the statuses have their frozen numbers" cc -std=c11 "${strict[@]}" "$work/status.c"
padded=$(cc -std=c11 -Iinclude -Wpadded -fsyntax-only "$work/header.c" 2>&1 | grep -c fastmq_message)
check "fastmq_message has no padding" test "$padded" = 0
