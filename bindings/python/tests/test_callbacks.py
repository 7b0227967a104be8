"""Functions of the user that raise, wherever one is called."""

from __future__ import annotations

import asyncio
import queue
import sys
import unittest
from collections.abc import Iterator
from typing import Any

import fastmq
from fastmq import Delivery, aio

from steps import SECONDS, Broker


class Raised(Exception):
    """What the functions here raise."""


def fail(*_arguments: object) -> Any:
    raise Raised


class Handlers(Broker):
    """What nobody can catch goes to `sys.unraisablehook`, and all goes on."""

    def setUp(self) -> None:
        super().setUp()
        self.reported: queue.Queue[Any] = queue.Queue()
        self.addCleanup(setattr, sys, "unraisablehook", sys.unraisablehook)
        sys.unraisablehook = self.reported.put

    def is_reported(self, count: int, of: object = fail) -> None:
        for _ in range(count):
            report = self.reported.get(timeout=SECONDS)
            self.assertIsInstance(report.exc_value, Raised)
            self.assertIs(report.object, of)
        self.assertTrue(self.reported.empty())

    def test_a_handler_of_messages(self) -> None:
        for delivery in (Delivery.INLINE, Delivery.DISPATCH, Delivery.THREAD):
            with self.subTest(delivery), self.client.subscribe(
                "a", delivery=delivery, on_message=fail
            ):
                self.client.publish_batch([("a", b""), ("a", b"")])
                self.client.dispatch()
                self.is_reported(2)

    def test_a_responder_answers_nothing(self) -> None:
        for delivery in (Delivery.INLINE, Delivery.THREAD):
            with self.subTest(delivery), self.client.subscribe(
                "a", delivery=delivery, on_message=fail
            ):
                with self.assertRaises((fastmq.Timeout, fastmq.Cancelled)):
                    self.client.request("a", b"", 0.05)
                self.is_reported(1)

    def test_a_handler_of_a_client_of_a_server(self) -> None:
        with self.client.listen(f"unix:{self.directory}/s") as server:
            with fastmq.connect(server.urls[0]) as client:
                for delivery in (Delivery.INLINE, Delivery.THREAD):
                    with client.subscribe("a", delivery=delivery, on_message=fail):
                        self.client.publish("a", b"")
                        self.is_reported(1)
                with client.subscribe("a") as subscription:
                    self.client.publish("a", b"x")
                    self.assertEqual(subscription.receive(timeout=SECONDS).payloads(), [b"x"])

    def test_a_handler_of_events(self) -> None:
        with self.client.listen(f"unix:{self.directory}/s") as server:
            client = fastmq.connect(server.urls[0], on_event=fail)
            self.is_reported(1)
            self.client.publish("a", b"")
            client.close()
            self.is_reported(1)

    def test_a_function_for_the_log(self) -> None:
        fastmq.set_log(fastmq.LogLevel.DEBUG, fail)
        try:
            with self.client.listen(f"unix:{self.directory}/s") as server:
                with fastmq.connect(server.urls[0]):
                    pass
        finally:
            fastmq.set_log(fastmq.LogLevel.OFF)
        self.assertIsInstance(self.reported.get(timeout=SECONDS).exc_value, Raised)

    def test_a_handler_that_calls_back_and_raises(self) -> None:
        def nest(message: fastmq.Message) -> None:
            if len(message.payload) < 5:
                self.client.publish("a", message.payload + b".")
            raise Raised

        with self.client.subscribe("a", delivery=Delivery.INLINE, on_message=nest):
            self.client.publish("a", b"")
        self.is_reported(6, nest)

    def test_a_handler_that_ends_its_own_subscription_and_raises(self) -> None:
        held: list[fastmq.Subscription] = []

        def end(_message: fastmq.Message) -> None:
            held.pop().unsubscribe()
            raise Raised

        for delivery in (Delivery.INLINE, Delivery.DISPATCH, Delivery.THREAD):
            held.append(self.client.subscribe("a", delivery=delivery, on_message=end))
            self.client.publish("a", b"")
            self.client.dispatch()
            self.is_reported(1, end)
            self.client.publish("a", b"")
        self.is_reported(0)


class Arguments(Broker):
    """What the caller can catch, it gets; and what was sent before it stays."""

    def test_an_iterator_that_raises_half_way(self) -> None:
        def payloads() -> Iterator[bytes]:
            yield b"1"
            raise Raised

        def messages() -> Iterator[tuple[str, bytes]]:
            yield "a", b"2"
            raise Raised

        subscription = self.client.subscribe("a")
        with self.client.publisher("a") as publisher:
            self.assertRaises(Raised, publisher.publish_batch, payloads())
            publisher.publish(b"works")
        self.assertRaises(Raised, self.client.publish_batch, messages())
        self.assertRaises(Raised, self.client.publish, "a", b"", headers=(fail() for _ in [0]))
        received = subscription.receive(timeout=SECONDS).payloads()
        # A publisher takes its payloads before it publishes; pairs are published one by one.
        self.assertEqual(received, [b"works", b"2"])

    def test_an_iterator_that_uses_what_it_is_given_to(self) -> None:
        subscription = self.client.subscribe("a")
        with self.client.publisher("a") as publisher:

            def payloads() -> Iterator[bytes]:
                publisher.publish(b"1")
                self.client.publish("a", b"2")
                yield b"3"

            self.assertEqual(publisher.publish_batch(payloads()), 1)
        taken = subscription.receive(timeout=SECONDS).payloads()
        self.assertEqual(sorted(taken), [b"1", b"2", b"3"])

    def test_a_body_of_with_that_raises_closes_all(self) -> None:
        with self.assertRaises(Raised):
            with self.client.subscribe("a") as subscription, self.client.publisher("a") as publisher:
                with publisher.claim(8) as claim:
                    claim.view[:1] = b"x"
                    fail()
        self.assertRaises(fastmq.Closed, subscription.receive)
        self.assertRaises(ValueError, publisher.publish, b"")


class Tasks(unittest.IsolatedAsyncioTestCase):
    async def test_a_task_that_raises_leaves_the_client_to_others(self) -> None:
        async with aio.open() as client, await client.subscribe("a") as subscription:

            async def take_one() -> None:
                async for _message in subscription:
                    raise Raised

            tasks = [asyncio.create_task(take_one()) for _ in range(3)]
            for _ in range(3):
                await asyncio.sleep(0)
                client.publish("a", b"x")
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            self.assertEqual([type(one) for one in ended], [Raised] * 3)
            client.publish("a", b"next")
            self.assertEqual((await subscription.receive(timeout=SECONDS)).payloads(), [b"next"])

    async def test_a_handler_on_the_thread_of_the_loop(self) -> None:
        reported: list[object] = []
        hook, sys.unraisablehook = sys.unraisablehook, reported.append
        try:
            async with aio.open() as client:
                held = await client.subscribe("a", delivery=Delivery.INLINE, on_message=fail)
                with self.assertRaises(fastmq.Timeout):
                    await client.request("a", b"", 0.05)
                held.unsubscribe()
        finally:
            sys.unraisablehook = hook
        self.assertEqual(len(reported), 1)
