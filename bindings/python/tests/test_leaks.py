"""Endurance: what is opened and closed many times, left and collected in any order, leaves nothing.

Figures are compared after a first part that fills what is kept (free lists, caches, pools).
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import fastmq
from fastmq import Credit, Delivery, aio

from steps import SECONDS, Broker, collect

IS_SANITIZED = "asan" in os.environ.get("LD_PRELOAD", "")
"""Under a sanitizer all takes longer, and what is freed stays for a while."""

CYCLES = 1000 if IS_SANITIZED else 10_000


class Held(NamedTuple):
    """What a process holds."""

    descriptors: int
    threads: int
    objects: int
    """Objects that the interpreter's collector knows."""
    blocks: int
    """Blocks of memory that the interpreter has given out."""
    memory: int
    """Bytes that are resident."""

    @classmethod
    def now(cls) -> Held:
        collect()
        with open("/proc/self/statm", encoding="ascii") as statm:
            memory = int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")
        return cls(
            len(os.listdir("/proc/self/fd")),
            len(os.listdir("/proc/self/task")),
            len(gc.get_objects()),
            sys.getallocatedblocks(),
            memory,
        )


class Cycles(Broker):
    def nothing_is_left(self, before: Held, cycles: int) -> None:
        """Less than an object for fifty cycles, and less than a quarter of a page for each."""
        now = Held.now()
        self.assertEqual((now.descriptors, now.threads), (before.descriptors, before.threads))
        self.assertLess(now.objects - before.objects, cycles // 50)
        self.assertLess(now.blocks - before.blocks, cycles // 50)
        if not IS_SANITIZED:
            self.assertLess(now.memory - before.memory, 1024 * cycles)

    def check(self, cycles: int, once: Callable[[], None]) -> None:
        for _ in range(cycles // 10):
            once()
        before = Held.now()
        for _ in range(cycles - cycles // 10):
            once()
        self.nothing_is_left(before, cycles)

    def test_ten_thousand_brokers_with_all_that_they_have(self) -> None:
        def once() -> None:
            client = fastmq.open()
            queue = client.queue(capacity=4096)
            subscription = client.subscribe("a", queue=queue)
            echo = client.subscribe(
                "echo", delivery=Delivery.INLINE, on_message=lambda m: client.reply(m, m.payload)
            )
            publisher, asker = client.publisher("a"), client.requester("echo")
            client.fd()
            publisher.publish(b"x")
            with publisher.claim(8) as claim:
                claim.view[:1] = b"y"
            with queue.receive(timeout=SECONDS) as batch:
                batch.view(0).release()
            asker.submit(b"x", 1)
            asker.receive(timeout=SECONDS).close()
            for handle in (asker, publisher, echo, subscription, queue, client):
                handle.close()

        self.check(CYCLES, once)

    def test_ten_thousand_handles_of_one_broker(self) -> None:
        def once() -> None:
            with self.client.queue() as queue, self.client.subscribe("a", queue=queue):
                with self.client.publisher("a") as publisher, self.client.requester("a") as asker:
                    publisher.publish(b"x")
                    asker.submit(b"x", 1)
                    for message in queue.receive(timeout=SECONDS).messages():
                        if message.is_request:
                            self.client.reply(message, b"y")
                    asker.receive(timeout=SECONDS).columns()

        self.check(CYCLES, once)

    def test_a_thousand_connections(self) -> None:
        with self.client.listen(f"unix:{self.directory}/s") as server:
            url = server.urls[0]

            def once() -> None:
                with fastmq.connect(url, on_event=lambda event: None) as client:
                    with client.subscribe("a") as subscription:
                        client.publish("a", b"x")
                        subscription.receive(timeout=SECONDS).close()

            self.check(CYCLES // 10, once)

    def test_a_thousand_servers(self) -> None:
        def once() -> None:
            with fastmq.open() as client, client.listen(f"unix:{self.directory}/t"):
                pass

        self.check(CYCLES // 10, once)

    def test_two_thousand_clients_of_an_event_loop(self) -> None:
        async def once() -> None:
            async with aio.open() as client, await client.subscribe("a") as subscription:
                waiting = asyncio.create_task(subscription.receive(timeout=SECONDS))
                await asyncio.sleep(0)
                client.publish("a", b"x")
                (await waiting).close()
                with self.assertRaises(fastmq.NoResponder):
                    await client.request("b", b"")

        async def main() -> None:
            # One thread for what blocks, so that it is there from the first cycle on.
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
            cycles = CYCLES // 5
            for _ in range(cycles // 10):
                await once()
            before = Held.now()
            for _ in range(cycles - cycles // 10):
                await once()
            self.nothing_is_left(before, cycles)

        asyncio.run(main())


class Someone:
    """Does something at random with the handles of a client, as a seed decides."""

    def __init__(self, seed: int, url: str) -> None:
        self.random = random.Random(seed)
        self.handles: list[object] = []
        where = self.random.choice(["here", "away", "polled"])
        is_polled = where == "polled"
        self.client = fastmq.open() if where == "here" else fastmq.connect(url, polled=is_polled)

    def any_of(self, kind: type) -> object | None:
        there = [handle for handle in self.handles if isinstance(handle, kind)]
        return self.random.choice(there) if there else None

    def open(self) -> None:
        """Opens one more handle, of the client or of another handle."""
        client, batch = self.client, self.any_of(fastmq.Batch)
        source = self.any_of(fastmq.Subscription)
        asker, publisher = self.any_of(fastmq.Requester), self.any_of(fastmq.Publisher)
        delivery = self.random.choice([Delivery.INLINE, Delivery.THREAD, Delivery.DISPATCH])
        makers: list[Callable[[], object]] = [
            client.queue,
            lambda: client.subscribe("a"),
            lambda: client.subscribe("a", queue=self.any_of(fastmq.Queue)),  # type: ignore[arg-type]
            lambda: client.subscribe("a", delivery=delivery, on_message=lambda _: None),
            lambda: client.publisher("a"),
            lambda: client.requester("a"),
            lambda: client.publish("a", b"x"),
            lambda: client.listen("tcp://127.0.0.1:0"),
        ]
        if isinstance(source, fastmq.Subscription):
            makers += [lambda: source.receive(timeout=0), lambda: iter(source), lambda: source.queue]
        if isinstance(asker, fastmq.Requester):
            makers += [
                lambda: asker.submit_many(b"x", 1, answers_max=1, credit=4),
                lambda: asker.receive(timeout=0),
            ]
        if isinstance(publisher, fastmq.Publisher):
            makers += [lambda: publisher.claim(100), lambda: publisher.publish(b"x")]
        claim = self.any_of(fastmq.Claim)
        if isinstance(claim, fastmq.Claim):
            makers += [lambda: claim.view, lambda: claim.view[1:]]
        if isinstance(batch, fastmq.Batch):
            makers += [
                batch.messages,
                batch.columns,
                lambda: batch.columns().data,
                batch.__enter__,
                lambda: batch.view(0)[0:],
                lambda: client.reply_stream(batch[0]),
            ]
        self.handles.append(self.random.choice(makers)())

    def end(self) -> None:
        """Closes a handle, or forgets it."""
        if not self.handles:
            return
        index = self.random.randrange(len(self.handles))
        if self.random.random() < 0.5:
            del self.handles[index]
        elif close := getattr(self.handles[index], "close", None):
            close()

    def live(self, steps: int) -> None:
        for _ in range(steps):
            try:
                if self.random.random() < 0.03:
                    self.client.close()
                self.random.choice([self.open, self.open, self.end])()
            except (fastmq.Error, IndexError, BufferError):
                # Of what is closed, full or borrowed just now; nothing else.
                pass

    def die(self) -> None:
        """Forgets all handles, the client among them, in an order of its own."""
        handles = [*self.handles, self.client]
        self.handles.clear()
        del self.client
        while handles:
            del handles[self.random.randrange(len(handles))]
            if self.random.random() < 0.1:
                collect()


class EveryOrder(Broker):
    def test_handles_end_in_any_order(self) -> None:
        with self.client.listen(f"unix:{self.directory}/s") as server:
            warnings.simplefilter("ignore", ResourceWarning)
            before = None
            for seed in range(400):
                with self.subTest(seed=seed):
                    someone = Someone(seed, server.urls[0])
                    someone.live(60)
                    someone.die()
                    del someone
                if seed == 100:
                    before = Held.now()
            now = Held.now()
            assert before is not None
            self.assertEqual((now.descriptors, now.threads), (before.descriptors, before.threads))
            self.assertLess(now.objects - before.objects, 100)
            # Whatever else is open, this one works.
            with self.doubler():
                self.assertEqual(self.client.request("double", b"x").payload, b"xx")
