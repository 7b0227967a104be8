"""The vectors that every language runs: statuses, headers, the fields of a message."""

from __future__ import annotations

import json
import unittest
from pathlib import Path
from typing import Any

import fastmq

VECTORS = Path(__file__).resolve().parents[3] / "tests" / "vectors"


def read(name: str) -> Any:
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


class Vectors(unittest.TestCase):
    def test_statuses_have_their_frozen_numbers_and_errors(self) -> None:
        golden = read("status.json")["statuses"]
        self.assertEqual({s["name"]: s["number"] for s in golden}, {s.name: s.value for s in fastmq.Status})
        errors = {error.code: error for error in fastmq._errors.CLASSES.values()}
        for status in golden:
            if status["number"]:
                error = errors.pop(status["c"])
                self.assertEqual(error.status, status["number"])
                self.assertTrue(issubclass(error, fastmq.Error))
                self.assertEqual(str(error("a sentence")), "a sentence")
            self.assertTrue(fastmq.status_text(status["number"]))
        self.assertEqual(errors, {})

    def test_errors_are_what_the_language_calls_them(self) -> None:
        for error, idiom in (
            (fastmq.Timeout, TimeoutError),
            (fastmq.Disconnected, ConnectionError),
            (fastmq.Unavailable, ConnectionError),
            (fastmq.Denied, PermissionError),
            (fastmq.NoMemory, MemoryError),
            (fastmq.Invalid, ValueError),
            (fastmq.Unsupported, NotImplementedError),
            (fastmq.Io, OSError),
        ):
            self.assertTrue(issubclass(error, idiom))

    def test_headers_are_encoded_as_everywhere(self) -> None:
        vectors = read("headers.json")
        for vector in vectors["good"]:
            with self.subTest(vector["name"]):
                entries = [(e["name"], bytes.fromhex(e["value"])) for e in vector["entries"]]
                self.assertEqual(fastmq.encode_headers(entries).hex(), vector["hex"])
                self.assertEqual(fastmq.decode_headers(bytes.fromhex(vector["hex"])), entries)
        for vector in vectors["bad"]:
            with self.subTest(vector["name"]), self.assertRaises(fastmq.Error):
                # What is there is read as it is; names are checked by who writes them.
                entries = fastmq.decode_headers(bytes.fromhex(vector["hex"]))
                fastmq.encode_headers(entries)

    def test_a_message_has_the_fields_of_c(self) -> None:
        names = {field["name"] for field in read("view.json")["fields"]} - {"reserved0"}
        self.assertEqual({name for name in names if not hasattr(fastmq.Message, name)}, set())
