"""Requests: one, many in flight, many answers, streams; each ends once, with its fate."""

from __future__ import annotations

import threading
from array import array

import fastmq
from fastmq import Credit, Delivery, Status

from steps import SECONDS, Broker


class Requests(Broker):
    def test_a_request_is_answered(self) -> None:
        with self.doubler():
            self.assertEqual(self.client.request("double", b"la").payload, b"lala")
            self.assertEqual(self.client.request(b"double", "lo", timeout=None).payload, b"lolo")

    def test_an_answer_is_written_where_the_asker_says(self) -> None:
        room = bytearray(8)
        with self.doubler():
            self.assertEqual(self.client.request_into("double", b"abc", room), 6)
            self.assertEqual(bytes(room), b"abcabc\0\0")
            part = memoryview(room)[6:]
            self.assertEqual(self.client.request_into("double", b"x", part), 2)
            self.assertEqual(bytes(room), b"abcabcxx")
            numbers = array("d", [0.0, 1.0])
            size = self.client.request_into("double", array("d", [2.5]).tobytes(), numbers)
            self.assertEqual((size, list(numbers)), (16, [2.5, 2.5]))
            with self.assertRaisesRegex(fastmq.TooLarge, "has 10 bytes; there is room for 8"):
                self.client.request_into("double", b"12345", room)
            self.assertEqual(bytes(room), b"abcabcxx")
            for wrong in (b"readonly", memoryview(room)[::2], "text", None):
                with self.assertRaises((TypeError, BufferError)):
                    self.client.request_into("double", b"", wrong)  # type: ignore[arg-type]
            # A buffer that is lent cannot be resized meanwhile.
            def grow(request: fastmq.Message) -> None:
                with self.assertRaises(BufferError):
                    room.extend(b"!")
                self.client.reply(request, b"no", status=fastmq.Status.DENIED)

            with self.client.subscribe("grow", delivery=Delivery.INLINE, on_message=grow):
                self.assertRaises(fastmq.Denied, self.client.request_into, "grow", b"", room)
        self.assertRaises(fastmq.NoResponder, self.client.request_into, "double", b"", room)

    def test_each_fate_is_an_error_of_its_own(self) -> None:
        with self.assertRaisesRegex(fastmq.NoResponder, "^nobody answers nobody now$"):
            self.client.request("nobody", b"")
        slow = self.client.subscribe("slow")
        with self.assertRaises(TimeoutError) as raised:
            self.client.request("slow", b"", timeout=0.01)
        self.assertIsInstance(raised.exception, fastmq.Timeout)

        def end() -> None:
            fastmq.wait_any([slow], SECONDS)
            slow.unsubscribe()

        slow.receive(timeout=0).close()
        ending = threading.Thread(target=end)
        ending.start()
        with self.assertRaises(fastmq.Cancelled):
            self.client.request("slow", b"", timeout=SECONDS)
        ending.join()

    def test_a_request_that_timed_out_leaves_nothing_for_the_next(self) -> None:
        slow = self.client.subscribe("slow")
        self.assertRaises(fastmq.Timeout, self.client.request, "slow", b"", timeout=0.01)
        for request in slow.receive(timeout=SECONDS):
            self.client.reply(request, b"late")
        with self.doubler():
            self.assertEqual(self.client.request("double", b"x").payload, b"xx")
        self.assertEqual(self.client.statistics()["late_answers"], 1)

    def test_a_status_with_a_payload_is_an_answer_and_alone_an_error(self) -> None:
        def answer(request: fastmq.Message) -> None:
            headers = {"why": "full"} if request.payload == b"headers" else None
            payload = b"later" if request.payload == b"payload" else b""
            self.client.reply(request, payload, status=Status.BUSY, headers=headers)

        with self.client.subscribe("shop", delivery=Delivery.INLINE, on_message=answer):
            reply = self.client.request("shop", b"payload")
            self.assertEqual((reply.status, reply.payload), (Status.BUSY, b"later"))
            reply = self.client.request("shop", b"headers")
            self.assertEqual((reply.status, reply.header("why")), (Status.BUSY, b"full"))
            self.assertRaises(fastmq.Busy, self.client.request, "shop", b"")

    def test_threads_ask_at_the_same_time(self) -> None:
        workers = self.client.subscribe("echo")
        answers: list[bytes] = []

        def ask(number: int) -> None:
            answers.append(self.client.request("echo", str(number), SECONDS).payload)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        left = len(threads)
        while left:
            for request in workers.receive(timeout=SECONDS):
                self.assertTrue(request.is_request)
                self.client.reply(request.token, request.payload)
                left -= 1
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(answers), sorted(str(number).encode() for number in range(8)))

    def test_many_requests_are_in_flight(self) -> None:
        workers = self.client.subscribe("square")
        with self.client.requester("square", in_flight_max=3) as asker:
            for number in range(3):
                asker.submit(str(number), token=number, headers={"n": str(number)})
            self.assertRaises(fastmq.Again, asker.submit, b"", token=3)
            self.assertEqual(asker.in_flight(), 3)
            for request in workers.receive(timeout=SECONDS):
                self.assertEqual(request.header("n"), request.payload)
                self.client.reply(request, str(int(request.payload) ** 2))
            answers = {m.token: m.payload for m in asker.receive(timeout=SECONDS)}
            self.assertEqual(answers, {0: b"0", 1: b"1", 2: b"4"})
            asker.submit(b"elsewhere", 4, subject="nobody")
            (fate,) = asker.receive(timeout=SECONDS)
            self.assertEqual((fate.token, fate.status), (4, Status.NO_RESPONDER))
            asker.submit(b"", 5)
            asker.cancel(5)
            (fate,) = asker.receive(timeout=SECONDS)
            self.assertEqual((fate.token, fate.status), (5, Status.CANCELLED))
            self.assertRaises(fastmq.NotFound, asker.cancel, 5)
            asker.submit(b"", 6, timeout=0.01)
            (fate,) = asker.receive(timeout=SECONDS)
            self.assertEqual((fate.token, fate.status), (6, Status.TIMEOUT))
        self.assertRaises(fastmq.Closed, asker.submit, b"", 7)
        asker.close()

    def test_all_responders_answer(self) -> None:
        first, second = self.doubler("all"), self.doubler("all")
        answers = self.client.request_many("all", b"x", SECONDS)
        self.assertEqual([m.payload for m in answers], [b"xx", b"xx"])
        self.assertEqual({m.subscription_id for m in answers}, {first.id, second.id})
        self.assertEqual([m.is_end for m in answers], [False, True])
        self.assertEqual(len(self.client.request_many("all", b"x", answers_max=1)), 1)
        silent = self.client.subscribe("all")
        answers = self.client.request_many("all", b"x", 0.05)
        self.assertEqual((len(answers), answers[-1].subscription_id), (3, 0))
        self.assertEqual(answers[-1].status, Status.TIMEOUT)
        silent.unsubscribe()
        self.assertRaises(fastmq.NoResponder, self.client.request_many, "nobody", b"")

    def test_a_responder_streams_its_replies(self) -> None:
        workers = self.client.subscribe("count")
        with self.client.requester() as asker:
            asker.submit_many(b"3", token=9, subject="count", credit=2, timeout=SECONDS)
            (request,) = workers.receive(timeout=SECONDS)
            with self.client.reply_stream(request) as stream:
                self.assertRaises(fastmq.Exists, self.client.reply_stream, request.token)
                self.assertEqual(stream.credit(), 2)
                stream.send(b"0", headers={"n": "0"})
                stream.send_wait(b"1", SECONDS)
                self.assertRaises(fastmq.Again, stream.send, b"2")
                self.assertRaises(fastmq.Timeout, stream.send_wait, b"2", 0.01)
                got = list(asker.receive(timeout=SECONDS))
                asker._receive_now()
                stream.send_wait(b"2", SECONDS)
                stream.end()
                self.assertRaises(fastmq.Misuse, stream.send, b"3")
            while not got[-1].is_end:
                got += asker.receive(timeout=SECONDS)
            self.assertEqual([m.payload for m in got], [b"0", b"1", b"2", b""])
            self.assertEqual(got[0].header("n"), b"0")
            self.assertEqual((got[-1].token, got[-1].status), (9, Status.END))
            self.assertRaises(fastmq.Closed, stream.send, b"")

    def test_credit_is_granted_by_hand(self) -> None:
        workers = self.client.subscribe("count")
        with self.client.requester("count") as asker:
            asker.submit_many(b"", 1, credit=1, credit_mode=Credit.MANUAL)
            (request,) = workers.receive(timeout=SECONDS)
            stream = self.client.reply_stream(request)
            stream.send(b"0")
            asker.receive(timeout=SECONDS).close()
            self.assertRaises(fastmq.Again, stream.send, b"1")
            asker.grant(1, 2)
            stream.send(b"1")
            self.assertRaises(fastmq.NotFound, asker.grant, 2, 1)
            self.assertRaises(fastmq.Invalid, asker.grant, 1, 0)
            asker.cancel(1)
            self.assertRaises(fastmq.Cancelled, stream.send, b"2")
            stream.close()

    def test_an_asker_of_one_answer_takes_no_stream(self) -> None:
        workers = self.client.subscribe("count")
        with self.client.requester("count") as asker:
            asker.submit(b"", 1)
            (request,) = workers.receive(timeout=SECONDS)
            self.assertRaises(fastmq.Unsupported, self.client.reply_stream, request)

    def test_a_message_that_asks_nothing_has_no_answer(self) -> None:
        subscription = self.client.subscribe("a")
        self.client.publish("a", b"")
        (message,) = subscription.receive(timeout=SECONDS)
        self.assertRaises(fastmq.Invalid, self.client.reply, message, b"")
        self.assertRaises(TypeError, self.client.reply, "token", b"")
