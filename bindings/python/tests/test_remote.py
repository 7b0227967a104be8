"""Clients of servers, over each transport, in this process and in others."""

from __future__ import annotations

import json
import multiprocessing
import queue
import socket
import threading

import fastmq
from fastmq import EventFlag, EventKind, Status

from steps import SECONDS, Broker, python


def _work(url: str) -> None:
    """A worker: answers requests until it is told to stop."""
    with fastmq.connect(url) as client, client.subscribe("work.*", group="workers") as work:
        client.publish("ready", b"")
        for request in work:
            client.reply(request, request.payload[::-1])
            if request.subject == "work.stop":
                return


class Remote(Broker):
    def urls(self) -> list[str]:
        return [
            "tcp://127.0.0.1:0",
            f"unix:{self.directory}/unix",
            f"shm:{self.directory}/shm",
        ]

    def test_each_transport_carries_messages_requests_and_answers(self) -> None:
        with self.client.listen(",".join(self.urls())) as server, self.doubler():
            self.assertEqual(len(server.urls), 3)
            self.assertEqual(server.urls[2], self.urls()[2])
            self.assertIn("127.0.0.1", repr(server))
            here = self.client.subscribe("up")
            for url in server.urls:
                with self.subTest(url), fastmq.connect(url, name="tester") as client:
                    there = client.subscribe("down.*")
                    self.client.publish("down.1", b"x", key="k", headers={"h": "v"})
                    (message,) = there.receive(timeout=SECONDS)
                    self.assertEqual((message.subject, message.payload), ("down.1", b"x"))
                    self.assertEqual((message.key, message.header("h")), (b"k", b"v"))
                    client.publish("up", b"y")
                    self.assertEqual(here.receive(timeout=SECONDS).payloads(), [b"y"])
                    self.assertEqual(client.request("double", b"la", SECONDS).payload, b"lala")
                    with self.assertRaises(fastmq.NoResponder):
                        client.request("nobody", b"", SECONDS)
                    with client.subscribe("echo") as echo:
                        answer = threading.Thread(
                            target=lambda c=client, e=echo: [
                                c.reply(m, m.payload) for m in e.receive(timeout=SECONDS)
                            ]
                        )
                        answer.start()
                        self.assertEqual(self.client.request("echo", b"z", SECONDS).payload, b"z")
                        answer.join()
                    stats = client.request(fastmq.SUBJECT_STATS, b"", SECONDS)
                    self.assertIn("connections", json.loads(stats.payload))

    def test_other_processes_share_the_work(self) -> None:
        ready = self.client.subscribe("ready")
        with self.client.listen(f"shm:{self.directory}/work") as server:
            spawn = multiprocessing.get_context("spawn")
            workers = [spawn.Process(target=_work, args=(server.urls[0],)) for _ in range(2)]
            for worker in workers:
                worker.start()
            came = 0
            while came < len(workers):
                came += len(ready.receive(timeout=SECONDS))
            for number in range(50):
                reply = self.client.request(f"work.{number}", f"{number}.", SECONDS)
                self.assertEqual(reply.payload, f".{str(number)[::-1]}".encode())
            while any(worker.is_alive() for worker in workers):
                try:
                    self.client.request("work.stop", b"", SECONDS)
                except (fastmq.NoResponder, fastmq.Cancelled, fastmq.Disconnected):
                    pass
            for worker in workers:
                worker.join(SECONDS)
                self.assertEqual(worker.exitcode, 0)

    def test_a_server_asks_for_its_secret(self) -> None:
        with self.client.listen(f"unix:{self.directory}/s", token="open sesame") as server:
            for wrong in (None, "sesame"):
                with self.assertRaises(PermissionError) as raised:
                    fastmq.connect(server.urls[0], token=wrong)
                self.assertEqual(raised.exception.code, "FASTMQ_DENIED")  # type: ignore[attr-defined]
            fastmq.connect(server.urls[0], token=b"open sesame").close()
            server.change(token="another")
            self.assertRaises(fastmq.Denied, fastmq.connect, server.urls[0], token="open sesame")
            self.assertRaises(TypeError, server.change, colour="red")

    def test_nobody_listens(self) -> None:
        with self.assertRaises(ConnectionError) as raised:
            fastmq.connect(f"unix:{self.directory}/nobody", connect_timeout=0.1)
        self.assertIn(raised.exception.code, ("FASTMQ_UNAVAILABLE", "FASTMQ_TIMEOUT"))  # type: ignore[attr-defined]
        for url in ("", "http://x", "tcp://", "unix:"):
            self.assertRaises(fastmq.Invalid, fastmq.connect, url)
            self.assertRaises(fastmq.Invalid, self.client.listen, url)
        self.assertRaises(fastmq.Denied, self.client.listen, "tcp://0.0.0.0:0")
        self.assertRaises(fastmq.Io, self.client.listen, f"unix:{self.directory}/no/such/place")

    def test_a_server_takes_sockets_that_listen_already(self) -> None:
        path = f"{self.directory}/given"
        with socket.socket(socket.AF_UNIX) as unix, socket.socket() as tcp:
            unix.bind(path)
            tcp.bind(("127.0.0.1", 0))
            for given in (unix, tcp):
                given.listen()
            with self.client.listen(sockets=[unix, tcp.fileno()]) as server:
                self.assertEqual(len(server.urls), 2)
                port = tcp.getsockname()[1]
                for url in (f"unix:{path}", f"tcp://127.0.0.1:{port}"):
                    with fastmq.connect(url) as client, self.doubler():
                        self.assertEqual(client.request("double", b"x").payload, b"xx")
            # They are the program's, before and after.
            self.assertGreaterEqual(unix.fileno(), 0)
            self.assertEqual(tcp.getsockname()[1], port)
        for wrong, error in (([-1], OSError), (["x"], TypeError), (3, TypeError), ([], fastmq.Invalid)):
            with self.assertRaises(error):
                self.client.listen(sockets=wrong)  # type: ignore[arg-type]
        self.assertRaises(fastmq.Invalid, self.client.listen)

    def test_what_happens_to_a_connection_is_told(self) -> None:
        events: queue.Queue[fastmq.Event] = queue.Queue()
        url = f"unix:{self.directory}/events"
        server = self.client.listen(url, name="first")
        client = fastmq.connect(url, on_event=events.put, backoff_min=0.01)
        event = events.get(timeout=SECONDS)
        self.assertEqual((event.kind, event.server), (EventKind.CONNECTED, "first"))
        self.assertEqual((event.flags, event.status), (EventFlag(0), Status.OK))
        server.close()

        def until(kind: EventKind) -> fastmq.Event:
            while (event := events.get(timeout=SECONDS)).kind is not kind:
                pass
            return event

        self.assertTrue(until(EventKind.DISCONNECTED).detail)
        with self.client.listen(url, name="second"):
            event = until(EventKind.CONNECTED)
            self.assertEqual(event.server, "second")
            self.assertIn(EventFlag.AGAIN, event.flags)
            self.assertRegex(repr(event), "Event CONNECTED: .*second")
            client.close()
        last = events.get(timeout=SECONDS)
        while not events.empty():
            last = events.get()
        self.assertEqual((last.kind, last.status), (EventKind.DISCONNECTED, Status.CLOSED))

    def test_clients_are_told_to_whoever_listens(self) -> None:
        came = self.client.subscribe(f"{fastmq.SUBJECT_CONNECTED}.>")
        left = self.client.subscribe(f"{fastmq.SUBJECT_DISCONNECTED}.>")
        with self.client.listen(f"unix:{self.directory}/s") as server:
            with fastmq.connect(server.urls[0], name="visitor"):
                (told,) = came.receive(timeout=SECONDS)
                self.assertEqual(told.payload, b"visitor")
                number = told.header(fastmq.HEADER_CLIENT)
            (told,) = left.receive(timeout=SECONDS)
            self.assertEqual(told.header(fastmq.HEADER_CLIENT), number)

    def test_what_a_client_of_a_server_cannot_do_is_unsupported(self) -> None:
        with self.client.listen(f"unix:{self.directory}/s") as server:
            with fastmq.connect(server.urls[0]) as client:
                with self.assertRaises(fastmq.Unsupported):
                    client.publish("a", b"", keep_last=True)
                with self.assertRaises(NotImplementedError):
                    client.listen(f"unix:{self.directory}/t")

    def test_a_client_may_be_there_before_its_server(self) -> None:
        url = f"unix:{self.directory}/later"
        subscription = self.client.subscribe("a")
        with fastmq.connect(url, later=True, unconfirmed=True, backoff_min=0.01) as client:
            client.publish("a", b"stored")
            there = client.subscribe("b")
            with self.client.listen(url):
                self.assertEqual(subscription.receive(timeout=SECONDS).payloads(), [b"stored"])
                while self.client.statistics()["subscriptions"] < 2:
                    threading.Event().wait(0.001)
                self.client.publish("b", b"x")
                self.assertEqual(there.receive(timeout=SECONDS).payloads(), [b"x"])

    def test_a_polled_client_needs_no_thread(self) -> None:
        with self.client.listen(f"unix:{self.directory}/s") as server, self.doubler():
            with fastmq.connect(server.urls[0], polled=True) as client:
                self.assertEqual(client.request("double", b"x", SECONDS).payload, b"xx")
                subscription = client.subscribe("a")
                self.client.publish("a", b"y")
                self.assertEqual(subscription.receive(timeout=SECONDS).payloads(), [b"y"])

    def test_a_broker_of_another_process_serves_this_one(self) -> None:
        program = """
            import sys, fastmq
            with fastmq.open() as client, client.listen(sys.argv[1]) as server:
                print(server.urls[0], flush=True)
                for request in client.subscribe("double"):
                    client.reply(request, request.payload * 2)
                    break
                client.drain(10)
        """
        with python(program, "tcp://127.0.0.1:0") as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            with fastmq.connect(url) as client:
                while True:
                    try:
                        answer = client.request("double", b"x", SECONDS)
                        break
                    except fastmq.NoResponder:
                        pass
                self.assertEqual(answer.payload, b"xx")
            _, complaint = process.communicate(timeout=SECONDS)
        self.assertEqual((process.returncode, complaint), (0, ""))
