"""The documentation: each public name has some, and its examples run."""

from __future__ import annotations

import ast
import doctest
import inspect
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path

import fastmq
import fastmq.aio

STUB = Path(fastmq.__file__).with_name("_fastmq.pyi")

Documented = ast.ClassDef | ast.FunctionDef


def documented(tree: ast.Module) -> Iterator[tuple[str, Documented]]:
    """Classes, functions and methods of the stub that are public."""
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
            yield node.name, node
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and not part.name.startswith("_"):
                    yield f"{node.name}.{part.name}", part


def arguments(node: ast.FunctionDef) -> list[str]:
    """The names of a stub's parameters, and whether each may be left out."""
    plain = node.args.posonlyargs + node.args.args
    required = len(plain) - len(node.args.defaults)
    found = [a.arg + ("" if at < required else "=") for at, a in enumerate(plain)]
    for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        found.append("*" + argument.arg + ("" if default is None else "="))
    if node.args.kwarg:
        found.append("**")
    return found


def runtime_arguments(function: Callable[..., object]) -> list[str]:
    """The same of what is there."""
    found = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            found.append("**")
            continue
        star = "*" if parameter.kind is parameter.KEYWORD_ONLY else ""
        found.append(star + parameter.name + ("" if parameter.default is parameter.empty else "="))
    return found


class Documentation(unittest.TestCase):
    def setUp(self) -> None:
        self.stub = ast.parse(STUB.read_text(encoding="utf-8"))

    def test_each_name_of_the_stub_is_documented(self) -> None:
        missing = [name for name, node in documented(self.stub) if not ast.get_docstring(node)]
        self.assertEqual(missing, [])

    def test_the_stub_and_the_module_have_the_same_names_and_arguments(self) -> None:
        module = fastmq._fastmq
        types_only = {"HasArray", "HasBuffer", "HasFileno"}
        here = {name for name in vars(module) if not name.startswith("__")} - {"VERSION"}
        there = {
            node.name
            for node in self.stub.body
            if isinstance(node, (ast.ClassDef, ast.FunctionDef))
            and not (isinstance(node, ast.ClassDef) and node.name.endswith(("Options", "Statistics")))
        }
        self.assertEqual(here, there - types_only)
        for node in self.stub.body:
            if not isinstance(node, ast.ClassDef) or node.name not in here:
                continue
            class_ = getattr(module, node.name)
            stubs = {n.name: n for n in node.body if isinstance(n, ast.FunctionDef)}
            public = {n for n in vars(class_) if not n.startswith("__")}
            self.assertEqual(public, {n for n in stubs if not n.startswith("__")}, node.name)
            for name in public:
                found = vars(class_)[name]
                if callable(found):
                    self.assertEqual(arguments(stubs[name]), runtime_arguments(found), name)

    def test_help_says_what_the_stub_says(self) -> None:
        compared = 0
        for name, node in documented(self.stub):
            class_, _, member = name.partition(".")
            there = getattr(fastmq._fastmq, class_, None)
            if there is None:
                # A type alone.
                continue
            found = getattr(there, member) if member else there
            written = ast.get_docstring(node) or ""
            said = inspect.cleandoc(found.__doc__ or "")
            self.assertEqual(said.partition("\n\nOptions, by name:")[0], written, name)
            compared += 1
        self.assertGreater(compared, 120)
        for function in (fastmq.open, fastmq.connect, fastmq.Client.listen, fastmq.Server.change):
            self.assertIn("\n\nOptions, by name:\n    ", function.__doc__ or "", function)
        # Those of the base, too.
        self.assertIn("queue_capacity: Default capacity", fastmq.connect.__doc__ or "")

    def test_each_public_name_is_there(self) -> None:
        for name in fastmq.__all__:
            self.assertTrue(hasattr(fastmq, name), name)
        self.assertEqual(len(set(fastmq.__all__)), len(fastmq.__all__))
        for name in fastmq.aio.__all__:
            self.assertTrue(getattr(fastmq.aio, name).__doc__, name)

    def test_the_examples_run(self) -> None:
        runner = doctest.DocTestRunner(verbose=False)
        parser = doctest.DocTestParser()
        names = {"fastmq": fastmq, "Delivery": fastmq.Delivery}
        count = 0
        for name, node in documented(self.stub):
            text = ast.get_docstring(node) or ""
            test = parser.get_doctest(text, dict(names), name, str(STUB), node.lineno)
            count += len(test.examples)
            runner.run(test)
        self.assertGreater(count, 5)
        self.assertEqual(runner.failures, 0)
        for module in (fastmq, fastmq.aio):
            result = doctest.testmod(module, extraglobs=names, verbose=False)
            self.assertEqual((result.failed, result.attempted > 0), (0, True), module.__name__)
