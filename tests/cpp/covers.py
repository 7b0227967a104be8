#!/usr/bin/env python3
"""Says what of include/fastmq.h the C++ header does not use: functions, constants and fields.

A function that C has and C++ lacks is a hole that no C++ test can see. Prints one line for each
and ends with 1; `covers.py --statuses` prints the static assertions of the golden statuses.
"""

import json
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# Structs that C++ fills or reads field by field; statistics are handed on as they are.
STRUCTS = (
    "fastmq_connect_options",
    "fastmq_event",
    "fastmq_listen_options",
    "fastmq_many_options",
    "fastmq_message",
    "fastmq_options",
    "fastmq_outgoing",
    "fastmq_queue_options",
    "fastmq_requester_options",
    "fastmq_subscribe_options",
    "fastmq_thread_options",
)


def read(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as file:
        return file.read()


def binding():
    """The C++ header without its comments."""
    parts = [read("bindings", "cpp", "fastmq.hpp")]
    folder = os.path.join(ROOT, "bindings", "cpp", "fastmq")
    parts += [read(folder, name) for name in sorted(os.listdir(folder)) if name.endswith(".hpp")]
    return re.sub(r"//.*", "", "\n".join(parts))


def fields(header, struct):
    """The fields of a struct, those left out whose comment says that they are reserved."""
    body = re.search(rf"typedef struct {struct} {{(.*?)\n}} {struct};", header, re.DOTALL)
    comment = ""
    for line in body.group(1).splitlines():
        line = line.strip()
        if line.startswith("//"):
            comment += line.lower()
            continue
        match = re.search(r"(\w+);$", line)
        if match and "reserved" not in comment:
            yield match.group(1)
        comment = ""


def missing():
    header, cpp = read("include", "fastmq.h"), binding()
    used = set(re.findall(r"\b(?:fastmq_\w+|FASTMQ_\w+)\b", cpp))
    for name in read("ffi", "symbols.txt").split():
        if name not in used:
            yield f"function {name}"
    for name in re.findall(r"^ +(FASTMQ_\w+) = ", header, re.MULTILINE):
        if name not in used:
            yield f"constant {name}"
    for struct in STRUCTS:
        for field in fields(header, struct):
            if not re.search(rf"(?:\.|->){field}\b", cpp):
                yield f"field {struct}.{field}"


def main():
    if sys.argv[1:] == ["--statuses"]:
        print("#include <fastmq.hpp>")
        for status in json.loads(read("tests", "vectors", "status.json"))["statuses"]:
            name = status["name"].lower()
            number = status["number"]
            print(f'static_assert(static_cast<unsigned>(fastmq::status::{name}) == {number}, "");')
        return
    holes = list(missing())
    for hole in holes:
        print(f"bindings/cpp lacks {hole}")
    sys.exit(1 if holes else 0)


if __name__ == "__main__":
    main()
