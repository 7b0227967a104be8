"""Publishing and receiving: what is sent arrives, with all its fields."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import fastmq
from fastmq import Delivery, Policy, Wait

from steps import SECONDS, Broker

if TYPE_CHECKING:
    from fastmq._fastmq import Buffer


class Messages(Broker):
    def test_a_message_arrives_with_all_its_fields(self) -> None:
        subscription = self.client.subscribe("flight.*.JFK", tag=7)
        before = time.time_ns()
        self.client.publish(
            "flight.LAX.JFK",
            b"delayed",
            headers=[("gate", "B22"), ("gate", b"\x00\xff"), ("größe", "1")],
            key="LAX",
            reply_to="answers.1",
            ttl=60,
        )
        (message,) = subscription.receive(timeout=SECONDS)
        self.assertEqual(message.subject, "flight.LAX.JFK")
        self.assertEqual(message.payload, b"delayed")
        self.assertEqual(
            message.headers, [("gate", b"B22"), ("gate", b"\x00\xff"), ("größe", b"1")]
        )
        self.assertEqual(message.header("GATE"), b"B22")
        self.assertRaises(fastmq.NotFound, message.header, "colour")
        self.assertEqual((message.key, message.reply_to), (b"LAX", "answers.1"))
        self.assertEqual((message.tag, message.subscription_id), (7, subscription.id))
        self.assertEqual((message.delivery_count, message.lost_before), (1, 0))
        self.assertEqual((message.sequence, message.publisher, message.token), (0, 0, 0))
        self.assertEqual((message.timestamp_ns, message.status), (0, fastmq.Status.OK))
        self.assertEqual(message.flags, 0)
        self.assertFalse(message.is_request or message.has_more or message.is_end)
        self.assertFalse(message.is_redelivered)
        self.assertEqual(bytes(message), b"delayed")
        self.assertIn("flight.LAX.JFK", repr(message))
        self.assertGreater(time.time_ns(), before)

    def test_payloads_are_bytes_text_and_buffers(self) -> None:
        subscription = self.client.subscribe("a")
        values: list[str | Buffer] = [b"", b"bytes", "größe", bytearray(b"array"), memoryview(b"view")[1:]]
        for value in values:
            self.client.publish("a", value)
        expected = [b"", b"bytes", "größe".encode(), b"array", b"iew"]
        self.assertEqual(subscription.receive(timeout=SECONDS).payloads(), expected)

    def test_a_payload_that_changes_afterwards_was_sent_as_it_was(self) -> None:
        subscription = self.client.subscribe("a")
        payload = bytearray(b"before")
        self.client.publish("a", payload)
        payload[:] = b"behind"
        payload.extend(b"!")
        self.assertEqual(subscription.receive(timeout=SECONDS)[0].payload, b"before")

    def test_a_payload_that_changes_while_its_publish_waits(self) -> None:
        queue = self.client.queue(capacity=4096)
        held = self.client.subscribe("a", queue=queue)
        payload = bytearray(b"before" * 100)
        filled = 0
        with self.assertRaises(fastmq.Again):
            while True:
                self.client.publish("a", payload)
                filled += 1
        waiting = threading.Thread(target=self.client.publish_wait, args=("a", payload, SECONDS))
        parks = self.client.statistics()["parks"]
        waiting.start()
        end = time.monotonic() + SECONDS
        while self.client.statistics()["parks"] == parks:
            self.assertLess(time.monotonic(), end)
        payload[:6] = b"behind"
        payload.extend(b"!")
        for _ in range(filled + 1):
            self.assertEqual(next(queue).payload, b"before" * 100)
        waiting.join(SECONDS)
        held.unsubscribe()

    def test_a_handler_cannot_change_what_is_being_sent(self) -> None:
        payload = bytearray(b"before")

        def change(_message: fastmq.Message) -> None:
            payload[:] = b"behind"
            payload.clear()

        pulled = self.client.subscribe("a")
        with self.client.subscribe("a", delivery=Delivery.INLINE, on_message=change):
            with self.client.publisher("a") as publisher:
                self.assertEqual(publisher.publish_batch([payload, payload]), 2)
        self.assertEqual(pulled.receive(timeout=SECONDS).payloads(), [b"before", b"before"])

    def test_wrong_types_are_named(self) -> None:
        for arguments, name in (
            ((1, b""), "subject"),
            (("a", 1), "payload"),
            (("a", None), "payload"),
            (("a", object()), "payload"),
        ):
            with self.assertRaisesRegex(TypeError, name):
                self.client.publish(*arguments)
        with self.assertRaisesRegex(TypeError, "key is str or bytes, not int"):
            self.client.publish("a", b"", key=1)  # type: ignore[arg-type]
        with self.assertRaises(TypeError):
            self.client.publish("a", b"", headers=1)  # type: ignore[arg-type]
        with self.assertRaisesRegex(TypeError, "on_message is a function"):
            self.client.subscribe("a", delivery=Delivery.INLINE, on_message=1)  # type: ignore[arg-type]
        with self.assertRaisesRegex(TypeError, "unexpected keyword argument 'colour'"):
            fastmq.open(colour="red")  # type: ignore[call-arg]
        with self.assertRaises(BufferError):
            self.client.publish("a", memoryview(b"abcdef")[::2])
        released = memoryview(b"abcdef")
        released.release()
        with self.assertRaisesRegex(ValueError, "released"):
            self.client.publish("a", released)

    def test_wrong_values_are_invalid_and_named(self) -> None:
        subscription = self.client.subscribe("a")
        for call, name in (
            (lambda: self.client.publish("", b""), "subject"),
            (lambda: self.client.publish("a..b", b""), ""),
            (lambda: self.client.subscribe("a.>.b"), ""),
            (lambda: self.client.queue(policy=9), "policy is 9"),  # type: ignore[arg-type]
            (lambda: self.client.subscribe("a", delivery=9), "delivery is 9"),  # type: ignore[arg-type]
            (lambda: self.client.subscribe("a", group_mode=1), "group"),  # type: ignore[arg-type]
            (lambda: self.client.subscribe("a", delivery=Delivery.THREAD), "on_message"),
            (lambda: subscription.receive(timeout=-1), "timeout is -1"),
            (lambda: subscription.receive(timeout=float("nan")), "timeout is NaN"),
            (lambda: self.client.publish("a", b"", ttl=-1), "ttl is -1"),
            (lambda: self.client.publish("a", b"", headers={"": "x"}), "header name"),
            (lambda: self.client.reply(0, b""), "token is 0"),
            (lambda: self.client.reply(1, b"", status=99), "status is 99"),  # type: ignore[arg-type]
            (lambda: fastmq.open(wait=7), "wait is 7"),  # type: ignore[arg-type]
            (lambda: fastmq.open(memory=64), "memory is 0x40"),  # type: ignore[arg-type]
            (lambda: fastmq.wait_any([]), "queues"),
        ):
            with self.assertRaisesRegex(fastmq.Invalid, name):
                call()
        with self.assertRaises(fastmq.TooLarge):
            self.client.publish("a", bytes(2 << 20))
        with self.assertRaises(fastmq.Denied):
            self.client.publish("$SYS.JOINED.a", b"")
        with self.assertRaises(OverflowError):
            subscription.receive(-1)

    def test_a_publisher_counts_and_keeps_its_order(self) -> None:
        subscription = self.client.subscribe("price.*")
        with self.client.publisher("price.ACME") as publisher:
            publisher.publish(b"1")
            publisher.publish(b"2", headers={"currency": "EUR"}, key="ACME")
            self.assertEqual(publisher.publish_batch(str(n) for n in range(3, 6)), 3)
            publisher.publish_wait(b"6", timeout=1)
        messages = list(subscription.receive(timeout=SECONDS))
        self.assertEqual([m.payload for m in messages], [b"1", b"2", b"3", b"4", b"5", b"6"])
        self.assertEqual([m.sequence for m in messages], [1, 2, 3, 4, 5, 6])
        self.assertEqual(len({m.publisher for m in messages}), 1)
        self.assertEqual(messages[1].header("currency"), b"EUR")
        with self.assertRaises(fastmq.Closed):
            publisher.publish(b"7")
        publisher.close()

    def test_a_batch_by_subject_goes_in_order(self) -> None:
        subscription = self.client.subscribe("a.>")
        self.assertEqual(self.client.publish_batch([("a.1", b"x"), ("a.2", "y")]), 2)
        self.assertEqual(self.client.publish_batch([]), 0)
        batch = subscription.receive(timeout=SECONDS)
        self.assertEqual((batch.subjects(), batch.payloads()), (["a.1", "a.2"], [b"x", b"y"]))

    def test_a_full_queue_refuses_and_says_how_many_were_taken(self) -> None:
        queue = self.client.queue(capacity=4096)
        self.client.subscribe("full", queue=queue)
        payloads = [bytes(100)] * 1000
        subscription = self.client.subscribe("full", queue=queue)
        with self.client.publisher("full") as publisher:
            count = publisher.publish_batch(payloads)
            self.assertTrue(0 < count < 1000, count)
            with self.assertRaises(fastmq.Again) as raised:
                publisher.publish_batch(payloads)
            self.assertEqual(raised.exception.code, "FASTMQ_AGAIN")
            self.assertRaises(fastmq.Timeout, publisher.publish_wait, bytes(100), 0.01)
            waiting = threading.Thread(target=publisher.publish_wait, args=(bytes(100), SECONDS))
            waiting.start()
            taken = 0
            while taken < count + 1:
                taken += len(queue.receive(timeout=SECONDS))
            waiting.join()
        subscription.unsubscribe()

    def test_what_a_policy_drops_is_told(self) -> None:
        subscription = self.client.subscribe("drop", policy=Policy.DROP_OLDEST)
        queue = self.client.queue(policy=Policy.DROP_OLDEST, capacity=4096, wait=Wait.LOW_POWER)
        dropping = self.client.subscribe("drop", queue=queue)
        for number in range(1000):
            self.client.publish("drop", str(number).rjust(100))
        taken = list(queue.receive(timeout=SECONDS))
        self.assertGreater(taken[0].lost_before, 0)
        self.assertEqual(taken[0].lost_before, int(taken[0].payload))
        self.assertEqual(dropping.statistics()["dropped"], taken[0].lost_before)
        self.assertEqual(subscription.statistics()["dropped"], 0)

    def test_handlers_run_where_their_delivery_says(self) -> None:
        threads: dict[str, int] = {}
        called = threading.Event()

        def note(message: fastmq.Message) -> None:
            threads[message.payload.decode()] = threading.get_ident()
            called.set()

        here = threading.get_ident()
        with self.client.subscribe("inline", delivery=Delivery.INLINE, on_message=note):
            self.client.publish("inline", b"inline")
        with self.client.subscribe("dispatch", delivery=Delivery.DISPATCH, on_message=note):
            self.client.publish("dispatch", b"dispatch")
            self.assertNotIn("dispatch", threads)
            self.assertTrue(self.client.dispatch() & fastmq.Ready.MESSAGES)
        called.clear()
        with self.client.subscribe("thread", delivery=Delivery.THREAD, on_message=note) as third:
            self.client.publish("thread", b"thread")
            self.assertTrue(called.wait(SECONDS))
            self.assertRaises(fastmq.Misuse, third.receive)
            self.assertRaises(fastmq.Misuse, iter, third)
        self.assertEqual((threads["inline"], threads["dispatch"]), (here, here))
        self.assertNotEqual(threads["thread"], here)

    def test_descriptors_are_readable_while_something_waits(self) -> None:
        import select

        subscription = self.client.subscribe("a")
        descriptors = [self.client.fd(), subscription.queue.fd()]
        self.assertEqual(select.select(descriptors, [], [], 0)[0], [])
        self.assertIsNone(self.client.next_deadline())
        self.client.publish("a", b"")
        self.assertEqual(select.select(descriptors, [], [], SECONDS)[0], descriptors)
        subscription.receive(timeout=0).close()
        self.client.dispatch()
        self.assertRaises(fastmq.Again, subscription.receive, timeout=0)
        self.client.dispatch()
        self.assertEqual(select.select(descriptors, [], [], 0)[0], [])

    def test_one_wait_for_many_queues(self) -> None:
        subscriptions = [self.client.subscribe(f"q.{number}") for number in range(3)]
        queues: list[fastmq.Queue | fastmq.Subscription]
        queues = [subscriptions[0].queue, subscriptions[1], subscriptions[2].queue]
        self.assertRaises(fastmq.Again, fastmq.wait_any, queues, 0)
        self.assertRaises(fastmq.Timeout, fastmq.wait_any, queues, 0.01)
        self.client.publish("q.1", b"")
        self.assertEqual(fastmq.wait_any(queues, SECONDS), 1)
        self.assertRaises(TypeError, fastmq.wait_any, [1])

    def test_times_are_told_on_request(self) -> None:
        with fastmq.open(timestamps=fastmq.Timestamps.CLOCK) as client:
            subscription = client.subscribe("a")
            before = time.time_ns()
            client.publish("a", b"")
            with subscription.receive(timeout=SECONDS) as batch:
                self.assertGreaterEqual(batch[0].timestamp_ns, before)
                self.assertGreaterEqual(batch.received_ns, batch[0].timestamp_ns)

    def test_statistics_have_the_names_of_c(self) -> None:
        subscription = self.client.subscribe("a")
        self.client.publish("a", b"x")
        subscription.receive(timeout=SECONDS).close()
        self.assertEqual(self.client.statistics()["published"], 1)
        self.assertEqual(subscription.queue.statistics()["delivered"], 1)
        figures = subscription.statistics()
        self.assertEqual(figures, {"id": subscription.id, "delivered": 1, "dropped": 0})
