"""Runs scenarios in Python: README.md says what they are.

runner.py FILE...          each file is a scenario
runner.py --aio FILE...    the same by fastmq.aio, whose calls are awaited
runner.py -                steps from the standard input, each answered by a line
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import sys
import tempfile
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastmq
from fastmq import aio

PATIENCE = 20.0
SCHEMES = ("unix", "shm", "tcp")
places = itertools.count()
loop = asyncio.new_event_loop()
face: Any = fastmq
"""The module that clients are of."""


def wait(value: Any) -> Any:
    """What a call gives, awaited if it is to be."""

    async def awaited() -> Any:
        return await value

    return loop.run_until_complete(awaited()) if inspect.isawaitable(value) else value


class Failed(Exception):
    """A step did not do what its line says."""


def decode(word: str) -> bytes:
    if word == "-":
        return b""
    if word.startswith("*"):
        return b"x" * int(word[1:])
    return urllib.parse.unquote_to_bytes(word)


class Step:
    """One line: words, fields and what is expected. A field that nobody asks for is a fault."""

    def __init__(self, line: str) -> None:
        does, _, expected = line.partition("->")
        all_words = does.split()
        self.verb = all_words[0]
        self.words = [word for word in all_words[1:] if "=" not in word]
        pairs = [word.split("=", 1) for word in all_words[1:] if "=" in word]
        self.fields = [(name, value) for name, value in pairs]
        wanted = expected.split() or ["OK"]
        self.status = wanted[0]
        self.part = decode(wanted[1]).decode() if len(wanted) > 1 else ""

    def name(self, index: int) -> str:
        if index >= len(self.words):
            raise Failed(f"{self.verb} has too few words")
        return self.words[index]

    def data(self, index: int) -> bytes:
        return decode(self.name(index))

    def text(self, index: int) -> str:
        return self.data(index).decode()

    def take(self, name: str) -> bytes | None:
        for at, (key, value) in enumerate(self.fields):
            if key == name:
                del self.fields[at]
                return decode(value)
        return None

    def number(self, name: str, default: int = 0) -> int:
        value = self.take(name)
        return default if value is None else int(value)

    def seconds(self, name: str, default: float | None = None) -> float | None:
        value = self.take(name)
        return default if value is None else int(value) / 1000

    def prefixed(self, prefix: str) -> list[tuple[str, bytes]]:
        found = [
            (decode(name.removeprefix(prefix)).decode(), decode(value))
            for name, value in self.fields
            if name.startswith(prefix)
        ]
        self.fields = [(n, v) for n, v in self.fields if not n.startswith(prefix)]
        return found

    def options(self, *names: str) -> dict[str, Any]:
        """Those of `names` that are given: numbers as such, the rest as texts."""
        taken = {name: self.take(name) for name in names}
        given = {name: value.decode() for name, value in taken.items() if value is not None}
        return {name: int(v) if v.isdigit() else v for name, v in given.items()}

    def outgoing(self) -> dict[str, Any]:
        return {
            "headers": self.prefixed("header.") or None,
            "key": self.take("key"),
            "reply_to": self.take("reply_to"),
            "ttl": self.seconds("ttl"),
            "keep_last": bool(self.number("keep_last")),
        }

    def request(self) -> dict[str, Any]:
        fields = self.outgoing()
        del fields["reply_to"], fields["keep_last"]
        return {**fields, "timeout": self.seconds("timeout", PATIENCE)}


def same(what: str, got: object, expected: object) -> None:
    if got != expected:
        raise Failed(f"{what}: got {str(got)[:80]}, expected {str(expected)[:80]}")


class Scenario:
    """Handles by name, and the last message that each queue has given."""

    def __init__(self) -> None:
        self.things: dict[str, Any] = {}
        self.messages: dict[str, fastmq.Message] = {}

    def run(self, line: str) -> str:
        """Does what a line says; gives what it has to tell."""
        step = Step(line)
        verb: Callable[[Step], str | None] | None = getattr(self, "do_" + step.verb, None)
        if verb is None:
            raise Failed(f"unknown step {step.verb}")
        told, status, text = "", "OK", ""
        repeat = step.number("repeat", 1)
        if step.take("not") == b"python" or step.take("in") not in (None, b"python"):
            return ""
        fields = list(step.fields)
        try:
            for index in range(repeat):
                step.fields, self.index = list(fields), index
                said = verb(step) or "OK"
                status, _, told = said.partition(" ")
        except fastmq.Error as error:
            status, text = str(error.code).removeprefix("FASTMQ_"), str(error)
            # What a refusal leaves unread is no fault.
            step.fields = []
        if status != step.status or step.part not in text:
            raise Failed(f"got {status} ({text}), expected {step.status} {step.part}")
        if step.fields:
            raise Failed(f"unknown field {step.fields[0][0]}")
        return told

    def thing(self, step: Step, index: int = 0) -> Any:
        name = step.name(index)
        if name not in self.things:
            raise Failed(f"nothing is called {name}")
        return self.things[name]

    def close(self) -> None:
        for thing in reversed(self.things.values()):
            wait(thing.close())

    # Clients and servers.

    def do_open(self, step: Step) -> None:
        options = step.options("memory_max", "queue_capacity", "payload_max")
        self.things[step.name(0)] = wait(face.open(**options))

    def do_connect(self, step: Step) -> None:
        url = step.name(1)
        if ":" not in url:
            server, _, scheme = url.partition(".")
            url = self.things[server].urls[SCHEMES.index(scheme)]
        options = step.options("name", "token")
        self.things[step.name(0)] = wait(face.connect(url, **options))

    def do_listen(self, step: Step) -> str:
        at = f"{tempfile.gettempdir()}/fastmq-scenario-{os.getpid()}-{next(places)}"
        urls = f"unix:{at}.sock,shm:{at}.shm,tcp://127.0.0.1:0"
        server = wait(self.thing(step, 1).listen(urls, **step.options("name", "token")))
        self.things[step.name(0)] = server
        return "OK " + " ".join(server.urls)

    def do_drain(self, step: Step) -> None:
        wait(self.thing(step).drain(timeout=step.seconds("timeout", PATIENCE)))

    def do_close(self, step: Step) -> None:
        wait(self.thing(step).close())

    def do_client_statistics(self, step: Step) -> None:
        self.figures(step, self.thing(step).statistics())

    # Publishing.

    def do_publish(self, step: Step) -> None:
        self.thing(step).publish(step.text(1), step.data(2), **step.outgoing())

    def do_publish_wait(self, step: Step) -> None:
        timeout = step.seconds("timeout", PATIENCE)
        fields = step.outgoing()
        wait(self.thing(step).publish_wait(step.text(1), step.data(2), timeout, **fields))

    def do_forget_last(self, step: Step) -> None:
        self.thing(step).forget_last(step.text(1))

    def do_publisher_open(self, step: Step) -> None:
        self.things[step.name(0)] = self.thing(step, 1).publisher(step.text(2))

    def do_publisher_publish(self, step: Step) -> None:
        self.thing(step).publish(step.data(1), **step.outgoing())

    def do_publisher_claim(self, step: Step) -> None:
        with self.thing(step).claim(int(step.text(1))) as claim:
            if len(step.words) > 2:
                payload = step.data(2)
                claim.view[: len(payload)] = payload
                claim.commit(len(payload))

    # Receiving.

    def do_queue_open(self, step: Step) -> None:
        options = step.options("capacity")
        if policy := step.take("policy"):
            options["policy"] = fastmq.Policy[policy.decode().upper()]
        self.things[step.name(0)] = self.thing(step, 1).queue(**options)

    def subscribe(self, step: Step, **options: Any) -> None:
        options.update(step.options("group", "weight", "tag"))
        if policy := step.take("policy"):
            options["policy"] = fastmq.Policy[policy.decode().upper()]
        if mode := step.take("group_mode"):
            options["group_mode"] = fastmq.GroupMode[mode.decode().upper()]
        if queue := step.take("queue"):
            options["queue"] = self.things[queue.decode()]
        options["replay_last"] = bool(step.number("replay_last"))
        subscription = wait(self.thing(step, 1).subscribe(step.text(2), **options))
        self.things[step.name(0)] = subscription

    def do_subscribe(self, step: Step) -> None:
        self.subscribe(step)

    def do_unsubscribe(self, step: Step) -> None:
        self.thing(step).unsubscribe()

    def do_receive(self, step: Step) -> None:
        queue = self.thing(step)
        timeout = step.seconds("timeout", PATIENCE)
        batch = wait(queue.receive(message_max=1, timeout=timeout))
        message = batch[0]
        batch.close()
        self.messages[step.name(0)] = message
        self.check(step, message, 1)

    def check(self, step: Step, message: fastmq.Message, at: int) -> None:
        """The message has what the words from `at` on and the fields say."""
        same("subject", message.subject, step.text(at))
        same("payload", message.payload, step.data(at + 1))
        if headers := step.prefixed("header."):
            # An id is known by the name of its subscription.
            shown = [(n, self.id(v)) if v.startswith(b"@") else (n, v) for n, v in headers]
            same("headers", message.headers, shown)
        for name, value in list(step.fields):
            step.take(name)
            wanted: object = decode(value)
            got: object = getattr(message, name, None)
            if isinstance(got, str):
                got = got.encode()
            elif name == "subscription_id":
                got, wanted = str(got).encode(), self.id(decode(value))
            elif not isinstance(got, bytes) and got is not None:
                got, wanted = int(got), int(value)  # type: ignore[call-overload]
            same(name, got, wanted)

    def id(self, value: bytes) -> bytes:
        return str(self.things[value[1:].decode()].id).encode()

    def do_queue_statistics(self, step: Step) -> None:
        thing = self.thing(step)
        self.figures(step, getattr(thing, "queue", thing).statistics())

    def do_subscription_statistics(self, step: Step) -> None:
        self.figures(step, self.thing(step).statistics())

    def figures(self, step: Step, figures: Any) -> None:
        for name, value in list(step.fields):
            step.take(name)
            same(name, figures.get(name), int(value))

    # Asking and answering.

    def do_respond(self, step: Step) -> None:
        client, prefix = self.thing(step, 1), step.data(3)
        status = fastmq.Status[(step.take("status") or b"OK").decode()]
        headers = step.prefixed("header.") or None

        def answer(request: fastmq.Message) -> None:
            client.reply(request, prefix + request.payload, status=status, headers=headers)

        self.subscribe(step, delivery=fastmq.Delivery.THREAD, on_message=answer)

    def do_reply(self, step: Step) -> None:
        status = fastmq.Status[(step.take("status") or b"OK").decode()]
        headers = step.prefixed("header.") or None
        request = self.messages[step.name(1)]
        self.thing(step).reply(request, step.data(2), status=status, headers=headers)

    def do_request(self, step: Step) -> str:
        headers = step.prefixed("answer.")
        answer = wait(self.thing(step).request(step.text(1), step.data(2), **step.request()))
        if len(step.words) > 3:
            same("answer", answer.payload, step.data(3))
        if headers:
            same("headers", answer.headers, headers)
        return str(answer.status.name)

    def do_request_many(self, step: Step) -> str:
        options = step.request()
        options["answers_max"] = step.number("answers_max", fastmq.ANSWERS_ALL)
        got = wait(self.thing(step).request_many(step.text(1), step.data(2), **options))
        answers = sorted(answer.payload for answer in got if answer.subscription_id)
        same("answers", answers, sorted(decode(word) for word in step.words[3:]))
        return "OK" if got[-1].subscription_id else str(got[-1].status.name)

    def do_requester_open(self, step: Step) -> None:
        options = step.options("subject", "in_flight_max")
        self.things[step.name(0)] = self.thing(step, 1).requester(**options)

    def do_requester_submit(self, step: Step) -> None:
        token = int(step.text(1)) + self.index
        self.thing(step).submit(step.data(2), token, **step.options("subject"), **step.request())

    def do_requester_submit_many(self, step: Step) -> None:
        options = {**step.request(), **step.options("subject", "credit", "answers_max")}
        self.thing(step).submit_many(step.data(2), int(step.text(1)), **options)

    def do_requester_receive(self, step: Step) -> str:
        answer = wait(self.thing(step).receive(message_max=1, timeout=PATIENCE))[0]
        same("token", answer.token, int(step.text(1)))
        same("payload", answer.payload, step.data(2) if len(step.words) > 2 else b"")
        if headers := step.prefixed("header."):
            same("headers", answer.headers, headers)
        return str(answer.status.name)

    def do_requester_cancel(self, step: Step) -> None:
        self.thing(step).cancel(int(step.text(1)))

    def do_reply_stream_open(self, step: Step) -> None:
        request = self.messages[step.name(2)]
        self.things[step.name(0)] = self.thing(step, 1).reply_stream(request)

    def do_reply_stream_send(self, step: Step) -> None:
        self.thing(step).send(step.data(1), headers=step.prefixed("header.") or None)

    def do_reply_stream_end(self, step: Step) -> None:
        self.thing(step).end(fastmq.Status[(step.take("status") or b"OK").decode()])


def of_file(path: Path) -> bool:
    scenario, number = Scenario(), 0
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line and not line.startswith("#"):
                scenario.run(line)
    except Failed as failure:
        print(f"not ok - {path.stem}: line {number}: {failure}", flush=True)
        return False
    finally:
        scenario.close()
    print(f"ok - {path.stem}", flush=True)
    return True


def of_input() -> None:
    scenario = Scenario()
    for line in sys.stdin:
        try:
            print(f"ok {scenario.run(line)}".rstrip(), flush=True)
        except Exception as failure:
            print(f"not ok {line.strip()}: {failure!r}", flush=True)
    scenario.close()


if __name__ == "__main__":
    if sys.argv[1:] == ["-"]:
        of_input()
    else:
        names = sys.argv[1:]
        if names[:1] == ["--aio"]:
            face = aio
            del names[0]
        is_good = all([of_file(Path(name)) for name in names])
        loop.close()
        sys.exit(0 if is_good else 1)
