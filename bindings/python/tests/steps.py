"""What the tests share."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import textwrap
import unittest

import fastmq

SECONDS = 20.0
"""The longest that a test waits for what must come."""


class Broker(unittest.TestCase):
    """A test with a broker in this process, `client`, and a directory for sockets."""

    def setUp(self) -> None:
        self.client = fastmq.open()
        self.addCleanup(self.client.close)
        directory = tempfile.TemporaryDirectory(prefix="fastmq-")
        self.addCleanup(directory.cleanup)
        self.directory = directory.name

    def doubler(self, subject: str = "double") -> fastmq.Subscription:
        """A responder on the asking thread that answers with its request twice."""
        return self.client.subscribe(
            subject,
            delivery=fastmq.Delivery.INLINE,
            on_message=lambda request: self.client.reply(request, request.payload * 2),
        )


def python(program: str, *arguments: str, **options: object) -> subprocess.Popen[str]:
    """Starts another interpreter with a program."""
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(program), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )


def run(program: str, *arguments: str) -> tuple[int, str, str]:
    """Runs a program in another interpreter: its code, what it printed, what it complained."""
    with python(program, *arguments) as process:
        try:
            out, err = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"it did not end: {out}{err}") from None
    return process.returncode, out, err


def collect() -> None:
    """Collects what nobody holds."""
    gc.collect()
