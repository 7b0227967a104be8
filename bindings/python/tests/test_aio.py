"""The face for asyncio: the same names, awaited where they would wait."""

from __future__ import annotations

import asyncio
import os
import queue
import tempfile
import threading
import time
import unittest
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import fastmq
from fastmq import Delivery, Status, aio

from steps import SECONDS, collect, run


@asynccontextmanager
async def responder(client: aio.Client, subject: str) -> AsyncIterator[aio.Subscription]:
    """A task that answers requests with their payload twice."""
    async with await client.subscribe(subject) as requests:

        async def answer() -> None:
            async for request in requests:
                client.reply(request, request.payload * 2)

        task = asyncio.create_task(answer())
        try:
            yield requests
        finally:
            requests.unsubscribe()
            await asyncio.wait_for(task, SECONDS)


class Asyncio(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.client = await aio.open()
        self.addAsyncCleanup(self.client.close)

    async def test_messages_are_awaited_and_iterated(self) -> None:
        async with await self.client.subscribe("a.*", tag=5) as subscription:
            self.assertEqual(subscription.pattern, "a.*")
            waiting = asyncio.create_task(subscription.receive(timeout=SECONDS))
            await asyncio.sleep(0)
            self.client.publish("a.1", b"x")
            (message,) = await waiting
            self.assertEqual((message.subject, message.payload, message.tag), ("a.1", b"x", 5))
            self.assertEqual(message.subscription_id, subscription.id)
            self.client.publish_batch([("a.1", b"1"), ("a.1", b"2"), ("a.1", b"3")])
            taken = []
            async for message in subscription:
                taken.append(message.payload)
                if len(taken) == 2:
                    break
            self.assertEqual(taken, [b"1", b"2"])
            # What was not given still waits.
            self.assertEqual((await subscription.receive()).payloads(), [b"3"])
            self.assertEqual(subscription.statistics()["delivered"], 4)

    async def test_a_receive_that_times_out_or_is_cancelled_takes_nothing(self) -> None:
        subscription = await self.client.subscribe("a")
        with self.assertRaises(fastmq.Again):
            await subscription.receive(timeout=0)
        with self.assertRaises(fastmq.Invalid):
            await subscription.receive(timeout=-1)
        with self.assertRaises(TimeoutError) as raised:
            await subscription.receive(timeout=0.01)
        self.assertIsInstance(raised.exception, fastmq.Timeout)
        waiting = asyncio.create_task(subscription.receive())
        await asyncio.sleep(0)
        self.client.publish("a", b"x")
        waiting.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await waiting
        self.assertEqual((await subscription.receive(timeout=SECONDS)).payloads(), [b"x"])

    async def test_tasks_share_a_queue(self) -> None:
        queue = self.client.queue()
        subscription = await self.client.subscribe("a", queue=queue)
        tasks = [asyncio.create_task(queue.receive(1, SECONDS)) for _ in range(10)]
        await asyncio.sleep(0)
        for number in range(10):
            self.client.publish("a", str(number))
        taken = sorted(batch[0].payload for batch in await asyncio.gather(*tasks))
        self.assertEqual(taken, [str(number).encode() for number in range(10)])
        self.assertEqual(queue.statistics()["delivered"], 10)
        self.client.publish("a", "by its subscription")
        received = await subscription.queue.receive(timeout=SECONDS)
        self.assertEqual(received.payloads(), [b"by its subscription"])
        self.assertEqual(subscription.queue.statistics()["delivered"], 11)
        subscription.unsubscribe()

    async def test_a_queue_wakes_whoever_waits_for_it_by_a_subscription(self) -> None:
        queue = self.client.queue()
        subscriptions = [await self.client.subscribe("a", queue=queue) for _ in range(2)]
        with self.assertRaises(fastmq.Timeout):
            await queue.receive(timeout=0.01)
        receivers: list[aio.Queue | aio.Subscription] = [*subscriptions, queue]
        for receiver in receivers:
            waiting = asyncio.create_task(receiver.receive(timeout=SECONDS))
            await asyncio.sleep(0)
            self.client.publish("a", b"x")
            # One from each of the two subscriptions.
            self.assertEqual((await waiting).payloads(), [b"x", b"x"])

    async def test_other_threads_wake_the_loop(self) -> None:
        async with await self.client.subscribe("a") as subscription:
            waiting = asyncio.create_task(subscription.receive(timeout=SECONDS))
            await asyncio.sleep(0)
            await asyncio.to_thread(self.client.publish, "a", b"x")
            self.assertEqual((await waiting).payloads(), [b"x"])

    async def test_requests_are_awaited(self) -> None:
        async with responder(self.client, "double"):
            reply = await self.client.request("double", b"la", headers={"a": "b"})
            self.assertEqual(reply.payload, b"lala")
            asked = (self.client.request("double", str(n), SECONDS) for n in range(1000))
            answers = await asyncio.gather(*asked)
            self.assertEqual([m.payload for m in answers], [f"{n}{n}".encode() for n in range(1000)])

    async def test_an_answer_is_written_where_the_asker_says(self) -> None:
        room = bytearray(4)
        async with responder(self.client, "double"):
            self.assertEqual(await self.client.request_into("double", b"a", room), 2)
            self.assertEqual(bytes(room), b"aa\0\0")
            with self.assertRaisesRegex(fastmq.TooLarge, "has 6 bytes; there is room for 4"):
                await self.client.request_into("double", b"abc", room)
            with self.assertRaises(TypeError):
                await self.client.request_into("double", b"", b"readonly")

    async def test_late_answers_hold_nobody_up(self) -> None:
        held: queue.Queue[fastmq.Message] = queue.Queue()
        with tempfile.TemporaryDirectory(prefix="fastmq-") as directory:
            server = await self.client.listen(f"unix:{directory}/s")
            late = await self.client.subscribe("late", delivery=Delivery.THREAD, on_message=held.put)
            async with aio.connect(server.urls[0]) as remote, responder(self.client, "soon"):
                for client in (remote, self.client):
                    for number in range(20):
                        asking = asyncio.create_task(client.request("late", str(number), SECONDS))
                        request = await asyncio.to_thread(held.get, timeout=SECONDS)
                        # The loop goes on although nobody answers.
                        soon = await client.request("soon", b"x", SECONDS)
                        self.assertEqual((soon.payload, asking.done()), (b"xx", False))
                        self.client.reply(request, request.payload)
                        self.assertEqual((await asking).payload, str(number).encode())
            late.unsubscribe()

    async def test_a_polled_connection_is_refused(self) -> None:
        with self.assertRaisesRegex(fastmq.Unsupported, "polled"):
            aio.connect("unix:/nobody", polled=True)

    async def test_each_fate_is_an_error_of_its_own(self) -> None:
        with self.assertRaisesRegex(fastmq.NoResponder, "^nobody answers nobody now$"):
            await self.client.request("nobody", b"")
        slow = await self.client.subscribe("slow")
        with self.assertRaises(fastmq.Timeout):
            await self.client.request("slow", b"", timeout=0.02)
        asking = [asyncio.create_task(self.client.request("slow", b"", SECONDS)) for _ in range(2)]
        await asyncio.sleep(0)
        asking[0].cancel()
        slow.unsubscribe()
        with self.assertRaises(asyncio.CancelledError):
            await asking[0]
        with self.assertRaises(fastmq.Cancelled):
            await asking[1]

    async def test_all_responders_answer(self) -> None:
        async with responder(self.client, "all"), responder(self.client, "all"):
            answers = await self.client.request_many("all", b"x")
            self.assertEqual([m.payload for m in answers], [b"xx", b"xx"])
            self.assertEqual([m.is_end for m in answers], [False, True])
        with self.assertRaises(fastmq.NoResponder):
            await self.client.request_many("all", b"x")

    async def test_a_responder_streams_its_replies(self) -> None:
        requests = await self.client.subscribe("count")

        async def count() -> None:
            async for request in requests:
                with self.client.reply_stream(request) as stream:
                    for number in range(int(request.payload)):
                        await stream.send_wait(str(number), SECONDS)
                    stream.end()

        counting = asyncio.create_task(count())
        with self.client.requester("count") as asker:
            asker.submit_many(b"100", token=1, credit=4, timeout=SECONDS)
            got = list(await asker.receive(timeout=SECONDS))
            while not got[-1].is_end:
                got += await asker.receive(timeout=SECONDS)
        self.assertEqual([m.payload for m in got[:-1]], [str(n).encode() for n in range(100)])
        self.assertEqual(got[-1].status, Status.END)
        requests.unsubscribe()
        await asyncio.wait_for(counting, SECONDS)

    async def test_a_requester_hears_of_deadlines(self) -> None:
        silent = await self.client.subscribe("silent")
        with self.client.requester("silent") as asker:
            asker.submit(b"", 1, timeout=0.02)
            (fate,) = await asker.receive(timeout=SECONDS)
            self.assertEqual(fate.status, Status.TIMEOUT)
            self.assertEqual(asker.in_flight(), 0)
        silent.unsubscribe()

    async def test_a_publish_waits_for_room(self) -> None:
        queue = self.client.queue(capacity=4096)
        subscription = await self.client.subscribe("full", queue=queue)
        with self.assertRaises(fastmq.Again):
            while True:
                self.client.publish("full", bytes(1000))
        with self.assertRaises(fastmq.Timeout):
            await self.client.publish_wait("full", b"", 0.01)
        with self.assertRaises(fastmq.Again):
            await self.client.publish_wait("full", bytes(1000), 0)
        with self.client.publisher("full") as publisher:
            waiting = asyncio.create_task(publisher.publish_wait(bytes(1000), SECONDS))
            await asyncio.sleep(0)
            while not waiting.done():
                (await queue.receive(timeout=SECONDS)).close()
                await asyncio.sleep(0.001)
            await waiting
        subscription.unsubscribe()

    async def test_closing_ends_all_that_waits(self) -> None:
        subscription = await self.client.subscribe("a")
        slow = await self.client.subscribe("slow")

        async def iterate() -> int:
            return len([message async for message in subscription])

        receiving = asyncio.create_task(slow.receive())
        iterating = asyncio.create_task(iterate())
        asking = asyncio.create_task(self.client.request("slow", b"", None))
        await asyncio.sleep(0)
        await self.client.close()
        await self.client.close()
        self.assertTrue(self.client.closed)
        results = await asyncio.gather(receiving, iterating, asking, return_exceptions=True)
        self.assertEqual(results[1], 0)
        self.assertIsInstance(results[2], fastmq.Error)
        with self.assertRaises(fastmq.Closed):
            await self.client.request("a", b"")

    async def test_one_descriptor_is_watched_for_all(self) -> None:
        collect()
        before = len(os.listdir("/proc/self/fd"))
        subscriptions = [await self.client.subscribe(f"s.{number}") for number in range(100)]
        waiting = [asyncio.create_task(s.receive(timeout=SECONDS)) for s in subscriptions]
        await asyncio.sleep(0)
        self.assertLessEqual(len(os.listdir("/proc/self/fd")), before)
        self.assertEqual(self.client.statistics()["threads"], 0)
        for number in range(100):
            self.client.publish(f"s.{number}", str(number))
        taken = [batch[0].payload for batch in await asyncio.gather(*waiting)]
        self.assertEqual(taken, [str(number).encode() for number in range(100)])

    async def test_servers_and_their_clients(self) -> None:
        with tempfile.TemporaryDirectory(prefix="fastmq-") as directory:
            urls = f"tcp://127.0.0.1:0,unix:{directory}/u,shm:{directory}/s"
            server = await self.client.listen(urls)
            for url in server.urls:
                async with aio.connect(url) as remote, responder(remote, "double"):
                    self.assertEqual((await self.client.request("double", b"x")).payload, b"xx")
                    async with await remote.subscribe("down") as down:
                        self.client.publish("down", b"y")
                        self.assertEqual((await down.receive(timeout=SECONDS)).payloads(), [b"y"])
            await self.client.drain(SECONDS)
            await asyncio.to_thread(server.close)
        with self.assertRaises(ConnectionError):
            await aio.connect(f"unix:{directory}/gone", connect_timeout=0.1)

    async def test_a_connect_that_is_cancelled_leaves_no_client(self) -> None:
        with tempfile.TemporaryDirectory(prefix="fastmq-") as directory:
            server = await self.client.listen(f"unix:{directory}/s")
            made: list[fastmq.Client] = []
            is_made, may_return = threading.Event(), threading.Event()

            def connect() -> fastmq.Client:
                made.append(fastmq.connect(server.urls[0]))
                is_made.set()
                may_return.wait(SECONDS)
                return made[0]

            opening = aio.connect(server.urls[0])
            opening._make = connect
            connecting = asyncio.create_task(opening._open())
            await asyncio.to_thread(is_made.wait, SECONDS)
            connecting.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await connecting
            may_return.set()
            end = time.monotonic() + SECONDS
            while not made[0].closed and time.monotonic() < end:
                await asyncio.sleep(0.001)
            self.assertTrue(made[0].closed)
            await asyncio.to_thread(server.close)

    async def test_a_close_that_is_cancelled_closes(self) -> None:
        client = await aio.open()
        subscription = await client.subscribe("a")
        receiving = asyncio.create_task(subscription.receive(timeout=SECONDS))
        closing = asyncio.create_task(client.close())
        await asyncio.sleep(0)
        closing.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await closing
        with self.assertRaises(fastmq.Closed):
            await receiving
        end = time.monotonic() + SECONDS
        while not client._loop.is_closed and time.monotonic() < end:
            await asyncio.sleep(0.001)
        self.assertTrue(client._loop.is_closed)

    async def test_handlers_may_answer_inline(self) -> None:
        double = await self.client.subscribe(
            "double",
            delivery=Delivery.INLINE,
            on_message=lambda request: self.client.reply(request, request.payload * 2),
        )
        self.assertEqual((await self.client.request("double", b"x")).payload, b"xx")
        double.close()


class Loops(unittest.TestCase):
    def test_a_client_belongs_to_its_loop(self) -> None:
        async def opened() -> tuple[aio.Client, aio.Subscription]:
            client = await aio.open()
            return client, await client.subscribe("a")

        loop = asyncio.new_event_loop()
        client, subscription = loop.run_until_complete(opened())
        with self.assertRaisesRegex(fastmq.Misuse, "another event loop"):
            asyncio.run(subscription.receive())
        loop.run_until_complete(client.close())
        loop.close()

    def test_a_forked_child_is_refused_and_leaves_the_loop_alone(self) -> None:
        code, out, err = run("""
            import asyncio, os, fastmq
            from fastmq import aio
            async def main():
                async with aio.open() as client, await client.subscribe("a") as subscription:
                    child = os.fork()
                    if child == 0:
                        code = 1
                        try:
                            await subscription.receive(timeout=1)
                        except fastmq.Misuse as error:
                            await client.close()
                            code = 0 if "forked child" in str(error) else 2
                        finally:
                            os._exit(code)
                    _, status = os.waitpid(child, 0)
                    waiting = asyncio.create_task(subscription.receive(timeout=10))
                    await asyncio.sleep(0)
                    client.publish("a", b"x")
                    print(os.waitstatus_to_exitcode(status), (await waiting).payloads())
            asyncio.run(main())
        """)
        self.assertEqual((code, out, err), (0, "0 [b'x']\n", ""))

    def test_an_event_loop_that_is_closed_under_a_client(self) -> None:
        async def opened() -> tuple[aio.Client, aio.Subscription]:
            client = await aio.open()
            return client, await client.subscribe("a")

        async def waiting() -> None:
            task = asyncio.create_task(subscription.receive())
            await asyncio.sleep(0)
            task.cancel()

        loop = asyncio.new_event_loop()
        client, subscription = loop.run_until_complete(opened())
        loop.run_until_complete(waiting())
        loop.close()
        # Its queue still works, and rings nobody.
        client.publish("a", b"x")
        asyncio.run(client.close())
        with self.assertRaises(fastmq.Closed):
            client.publish("a", b"y")
        asyncio.run(client.close())

    def test_a_task_that_is_left_with_its_loop(self) -> None:
        async def main() -> None:
            clients.append(await aio.open())
            subscription = await clients[0].subscribe("a")
            left.append(asyncio.get_running_loop().create_task(subscription.receive()))
            await asyncio.sleep(0)

        left: list[asyncio.Task[fastmq.Batch]] = []
        clients: list[aio.Client] = []
        asyncio.run(main())
        self.assertTrue(left[0].cancelled())
        asyncio.run(clients[0].close())
