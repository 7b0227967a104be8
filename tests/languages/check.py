#!/usr/bin/env python3
"""Checks docs/reference/languages.md: every function of C has a row, every name is there, and a
gap has a reason. Prints what is wrong, one a line, and ends with 1 if anything is.

A language adds its column's check to LANGUAGES: a function from a name to whether it is there. An
empty column is a language that is not built yet: it must be empty in all rows.
"""

import ast
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GAP = "—"


def read(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as file:
        return file.read()


def cpp():
    """Functions of the C++ header, by the last part of their names."""
    folder = os.path.join(ROOT, "bindings", "cpp", "fastmq")
    text = "\n".join(read(folder, name) for name in sorted(os.listdir(folder)))
    text = re.sub(r"//.*", "", text)
    return lambda name: re.search(rf"\b{re.escape(name.split('::')[-1])}\s*\(", text) is not None


def python():
    """Names of the stub, and what the package gives out beside it."""
    names = set()
    for file in ("_fastmq.pyi", "_errors.py", "_log.py", "__init__.py"):
        for node in ast.parse(read("bindings", "python", "python", "fastmq", file)).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                names.add(node.name)
            if isinstance(node, ast.ImportFrom):
                names.update(alias.asname or alias.name for alias in node.names)
            if isinstance(node, ast.ClassDef):
                for part in node.body:
                    if isinstance(part, ast.FunctionDef):
                        names.add(f"{node.name}.{part.name}")
                    if isinstance(part, ast.AnnAssign):
                        names.add(f"{node.name}.{part.target.id}")
    return lambda name: name in names


def node():
    """Names of the package's types: functions, and members of classes and interfaces."""
    names, outer = set(), ""
    for line in read("bindings", "node", "index.d.ts").splitlines():
        if match := re.match(r"export (?:class|interface|function|const) (\w+)", line):
            outer = match.group(1)
            names.add(outer)
        elif match := re.match(r"  (?:readonly )?(\w+)[?:(<]", line):
            names.add(f"{outer}.{match.group(1)}")
    # What every Error has.
    return lambda name: name in names or name == "FastmqError.message"


LANGUAGES = {"C++": cpp, "Python": python, "Node": node}


def tables(text):
    """The tables of a document: their headings and rows, as lists of cells."""
    rows = []
    for line in text.splitlines() + [""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
        elif rows:
            yield rows[0], rows[2:]
            rows = []


def findings():
    found = list(tables(read("docs", "reference", "languages.md")))
    (heading, rows), (_, gaps) = found[0], found[1]
    explained = {(language, what.strip("`")) for language, what, why in gaps if why}
    listed = [row[0].strip("`") for row in rows]
    exported = read("ffi", "symbols.txt").split()
    for name in exported:
        if listed.count(name) != 1:
            yield f"{name} stands in {listed.count(name)} rows"
    for name in sorted(set(listed) - set(exported)):
        yield f"{name} is no function of C"
    for column, language in enumerate(heading[1:], start=1):
        cells = [row[column] if column < len(row) else "" for row in rows]
        if not any(cells):
            continue
        if language not in LANGUAGES:
            yield f"{language} has names, and check.py does not know where they are"
            continue
        is_there = LANGUAGES[language]()
        for function, cell in zip(listed, cells, strict=True):
            if cell == GAP:
                if (language, function) in explained:
                    explained.discard((language, function))
                else:
                    yield f"{language} lacks {function}, and no reason is given"
            elif not cell:
                yield f"{language} says nothing about {function}"
            elif not is_there(cell.strip("`")):
                yield f"{language} has no {cell} for {function}"
    for language, what in sorted(explained):
        yield f"{language} is said to lack {what}, which it has"


def main():
    wrong = list(findings())
    for line in wrong:
        print(f"docs/reference/languages.md: {line}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
