#!/usr/bin/env python3
"""Prints headers.json as tables in C, for headers.c and headers.cpp."""

import json
import os

HERE = os.path.dirname(os.path.abspath(__file__))
VECTORS = json.load(open(os.path.join(HERE, "headers.json"), encoding="utf-8"))


def constant(data):
    """A constant of bytes, in lines that compilers take, and its size."""
    digits = "".join(f"\\x{byte:02x}" for byte in data)
    parts = [digits[at : at + 4000] for at in range(0, len(digits), 4000)] or [""]
    return "\n".join(f'"{part}"' for part in parts) + f", {len(data)}"


def pairs(name, entries):
    rows = []
    for entry in entries:
        value = entry["value"]
        is_there = value is not None
        text = constant(bytes.fromhex(value if is_there else ""))
        rows.append(f"{{{{{constant(entry['name'].encode())}}}, {{{text}}}, {int(is_there)}}},")
    # C has no empty tables.
    print(f"static const struct pair {name}[] = {{", *rows, '{{"", 0}, {"", 0}, 0}};', sep="\n")


for index, vector in enumerate(VECTORS["good"]):
    pairs(f"entries_{index}", vector["entries"])
    pairs(f"lookups_{index}", vector["lookups"])
print("static const struct good good[] = {")
for index, vector in enumerate(VECTORS["good"]):
    entries = f"entries_{index}, {len(vector['entries'])}"
    lookups = f"lookups_{index}, {len(vector['lookups'])}"
    encoded = constant(bytes.fromhex(vector["hex"]))
    print(f"{{{json.dumps(vector['name'])}, {entries}, {lookups},")
    print(f"{{{encoded}}}}},")
print("};\nstatic const struct bad bad[] = {")
for vector in VECTORS["bad"]:
    print(f"{{{json.dumps(vector['name'])}, {{{constant(bytes.fromhex(vector['hex']))}}}}},")
print("};")
