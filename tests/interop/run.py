"""Every language with every other: README.md says what is tried.

run.py SERVER LANGUAGE=COMMAND...   COMMAND is a runner of tests/scenarios that takes steps from its
                                    standard input; SERVER is the command fastmq
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator

TRANSPORTS = ("unix", "shm", "tcp")
PATIENCE = "timeout=15000"

Line = tuple[str, str]
"""What a step is about, and the step."""


class Peer:
    """A process of one language that does steps."""

    def __init__(self, language: str, command: str) -> None:
        self.language = language
        self.process = subprocess.Popen(
            shlex.split(command) + ["-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def write(self, lines: Iterable[Line]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write("".join(f"{step}\n" for _, step in lines))
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # It has ended, as `read` will say.

    def read(self) -> str:
        """What it says of its next step."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return line.strip() if line else f"not ok {self.language} has ended"

    def end(self) -> int:
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # It has ended already.
        return self.process.wait(20)


class Matrix:
    """All peers at one broker. An endpoint is a client, `LANGUAGE_TRANSPORT`; the language that has
    the broker has `LANGUAGE_own`, too."""

    def __init__(self, name: str, peers: list[Peer], urls: list[str], owner: str) -> None:
        self.name = name
        self.peers = peers
        self.urls = dict(zip(TRANSPORTS, urls, strict=True))
        self.owner = owner
        self.failures: dict[str, str] = {}
        self.steps = 0

    def endpoints(self, peer: Peer) -> list[str]:
        own = [f"{peer.language}_own"] if peer.language == self.owner else []
        return [f"{peer.language}_{transport}" for transport in TRANSPORTS] + own

    def all(self) -> list[str]:
        return [endpoint for peer in self.peers for endpoint in self.endpoints(peer)]

    def phase(self, *lines_of: list[list[Line]]) -> None:
        """Has all peers do their steps at the same time, those of each list after the others."""
        for lines in lines_of:
            for peer, steps in zip(self.peers, lines, strict=True):
                peer.write(steps)
            for peer, steps in zip(self.peers, lines, strict=True):
                for about, step in steps:
                    self.steps += 1
                    said = peer.read()
                    if said != "ok":
                        # The first is what has happened, the others follow from it.
                        self.failures.setdefault(about, f"{peer.language}: {said}")

    def each(self, make: object) -> list[list[Line]]:
        """The steps that `make` gives for each pair of an endpoint of a peer and one of all."""
        assert callable(make)
        return [
            [
                (f"{mine.split('_')[0]} to {theirs.split('_')[0]}", step)
                for mine in self.endpoints(peer)
                for theirs in self.all()
                for step in make(mine, theirs)
            ]
            for peer in self.peers
        ]

    def prepare(self) -> None:
        """Clients, subscriptions, responders: one inbox for each pair, so that order is known."""
        self.phase(
            [
                [
                    (f"{peer.language} is there", step)
                    for endpoint in self.endpoints(peer)
                    for step in self.endpoint(endpoint)
                ]
                for peer in self.peers
            ]
        )

    def endpoint(self, endpoint: str) -> Iterator[str]:
        language, transport = endpoint.split("_")
        if transport != "own":
            yield f"connect {endpoint} {self.urls[transport]} name={endpoint}"
        for other in self.all():
            yield f"subscribe {endpoint}.{other} {endpoint} in.{endpoint}.{other}"
        yield f"respond {endpoint}.ask {endpoint} ask.{endpoint} {endpoint}%00 header.By={endpoint}"
        yield f"respond {endpoint}.no {endpoint} no.{endpoint} no: status=CONFLICT"
        yield f"respond {endpoint}.who {endpoint} who {endpoint}:"
        yield f"subscribe {endpoint}.many {endpoint} many.{endpoint}"

    def publish(self) -> None:
        """Each endpoint publishes to each, and each receives what was sent, as it was sent."""

        def sent(mine: str, theirs: str) -> str:
            payload = f"%00%FF{mine}%20to%20{theirs}%0A"
            return f"in.{theirs}.{mine} {payload} key={mine}%00 header.From={mine} header.N=%01"

        def publish(mine: str, theirs: str) -> Iterator[str]:
            yield f"publish {mine} {sent(mine, theirs)} reply_to=back.{mine}"
            if mine.split("_")[1] == theirs.split("_")[1]:
                yield f"publish {mine} in.{theirs}.{mine} *100000"
                yield f"publish {mine} in.{theirs}.{mine} -"

        def receive(mine: str, theirs: str) -> Iterator[str]:
            inbox = f"{mine}.{theirs}"
            yield f"receive {inbox} {sent(theirs, mine)} reply_to=back.{theirs} {PATIENCE}"
            if mine.split("_")[1] == theirs.split("_")[1]:
                yield f"receive {inbox} in.{mine}.{theirs} *100000 {PATIENCE}"
                yield f"receive {inbox} in.{mine}.{theirs} - {PATIENCE}"

        received = [
            [(" to ".join(reversed(about.split(" to "))), step) for about, step in lines]
            for lines in self.each(receive)
        ]
        self.phase(self.each(publish), received)

    def ask(self) -> None:
        """Each endpoint asks each, one alone and all at once."""

        def ask(mine: str, theirs: str) -> Iterator[str]:
            words = f"ask.{theirs} {mine}%FF {theirs}%00{mine}%FF"
            yield f"request {mine} {words} answer.By={theirs} header.From={mine} {PATIENCE}"
            if mine.split("_")[1] == theirs.split("_")[1]:
                yield f"request {mine} no.{theirs} {mine} no:{mine} {PATIENCE} -> CONFLICT"

        answers = " ".join(f"{endpoint}:x" for endpoint in self.all())
        self.phase(
            self.each(ask),
            [
                [
                    (f"{peer.language} asks all", f"request_many {endpoint} who x {answers}")
                    for endpoint in self.endpoints(peer)
                ]
                for peer in self.peers
            ],
        )

    def stream(self) -> None:
        """Each language streams replies to each, over all transports in turn."""

        def asker(mine: str, theirs: str) -> bool:
            at = [peer.language for peer in self.peers].index(theirs.split("_")[0])
            return theirs.endswith("_tcp") and mine.endswith("_" + TRANSPORTS[at % 3])

        def submit(mine: str, theirs: str) -> Iterator[str]:
            if asker(mine, theirs):
                yield f"requester_open {mine}.r.{theirs} {mine} subject=many.{theirs}"
                yield f"requester_submit_many {mine}.r.{theirs} 7 {mine} credit=4 {PATIENCE}"

        def reply(mine: str, theirs: str) -> Iterator[str]:
            if asker(theirs, mine):
                stream = f"{mine}.s.{theirs}"
                yield f"receive {mine}.many many.{mine} {theirs} is_request=1 {PATIENCE}"
                yield f"reply_stream_open {stream} {mine} {mine}.many"
                yield f"reply_stream_send {stream} 1:{theirs} header.By={mine}"
                yield f"reply_stream_send {stream} 2:{theirs}"
                yield f"reply_stream_end {stream}"

        def receive(mine: str, theirs: str) -> Iterator[str]:
            if asker(mine, theirs):
                answers = f"requester_receive {mine}.r.{theirs} 7"
                yield f"{answers} 1:{mine} header.By={theirs}"
                yield f"{answers} 2:{mine}"
                yield f"{answers} -> END"

        # One language asks at a time: a responder takes its requests in the order of their askers.
        for peer in self.peers:
            mine = [
                lines if it is peer else [] for it, lines in zip(self.peers, self.each(submit))
            ]
            replies = [
                [line for line in lines if line[0].endswith(f" to {peer.language}")]
                for lines in self.each(reply)
            ]
            ends = [
                lines if it is peer else [] for it, lines in zip(self.peers, self.each(receive))
            ]
            self.phase(mine, replies, ends)

    def close(self) -> None:
        self.phase(
            [
                [(f"{peer.language} is there", f"close {it}") for it in self.endpoints(peer)]
                for peer in self.peers
            ]
        )

    def report(self) -> None:
        languages = [peer.language for peer in self.peers]
        names = [f"{one} to {other}" for one in languages for other in languages]
        names += [f"{one} asks all" for one in languages]
        for name in sorted(set(names) | set(self.failures)):
            failure = self.failures.get(name)
            if failure is None:
                print(f"ok - {self.name}: {name}", flush=True)
            else:
                print(f"not ok - {self.name}: {name}\n# {failure}", flush=True)

    def run(self) -> None:
        self.prepare()
        if not self.failures:
            self.publish()
            self.ask()
            self.stream()
        self.close()
        self.report()


def served(command: str, peers: list[Peer]) -> None:
    """All peers at `fastmq serve`."""
    with tempfile.TemporaryDirectory(prefix="fastmq-interop-") as directory:
        listens = (f"unix:{directory}/mq.sock", f"shm:{directory}/mq.shm", "tcp://127.0.0.1:0")
        arguments = [word for url in listens for word in ("--listen", url)]
        with subprocess.Popen(
            [command, "serve", *arguments], stdout=subprocess.PIPE, text=True
        ) as server:
            assert server.stdout is not None
            said = [server.stdout.readline().split() for _ in listens]
            Matrix("fastmq serve", peers, [words[-1] for words in said], "").run()
            server.terminate()
    code = server.returncode
    print(f"{'ok' if code == 0 else 'not ok'} - fastmq serve ends with 0", flush=True)


def embedded(owner: Peer, peers: list[Peer]) -> None:
    """All peers at a broker in the process of one."""
    own = f"{owner.language}_own"
    owner.write([("", f"open {own}"), ("", f"listen server {own}")])
    opened, listening = owner.read(), owner.read()
    if opened != "ok" or not listening.startswith("ok "):
        print(f"not ok - a broker in {owner.language}\n# {opened}, {listening}", flush=True)
        return
    urls = listening.split()[1:]
    Matrix(f"a broker in {owner.language}", peers, urls, owner.language).run()


def can_fail(peer: Peer) -> None:
    """What a peer says of steps that are wrong, without which its ok says nothing."""
    wrong = ["publish w a..b x", "receive w.a a wrong", "request w ask x right:x -> BUSY"]
    right = ["open w", "subscribe w.a w a", "respond w.r w ask right:", "publish w a right"]
    peer.write(("", step) for step in right + wrong + ["close w"])
    said = [peer.read().startswith("ok") for _ in range(len(right) + len(wrong) + 1)]
    expected = [True] * len(right) + [False] * len(wrong) + [True]
    verdict = "ok" if said == expected else "not ok"
    print(f"{verdict} - {peer.language} says which steps are wrong", flush=True)


def main(server: str, commands: list[str]) -> None:
    peers = [Peer(*command.split("=", 1)) for command in commands]
    for peer in peers:
        can_fail(peer)
    served(server, peers)
    for owner in peers:
        embedded(owner, peers)
    for peer in peers:
        code = peer.end()
        print(f"{'ok' if code == 0 else 'not ok'} - {peer.language} ends with 0", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
