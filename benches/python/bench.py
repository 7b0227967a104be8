#!/usr/bin/env python3
"""What the Python package does in a second, beside its peers: one line a row.

    bench.py [--seconds S] [--runs N] [--only REGEX] [--json]

Payloads have 16 bytes. A row is the median of its runs; each is given per second, and messages
count once, sent and received. Peers that are not installed (pyzmq, nats-py and a nats-server) are
left out, and the line says so. Rows over TCP use the servers of FASTMQ_URL and NATS_URL; without
them, one of this process and one that is started. `make bench ARGS="--set bindings"` does all that.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

import fastmq
from fastmq import Delivery, aio

PAYLOAD = b"0123456789abcdef"
BATCH = 4000

Row = Callable[[float], float]
ROWS: dict[str, Row] = {}


def row(name: str) -> Callable[[Row], Row]:
    """Enters a row: a function from seconds to how many a second."""

    def enter(function: Row) -> Row:
        ROWS[name] = function
        return function

    return enter


def rate(seconds: float, some: Callable[[], int]) -> float:
    """How many a second `some` does, once it is warm."""
    some()
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        count += some()
    return count / spent


async def rate_of(seconds: float, some: Callable[[], Awaitable[int]]) -> float:
    """The same in an event loop."""
    await some()
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        count += await some()
    return count / spent


@row("embedded: columnar batches, one way")
def columns(seconds: float) -> float:
    data, offsets = PAYLOAD * BATCH, array("q", range(0, 16 * BATCH + 1, 16))
    with fastmq.open() as client, client.subscribe("a") as reader, client.publisher("a") as writer:

        def some() -> int:
            left = sent = writer.publish_columns(data, offsets)
            while left:
                left -= len(reader.receive(timeout=5).columns())
            return sent

        return rate(seconds, some)


@row("embedded: message objects in batches, one way")
def objects(seconds: float) -> float:
    payloads = [PAYLOAD] * BATCH
    with fastmq.open() as client, client.subscribe("a") as reader, client.publisher("a") as writer:

        def some() -> int:
            left = sent = writer.publish_batch(payloads)
            while left:
                for _message in reader.receive(timeout=5):
                    left -= 1
            return sent

        return rate(seconds, some)


@row("embedded: payloads in batches, one way")
def payloads_only(seconds: float) -> float:
    payloads = [PAYLOAD] * BATCH
    with fastmq.open() as client, client.subscribe("a") as reader, client.publisher("a") as writer:

        def some() -> int:
            left = sent = writer.publish_batch(payloads)
            while left:
                left -= len(reader.receive(timeout=5).payloads())
            return sent

        return rate(seconds, some)


@row("embedded: one message at a time, one way")
def singles(seconds: float) -> float:
    with fastmq.open() as client, client.subscribe("a") as reader:

        def some() -> int:
            for _ in range(1000):
                client.publish("a", PAYLOAD)
                next(reader)
            return 1000

        return rate(seconds, some)


@row("embedded: one message at a time through a publisher, one way")
def singles_by_handle(seconds: float) -> float:
    with fastmq.open() as client, client.subscribe("a") as reader, client.publisher("a") as writer:

        def some() -> int:
            for _ in range(1000):
                writer.publish(PAYLOAD)
                next(reader)
            return 1000

        return rate(seconds, some)


@row("request-reply: many in flight, by columns")
def many_in_flight(seconds: float) -> float:
    count = 1000
    data, offsets = PAYLOAD * count, array("q", range(0, 16 * count + 1, 16))
    with fastmq.open() as client, client.subscribe("a") as requests:
        with client.requester("a", in_flight_max=count) as asker:

            def some() -> int:
                asked = asker.submit_columns(data, offsets, 0)
                left = asked
                while left:
                    got = requests.receive(timeout=5).columns()
                    left -= client.reply_columns(got.tokens, got.data, got.offsets)
                left = asked
                while left:
                    left -= len(asker.receive(timeout=5).columns())
                return asked

            return rate(seconds, some)


@row("request-reply: one at a time, inline responder")
def one_inline(seconds: float) -> float:
    with fastmq.open() as client:

        def answer(request: fastmq.Message) -> None:
            client.reply(request, request.payload)

        with client.subscribe("a", delivery=Delivery.INLINE, on_message=answer):

            def some() -> int:
                for _ in range(1000):
                    client.request("a", PAYLOAD)
                return 1000

            return rate(seconds, some)


@row("request-reply: one awaited at a time, inline responder")
def one_awaited(seconds: float) -> float:
    async def main() -> float:
        async with aio.open() as client:
            echo = await client.subscribe(
                "a",
                delivery=Delivery.INLINE,
                on_message=lambda request: client.reply(request, request.payload),
            )

            async def some() -> int:
                for _ in range(1000):
                    await client.request("a", PAYLOAD)
                return 1000

            result = await rate_of(seconds, some)
            echo.unsubscribe()
            return result

    return asyncio.run(main())


RESPONDER = """
import sys, fastmq
with fastmq.connect(sys.argv[1]) as client, client.subscribe("a") as requests:
    client.publish("ready", b"")
    for request in requests:
        client.reply(request, request.payload)
"""


@contextmanager
def responder(url: str) -> Iterator[None]:
    """A process that answers; it publishes to `ready` when it does."""
    process = subprocess.Popen([sys.executable, "-c", RESPONDER, url])
    try:
        yield
    finally:
        process.terminate()
        process.wait()


SERVING = """
import sys, fastmq
from fastmq import Delivery
with fastmq.open() as client:
    answer = lambda request: client.reply(request, request.payload)
    with client.subscribe("a", delivery=Delivery.INLINE, on_message=answer):
        with client.listen(sys.argv[1]) as server:
            print(server.urls[0], flush=True)
            sys.stdin.read()
"""


@contextmanager
def serving(scheme: str) -> Iterator[str]:
    """A process that listens and answers; its URL."""
    with tempfile.TemporaryDirectory() as directory:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVING, f"{scheme}:{directory}/s"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.communicate()


def of_a_server(scheme: str) -> Row:
    """One awaited at a time by a client of the process that answers."""

    async def ask(url: str, seconds: float) -> float:
        async with aio.connect(url) as client:

            async def some() -> int:
                for _ in range(200):
                    await client.request("a", PAYLOAD)
                return 200

            return await rate_of(seconds, some)

    def measure(seconds: float) -> float:
        with serving(scheme) as url:
            return asyncio.run(ask(url, seconds))

    return measure


row("request-reply: one awaited at a time, to a server, unix")(of_a_server("unix"))
row("request-reply: one awaited at a time, to a server, shm")(of_a_server("shm"))


@row("request-reply: one awaited at a time, to a client of ours")
def one_away(seconds: float) -> float:
    async def ask(url: str) -> float:
        async with aio.open() as client, await client.subscribe("ready") as ready:
            server = await client.listen(url)
            with responder(server.urls[0]):
                await ready.receive(timeout=20)

                async def some() -> int:
                    for _ in range(200):
                        await client.request("a", PAYLOAD)
                    return 200

                return await rate_of(seconds, some)

    with tempfile.TemporaryDirectory() as directory:
        return asyncio.run(ask(f"unix:{directory}/s"))


@row("request-reply: one at a time, to a client of ours")
def one_away_sync(seconds: float) -> float:
    with tempfile.TemporaryDirectory() as directory:
        with fastmq.open() as client, client.subscribe("ready") as ready:
            server = client.listen(f"unix:{directory}/s")
            with responder(server.urls[0]):
                ready.receive(timeout=20).close()

                def some() -> int:
                    for _ in range(200):
                        client.request("a", PAYLOAD)
                    return 200

                return rate(seconds, some)


@row("over TCP to a server: publish and receive")
def over_tcp(seconds: float) -> float:
    with fastmq.open() as broker, broker.listen("tcp://127.0.0.1:0") as server:
        url = os.environ.get("FASTMQ_URL", server.urls[0])
        with fastmq.connect(url) as client, client.subscribe("a") as reader:
            payloads = [PAYLOAD] * 1000
            with client.publisher("a") as writer:

                def some() -> int:
                    left = sent = writer.publish_batch(payloads)
                    while left:
                        left -= len(reader.receive(timeout=5).messages())
                    return sent

                return rate(seconds, some)


@row("peer: pyzmq inproc, one way")
def zmq_inproc(seconds: float) -> float:
    zmq = import_module("zmq")
    context = zmq.Context()
    receiver, sender = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    receiver.set_hwm(100_000)
    sender.set_hwm(100_000)
    receiver.bind("inproc://bench")
    sender.connect("inproc://bench")

    def some() -> int:
        for _ in range(1000):
            sender.send(PAYLOAD)
        for _ in range(1000):
            receiver.recv()
        return 1000

    try:
        return rate(seconds, some)
    finally:
        context.destroy(0)


@contextmanager
def nats_server() -> Iterator[str]:
    """The server of NATS_URL, or one that runs until the end."""
    if url := os.environ.get("NATS_URL"):
        yield url
        return
    command = shutil.which("nats-server")
    if command is None:
        raise ImportError("nats-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [command, "-a", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL
    )
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            time.sleep(0.01)
        yield f"nats://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@row("peer: nats-py over TCP to nats-server, publish and receive")
def nats_tcp(seconds: float) -> float:
    nats = import_module("nats")

    async def main(url: str) -> float:
        client = await nats.connect(url)
        reader = await client.subscribe("a")

        async def some() -> int:
            for _ in range(1000):
                await client.publish("a", PAYLOAD)
            for _ in range(1000):
                await reader.next_msg(timeout=5)
            return 1000

        try:
            return await rate_of(seconds, some)
        finally:
            await client.close()

    with nats_server() as url:
        return asyncio.run(main(url))


def start_ms(program: str) -> float:
    """Milliseconds that an interpreter takes for a program."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return (time.perf_counter() - start) * 1000


@row("import to first message, over the interpreter's start, ms")
def first_message(_seconds: float) -> float:
    program = (
        "import fastmq\n"
        "with fastmq.open() as c, c.subscribe('a') as s:\n"
        "    c.publish('a', b'x'); s.receive(timeout=1)"
    )
    with_it = [start_ms(program) for _ in range(10)]
    without = [start_ms("pass") for _ in range(10)]
    return statistics.median(with_it) - statistics.median(without)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not arguments.json:
        print(f"Python {sys.version.split()[0]}, fastmq {fastmq.__version__}, "
              f"{threading.active_count()} thread, medians of {arguments.runs}")
    for name, function in ROWS.items():
        if not re.search(arguments.only, name):
            continue
        try:
            figures = [function(arguments.seconds) for _ in range(arguments.runs)]
        except ImportError as missing:
            print(f"{name:62} left out: no {missing.name or missing}")
            continue
        if arguments.json:
            unit = "ms" if name.endswith(", ms") else "1/s"
            line = {"name": name, "unit": unit, "median": statistics.median(figures)}
            print(json.dumps(line), flush=True)
            continue
        print(f"{name:62} {statistics.median(figures):14,.1f}", flush=True)


if __name__ == "__main__":
    main()
