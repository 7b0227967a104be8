"""Options of clients, threads and queues: each reaches the engine, and a bad one is named."""

from __future__ import annotations

import threading

import fastmq
from fastmq import Delivery, Memory, Scheduling, ThreadOptions, Timestamps, Wait

from steps import SECONDS, Broker


class Options(Broker):
    def test_options_of_a_client_reach_the_engine(self) -> None:
        with fastmq.open(
            memory_max=8 << 20,
            queue_capacity=65536,
            payload_max=1000,
            wait=Wait.LOW_POWER,
            threads_max=2,
            close_timeout=1.5,
            timestamps=Timestamps.CLOCK,
            memory=Memory.PREFAULT,
            threads=ThreadOptions(name="worker"),
        ) as client:
            self.assertRaises(fastmq.TooLarge, client.publish, "a", bytes(1001))
            names: list[str] = []
            called = threading.Event()

            def note(_message: fastmq.Message) -> None:
                with open("/proc/thread-self/comm", encoding="ascii") as comm:
                    names.append(comm.read().strip())
                called.set()

            with client.subscribe("a", delivery=Delivery.THREAD, on_message=note):
                client.publish("a", b"")
                self.assertTrue(called.wait(SECONDS))
            self.assertEqual(names, ["worker-0"])

    def test_none_and_nothing_are_the_defaults(self) -> None:
        with fastmq.open(memory_max=None, wait=None, close_timeout=0, threads=None) as client:
            client.publish("a", bytes(1 << 20))

    def test_bad_options_are_named(self) -> None:
        for options, name in (
            ({"payload_max": 1 << 40}, "payload_max is"),
            ({"queue_capacity": 1 << 40}, "capacity is"),
            ({"threads_max": 1000}, "threads_max is 1000"),
            ({"memory": Memory.LOCK}, "memory_max"),
            ({"close_timeout": -1}, "close_timeout is -1"),
            ({"threads": ThreadOptions(name="a name that is too long")}, "name"),
            ({"threads": ThreadOptions(priority=5)}, "priority"),
        ):
            with self.assertRaisesRegex(fastmq.Invalid, name):
                fastmq.open(**options)
        with self.assertRaises(TypeError):
            fastmq.open(payload_max="large")  # type: ignore[arg-type]
        with self.assertRaisesRegex(TypeError, "threads is a ThreadOptions, not int"):
            fastmq.open(threads=3)  # type: ignore[arg-type]
        with self.assertRaisesRegex(TypeError, "on_event is a function, not int"):
            fastmq.connect("unix:/nobody", on_event=3)  # type: ignore[arg-type]
        with self.assertRaisesRegex(TypeError, "on_log is a function, not int"):
            fastmq.set_log(fastmq.LogLevel.INFO, 3)  # type: ignore[arg-type]

    def test_a_thread_is_set_up(self) -> None:
        def set_up() -> None:
            fastmq.thread_setup(ThreadOptions(name="named"))
            with open("/proc/thread-self/comm", encoding="ascii") as comm:
                names.append(comm.read().strip())
            fastmq.thread_setup()

        names: list[str] = []
        thread = threading.Thread(target=set_up)
        thread.start()
        thread.join()
        self.assertEqual(names, ["named"])
        options = ThreadOptions(scheduling=Scheduling.FIFO)
        self.assertRaises(fastmq.Invalid, fastmq.thread_setup, options)
        self.assertIn("FIFO", repr(options))

    def test_the_version_is_that_of_the_library(self) -> None:
        self.assertRegex(fastmq.__version__, r"^\d+\.\d+\.\d+$")
        self.assertGreaterEqual(fastmq.abi(), 1)
