"""Runs test modules and prints a line for each test, as the stages say their results."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path
from types import TracebackType
from typing import Any

OptionalExcInfo = (
    tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
)


class Tap(unittest.TestResult):
    """Says each result as it comes."""

    def name(self, test: unittest.TestCase) -> str:
        name = getattr(test, "_testMethodName", str(test))
        return str(name).removeprefix("test_").replace("_", " ")

    def addSuccess(self, test: unittest.TestCase) -> None:
        super().addSuccess(test)
        print(f"ok - {self.name(test)}", flush=True)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        print(f"ok - {self.name(test)} # skip {reason}", flush=True)

    def _bad(self, test: unittest.TestCase, err: OptionalExcInfo) -> None:
        print(f"not ok - {self.name(test)}")
        print(self._exc_info_to_string(err, test), flush=True)  # type: ignore[attr-defined]

    def addFailure(self, test: unittest.TestCase, err: OptionalExcInfo) -> None:
        super().addFailure(test, err)
        self._bad(test, err)

    def addError(self, test: unittest.TestCase, err: OptionalExcInfo) -> None:
        super().addError(test, err)
        self._bad(test, err)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._bad(test, err)


def main() -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    result = Tap()
    unittest.defaultTestLoader.loadTestsFromNames(sys.argv[1:]).run(result)
    sys.exit(0 if result.wasSuccessful() else 1)


if __name__ == "__main__":
    main()
