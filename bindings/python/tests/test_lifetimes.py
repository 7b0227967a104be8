"""Lifetimes: closing in every order, signals, forks, threads, the interpreter's end."""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import threading
import time
import unittest
import warnings

import fastmq
from fastmq import Delivery

from steps import SECONDS, Broker, collect, run


class Closing(Broker):
    def test_closing_is_idempotent_and_ends_all_other_handles(self) -> None:
        subscription = self.client.subscribe("a")
        publisher, asker = self.client.publisher("a"), self.client.requester("a")
        queue, server = self.client.queue(), self.client.listen(f"unix:{self.directory}/s")
        self.client.close()
        self.client.close()
        self.assertTrue(self.client.closed)
        for call in (
            lambda: self.client.publish("a", b""),
            lambda: self.client.subscribe("a"),
            lambda: self.client.request("a", b""),
            lambda: self.client.listen(f"unix:{self.directory}/t"),
            lambda: publisher.publish(b""),
            lambda: asker.submit(b"", 1),
            lambda: queue.receive(),
            lambda: subscription.receive(),
            lambda: server.change(token="x"),
            self.client.fd,
            self.client.dispatch,
            self.client.drain,
        ):
            with self.assertRaises(fastmq.Closed) as raised:
                call()
            self.assertEqual(raised.exception.code, "FASTMQ_CLOSED")
        for handle in (subscription, publisher, asker, queue, server):
            handle.close()
            handle.close()

    def test_handles_are_collected_in_every_order(self) -> None:
        for order in itertools.permutations(range(5)):
            client = fastmq.open()
            subscription = client.subscribe("a")
            client.publish("a", b"x")
            handles: list[object] = [
                client,
                subscription,
                subscription.receive(timeout=SECONDS),
                client.publisher("a"),
                client.requester("a"),
            ]
            client.close()
            del client, subscription
            for index in order:
                handles[index] = None
            collect()

    def test_handlers_that_hold_their_client_end_with_it(self) -> None:
        client = fastmq.open()
        held = client.subscribe("a", delivery=Delivery.INLINE, on_message=lambda _: client)
        client.publish("a", b"")
        client.close()
        held.unsubscribe()

    def test_a_client_that_is_forgotten_warns_and_is_closed(self) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fastmq.open()
            collect()
        self.assertEqual([w.category for w in caught], [ResourceWarning])
        self.assertIn("was not closed", str(caught[0].message))

    def test_closing_ends_a_receive_of_another_thread(self) -> None:
        subscription = self.client.subscribe("a")
        ended: list[type[BaseException]] = []

        def receive() -> None:
            try:
                subscription.receive()
            except fastmq.Error as error:
                ended.append(type(error))

        thread = threading.Thread(target=receive)
        thread.start()
        self.client.close()
        thread.join(SECONDS)
        self.assertEqual(ended, [fastmq.Closed])

    def test_a_client_cannot_be_pickled(self) -> None:
        self.assertRaises(fastmq.Misuse, pickle.dumps, self.client)


class Threads(Broker):
    def test_other_threads_run_while_one_waits(self) -> None:
        subscription = self.client.subscribe("a")
        publishing = threading.Timer(0.05, self.client.publish, ("a", b"x"))
        publishing.start()
        self.assertEqual(subscription.receive(timeout=SECONDS).payloads(), [b"x"])

    def test_one_thread_at_a_time_uses_a_requester(self) -> None:
        asker = self.client.requester("a")
        silent = self.client.subscribe("a")
        asker.submit(b"", 1, timeout=SECONDS)
        waiting = threading.Thread(target=asker.receive)
        waiting.start()
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            try:
                asker.in_flight()
            except fastmq.Misuse:
                break
        else:
            self.fail("two threads used one requester")
        for request in silent.receive(timeout=SECONDS):
            self.client.reply(request, b"")
        waiting.join(SECONDS)

    def test_the_log_goes_where_python_logs(self) -> None:
        lines: list[tuple[fastmq.LogLevel, str, str]] = []
        fastmq.set_log(fastmq.LogLevel.DEBUG, lambda *line: lines.append(line))
        try:
            with self.client.listen(f"unix:{self.directory}/s") as server:
                with fastmq.connect(server.urls[0], token="not asked for"):
                    pass
        finally:
            fastmq.set_log(fastmq.LogLevel.OFF)
        for level, target, text in lines:
            self.assertIsInstance(level, fastmq.LogLevel)
            self.assertTrue(target and text)


class Signals(Broker):
    def interrupt(self, call: object) -> None:
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with self.assertRaises(KeyboardInterrupt):
            call()  # type: ignore[operator]
        timer.join()

    def test_an_interrupt_ends_every_call_that_waits(self) -> None:
        subscription = self.client.subscribe("a")
        slow = self.client.subscribe("slow")
        full = self.client.queue(capacity=4096)
        filling = self.client.subscribe("full", queue=full)
        try:
            while True:
                self.client.publish("full", bytes(1000))
        except fastmq.Again:
            pass
        with self.client.requester("slow") as asker:
            asker.submit(b"", 1, timeout=None)
            for call in (
                subscription.receive,
                lambda: next(iter(subscription)),
                lambda: fastmq.wait_any([subscription]),
                lambda: self.client.request("slow", b"", timeout=None),
                lambda: self.client.request_many("slow", b"", timeout=None),
                asker.receive,
                lambda: self.client.publish_wait("full", bytes(1000)),
            ):
                self.interrupt(call)
        filling.unsubscribe()
        slow.unsubscribe()
        with self.doubler():
            self.assertEqual(self.client.request("double", b"x").payload, b"xx")

    def test_an_interrupt_ends_a_drain_which_goes_on_when_asked_again(self) -> None:
        subscription = self.client.subscribe("a")
        self.client.publish("a", b"x")
        # Closing ends a drain that nothing else does.
        failsafe = threading.Timer(SECONDS, self.client.close)
        failsafe.start()
        self.interrupt(self.client.drain)
        with self.assertRaisesRegex(fastmq.Timeout, "1 messages still wait in 1 queues"):
            self.client.drain(0.06)
        self.assertEqual(subscription.receive().payloads(), [b"x"])
        self.client.drain()
        failsafe.cancel()

    def test_an_interrupt_in_a_handler_ends_the_program(self) -> None:
        def raising(_message: fastmq.Message) -> None:
            raise KeyboardInterrupt

        for delivery in (Delivery.INLINE, Delivery.DISPATCH):
            with self.client.subscribe("a", delivery=delivery, on_message=raising):
                with self.assertRaises(KeyboardInterrupt):
                    self.client.publish("a", b"")
                    self.client.dispatch()

    def test_an_interrupt_takes_no_message(self) -> None:
        subscription = self.client.subscribe("a")
        self.interrupt(subscription.receive)
        self.client.publish("a", b"x")
        self.assertEqual(subscription.receive(timeout=SECONDS).payloads(), [b"x"])


class Processes(unittest.TestCase):
    def test_a_forked_child_is_refused_and_may_close(self) -> None:
        code, out, err = run("""
            import os, fastmq
            client = fastmq.open()
            subscription, publisher = client.subscribe("a"), client.publisher("a")
            requester, queue = client.requester("a"), client.queue()
            client.publish("a", b"x")
            batch = subscription.receive(timeout=1)
            client.publish("a", b"y")
            child = os.fork()
            if child == 0:
                calls = [
                    lambda: client.publish("a", b""), lambda: publisher.publish(b""),
                    lambda: requester.submit(b"", 1), lambda: subscription.receive(timeout=0),
                    lambda: next(iter(queue)), lambda: client.request("a", b""),
                    lambda: client.statistics(), lambda: fastmq.open(), batch.messages,
                    lambda: fastmq.wait_any([queue]), lambda: fastmq.connect("unix:/nobody"),
                ]
                refused = 0
                for call in calls:
                    try:
                        call()
                    except fastmq.Misuse as error:
                        assert "forked child" in str(error)
                        refused += 1
                assert refused == len(calls), refused
                for handle in (batch, publisher, requester, queue, subscription, client):
                    handle.close()
                    handle.close()
                print("refused", flush=True)
                raise SystemExit(0)
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 0, status
            assert batch.payloads() == [b"x"]
            batch.close()
            assert subscription.receive(timeout=1).payloads() == [b"y"]
            client.close()
            print("parent")
        """)
        self.assertEqual((code, out, err), (0, "refused\nparent\n", ""))

    def test_a_child_of_multiprocessing_fork_ends_cleanly(self) -> None:
        code, out, err = run("""
            import multiprocessing, fastmq
            client = fastmq.open()
            held = client.subscribe("a", delivery=fastmq.Delivery.THREAD, on_message=print)
            def child():
                try:
                    client.publish("a", b"")
                except fastmq.Misuse:
                    print("refused", flush=True)
            process = multiprocessing.get_context("fork").Process(target=child)
            process.start()
            process.join()
            print(process.exitcode)
            client.close()
        """)
        self.assertEqual((code, out, err), (0, "refused\n0\n", ""))

    def test_the_interpreter_ends_with_all_open(self) -> None:
        code, out, err = run("""
            import threading, fastmq
            client = fastmq.open(threads_max=2)
            came = threading.Event()
            def note(message):
                came.set()
                client.publish("b", b"again")
            first = client.subscribe("a", delivery=fastmq.Delivery.THREAD, on_message=note)
            second = client.subscribe("b", delivery=fastmq.Delivery.THREAD, on_message=note)
            server = client.listen("tcp://127.0.0.1:0")
            remote = fastmq.connect(server.urls[0], on_event=lambda event: event.kind)
            waiting = threading.Thread(target=lambda: remote.subscribe("c").receive(), daemon=True)
            waiting.start()
            client.publish("a", b"")
            assert came.wait(10)
            print("ending")
        """)
        self.assertEqual((code, out), (0, "ending\n"), err)

    def test_the_interpreter_ends_with_all_that_is_borrowed(self) -> None:
        code, out, err = run("""
            import asyncio, fastmq
            from fastmq import aio
            fastmq.set_log(fastmq.LogLevel.DEBUG, lambda *line: line)
            client = fastmq.open()
            subscription, publisher = client.subscribe("a"), client.publisher("a")
            publisher.publish(b"x")
            batch = subscription.receive().__enter__()
            view = batch.view(0)[:1]
            columns = batch.columns()
            claim = publisher.claim(8)
            part = claim.view[1:]
            requester = client.requester("a")
            requester.submit_many(b"x", 1, credit=4)
            queue = client.subscribe("b").queue
            loop = asyncio.new_event_loop()
            async def main():
                global other, reading
                other = await aio.open()
                reading = asyncio.ensure_future((await other.subscribe("a")).receive())
                await asyncio.sleep(0)
            loop.run_until_complete(main())
            print("ending")
        """)
        self.assertEqual((code, out), (0, "ending\n"), err)

    def test_the_interpreter_ends_while_modules_are_taken_apart(self) -> None:
        code, out, err = run("""
            import fastmq
            class Holder:
                def __init__(self):
                    self.client = fastmq.open()
                    self.subscription = self.client.subscribe("a")
                    self.itself = self
            holder = Holder()
            print("ending")
        """)
        self.assertEqual((code, out, err), (0, "ending\n", ""))

    def test_a_subinterpreter_is_refused(self) -> None:
        code, out, err = run("""
            import importlib
            for name in ("_xxsubinterpreters", "_interpreters"):
                try:
                    interpreters = importlib.import_module(name)
                except ImportError:
                    continue
                failed = interpreters.run_string(interpreters.create(), '''
            try:
                import fastmq
            except ImportError as error:
                print(error, flush=True)
            ''')
                break
        """)
        self.assertEqual(code, 0, err)
        self.assertIn("not in a subinterpreter", out)

    def test_two_copies_of_the_library_are_two_libraries(self) -> None:
        library = os.environ.get("FASTMQ_LIBRARY", "")
        if not os.path.exists(library):
            self.skipTest("FASTMQ_LIBRARY names no libfastmq.so")
        code, out, err = run(
            """
            import ctypes, sys, fastmq
            c = ctypes.CDLL(sys.argv[1])
            c.fastmq_version.restype = ctypes.c_char_p
            handle = ctypes.c_void_p()
            assert c.fastmq_open(None, ctypes.byref(handle)) == 0
            with fastmq.open() as client, client.subscribe("a") as subscription:
                class Bytes(ctypes.Structure):
                    _fields_ = [("data", ctypes.c_char_p), ("size", ctypes.c_size_t)]
                assert c.fastmq_publish(handle, Bytes(b"a", 1), Bytes(b"c", 1)) == 0
                client.publish("a", b"python")
                print(subscription.receive(timeout=1).payloads())
            c.fastmq_close(handle)
            """,
            library,
        )
        self.assertEqual((code, out, err), (0, "[b'python']\n", ""))

    def test_two_copies_of_the_package_are_two_libraries(self) -> None:
        code, out, err = run("""
            import os, shutil, sys, tempfile
            import fastmq as ours
            with tempfile.TemporaryDirectory() as other:
                shutil.copytree(os.path.dirname(ours.__file__), other + "/fastmq")
                for name in [name for name in sys.modules if name.split(".")[0] == "fastmq"]:
                    del sys.modules[name]
                sys.path.insert(0, other)
                import fastmq as theirs
                assert theirs.Client is not ours.Client
                with ours.open() as broker, theirs.open() as apart:
                    server = broker.listen(f"unix:{other}/socket")
                    answer = lambda request: broker.reply(request, request.payload + b" answered")
                    echo = broker.subscribe("a", delivery=ours.Delivery.THREAD, on_message=answer)
                    with theirs.connect(server.urls[0]) as client:
                        print(client.request("a", b"asked", timeout=5).payload)
                    try:
                        apart.request("a", b"asked", timeout=5)
                    except theirs.NoResponder:
                        print("apart")
                    try:
                        apart.subscribe("a", queue=broker.queue())
                    except TypeError:
                        print("refused")
                    echo.unsubscribe()
        """)
        self.assertEqual((code, out, err), (0, "b'asked answered'\napart\nrefused\n", ""))

    def test_a_forgotten_client_leaves_the_exception_on_its_way(self) -> None:
        code, out, err = run("""
            import warnings, fastmq
            warnings.simplefilter("always", ResourceWarning)
            try:
                int(fastmq.open())
            except TypeError as error:
                print(error)
        """)
        self.assertEqual(code, 0, err)
        self.assertIn("not 'fastmq.Client'", out)
        self.assertIn("ResourceWarning", err)
