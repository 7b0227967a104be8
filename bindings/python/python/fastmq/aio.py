"""FAST MQ for asyncio: the names of ``fastmq``, awaited where they would wait.

>>> import asyncio
>>> from fastmq import aio
>>> async def main():
...     async with aio.open() as client, await client.subscribe("price.*") as prices:
...         client.publish("price.ACME", b"12.5")
...         async for price in prices:
...             print(price.subject, price.payload)
...             break
>>> asyncio.run(main())
price.ACME b'12.5'

A client belongs to the event loop that it was opened in, and is used in its thread. The loop
watches one descriptor for all that the client waits for, and there is no thread per subscription.
What never waits is called and not awaited: ``publish``, ``reply``, statistics.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Final, Generic, Self, TypeVar, Unpack

import fastmq
from fastmq import _fastmq
from fastmq._constants import Credit, Delivery, GroupMode, Policy, Status, Wait

# Not of `typing`, which would be imported for this alone.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from fastmq._fastmq import (
        Batch,
        Buffer,
        ClientStatistics,
        ConnectOptions,
        HeadersLike,
        ListenOptions,
        Message,
        OpenOptions,
        Payload,
        QueueStatistics,
        Server,
        SubscriptionStatistics,
        Text,
    )

__all__ = [
    "Client",
    "Publisher",
    "Queue",
    "ReplyStream",
    "Requester",
    "Subscription",
    "connect",
    "open",
]

_R = TypeVar("_R")
_Source = TypeVar("_Source", _fastmq.Queue, _fastmq.Subscription)

_NUMBERS = count(1)
"""Numbers of what an alarm can ring for; none is used twice, as queues keep theirs."""

_ROOM_SECONDS: Final = 0.001
"""How often whoever waits for room looks again."""


_LOOK_SECONDS: Final = 0.000_2
"""How long who waits for a single answer waits for it in place before the loop sleeps."""

_TURN_SECONDS: Final = 0.000_03
"""A turn of the loop that takes longer has served others, who are not to wait."""

_MISSED_MAX: Final = 6
"""After so many looks in vain it looks for one request of 64."""


class _Loop:
    """The descriptor of a client in its event loop, and whom it wakes."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._process = os.getpid()
        self.alarm = _fastmq.Alarm()
        self.waiting: dict[int, Callable[[], None]] = {}
        self.is_closed = False
        self.loop.add_reader(self.alarm.fileno(), self._ring)

    def _ring(self) -> None:
        for number in self.alarm.take():
            if wake := self.waiting.get(number):
                wake()

    def check(self) -> None:
        """Fails elsewhere than in the loop of the client."""
        try:
            is_here = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            is_here = False
        if not is_here:
            if self.is_forked_child():
                raise fastmq.Misuse(
                    "this is a forked child; its parent's handles can only be closed here"
                )
            raise fastmq.Misuse("the client belongs to another event loop; open one in this loop")

    def is_forked_child(self) -> bool:
        """True where the loop watches the descriptors of the parent, which are left alone."""
        return os.getpid() != self._process

    async def elsewhere(self, call: Callable[[], _R]) -> _R:
        """Runs what blocks on a thread of the loop's own."""
        self.check()
        return await self.loop.run_in_executor(None, call)

    def close(self) -> None:
        """Wakes whoever waits; those find the client closed."""
        if self.is_closed:
            return
        self.is_closed = True
        # A loop that was closed before has forgotten the descriptor and its tasks.
        if not self.loop.is_closed():
            self.loop.remove_reader(self.alarm.fileno())
            for wake in list(self.waiting.values()):
                wake()


class _Waiters:
    """Tasks that wait for one queue, in the order in which they came."""

    def __init__(
        self, loop: _Loop, source: _fastmq.Queue | _fastmq.Subscription | _fastmq.Requester
    ) -> None:
        self._loop = loop
        self._source = source
        self._number = next(_NUMBERS)
        self._futures: deque[asyncio.Future[None]] = deque()

    async def receive(self, message_max: int, timeout: float | None) -> Batch:
        """As ``Queue.receive``."""
        batch = self._source._receive_now(message_max)
        if batch is not None:
            return batch
        if timeout is not None and not timeout > 0:
            if timeout == 0:
                raise fastmq.Again("no message is waiting")
            raise fastmq.Invalid(f"timeout is {timeout}; it is a number of seconds, 0 or more")
        self._loop.check()
        try:
            async with asyncio.timeout(timeout):
                while batch is None:
                    await self._ready()
                    batch = self._source._receive_now(message_max)
                return batch
        except TimeoutError as error:
            if isinstance(error, fastmq.Error):
                raise
            raise fastmq.Timeout("no message came within the timeout") from None

    async def _ready(self) -> None:
        """Returns when a receive may find something, or when the client was closed."""
        if self._source._poll_ready(self._loop.alarm, self._number):
            return
        future = self._loop.loop.create_future()
        self._futures.append(future)
        self._loop.waiting[self._number] = self._wake
        # Only a requester has deadlines, of which nobody rings.
        timer = None
        if isinstance(self._source, _fastmq.Requester):
            deadline = self._source._next_deadline()
            if deadline is not None:
                timer = self._loop.loop.call_later(deadline, self._wake)
        try:
            await future
        finally:
            if timer is not None:
                timer.cancel()
            if future in self._futures:
                self._futures.remove(future)
            if not self._futures:
                self._loop.waiting.pop(self._number, None)

    def _wake(self) -> None:
        # All of them look; one that finds nothing waits again.
        while self._futures:
            future = self._futures.popleft()
            if not future.done():
                future.set_result(None)


class _Receiver(Generic[_Source]):
    """What queues and subscriptions have in common."""

    def __init__(self, loop: _Loop, source: _Source, waiters: _Waiters | None = None) -> None:
        self._loop = loop
        self._source: _Source = source
        # A queue rings for one number, so all that receive from it wait together.
        self._waiters = _Waiters(loop, source) if waiters is None else waiters

    async def receive(self, message_max: int = 0, timeout: float | None = None) -> Batch:
        """Receives up to ``message_max`` messages (0: as many as a batch holds), waiting for the
        first for at most ``timeout`` seconds; None: for ever.

        Cancelling it loses nothing. Raises as ``fastmq.Queue.receive``.
        """
        return await self._waiters.receive(message_max, timeout)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        try:
            # One at a time, so that an iteration that is left has taken nothing.
            return (await self._waiters.receive(1, None))[0]
        except (fastmq.End, fastmq.Closed):
            raise StopAsyncIteration from None


class Queue(_Receiver[_fastmq.Queue]):
    """A place where messages wait: ``fastmq.Queue``, awaited.

    ``async for`` gives one message after another until the queue is closed or drained, and an
    iteration that is left takes nothing that was not given.
    """

    def statistics(self) -> QueueStatistics:
        """Figures since the queue was opened."""
        return self._source.statistics()

    def close(self) -> None:
        """Closes the queue and ends the subscriptions that feed it. Raises Misuse."""
        self._source.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_raised: object) -> None:
        self.close()


class Subscription(_Receiver[_fastmq.Subscription]):
    """A pattern and where its messages go: ``fastmq.Subscription``, awaited."""

    @property
    def id(self) -> int:
        """The number that its messages carry as ``subscription_id``."""
        return self._source.id

    @property
    def pattern(self) -> str:
        """The pattern."""
        return self._source.pattern

    @property
    def queue(self) -> Queue:
        """The queue that it feeds. Raises Misuse: a handler gets its messages."""
        return Queue(self._loop, self._source.queue, self._waiters)

    def statistics(self) -> SubscriptionStatistics:
        """Figures since it was made."""
        return self._source.statistics()

    def unsubscribe(self) -> None:
        """Ends it, and its queue if it owns that. Does nothing the second time."""
        self._source.unsubscribe()

    close = unsubscribe

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_raised: object) -> None:
        self.unsubscribe()


async def _wait_for_room(loop: _Loop, send: Callable[[], None], timeout: float | None) -> None:
    """Sends until it is not refused for want of room."""
    if timeout is not None and not timeout >= 0:
        raise fastmq.Invalid(f"timeout is {timeout}; it is a number of seconds, 0 or more")
    loop.check()
    end = None if timeout is None else loop.loop.time() + timeout
    while True:
        try:
            return send()
        except fastmq.Again as again:
            if end is not None and loop.loop.time() >= end:
                if timeout == 0:
                    raise
                raise fastmq.Timeout(str(again)) from None
        await asyncio.sleep(_ROOM_SECONDS)


class Publisher:
    """A subject to publish to: ``fastmq.Publisher``; only ``publish_wait`` is awaited."""

    def __init__(self, loop: _Loop, publisher: _fastmq.Publisher) -> None:
        self._loop = loop
        self._publisher = publisher
        self.publish = publisher.publish
        self.publish_batch = publisher.publish_batch
        self.publish_columns = publisher.publish_columns
        self.claim = publisher.claim
        self.close = publisher.close

    async def publish_wait(self, payload: Payload, timeout: float | None = None) -> None:
        """Publishes one payload, waiting for room for at most ``timeout`` seconds.

        Raises as ``fastmq.Publisher.publish_wait``.
        """
        await _wait_for_room(self._loop, partial(self._publisher.publish, payload), timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()


class ReplyStream:
    """A stream of replies: ``fastmq.ReplyStream``; only ``send_wait`` is awaited."""

    def __init__(self, loop: _Loop, stream: _fastmq.ReplyStream) -> None:
        self._loop = loop
        self._stream = stream
        self.send = stream.send
        self.credit = stream.credit
        self.end = stream.end
        self.close = stream.close

    async def send_wait(
        self,
        payload: Payload,
        timeout: float | None = None,
        *,
        headers: HeadersLike | None = None,
    ) -> None:
        """Sends one reply, waiting for credit and room for at most ``timeout`` seconds.

        Raises as ``fastmq.ReplyStream.send_wait``.
        """
        send = partial(self._stream.send, payload, headers=headers)
        await _wait_for_room(self._loop, send, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()


class Requester:
    """Many requests in flight: ``fastmq.Requester``; only ``receive`` is awaited."""

    def __init__(self, loop: _Loop, requester: _fastmq.Requester) -> None:
        self._waiters = _Waiters(loop, requester)
        self.submit = requester.submit
        self.submit_columns = requester.submit_columns
        self.submit_many = requester.submit_many
        self.grant = requester.grant
        self.cancel = requester.cancel
        self.in_flight = requester.in_flight
        self.close = requester.close

    async def receive(self, message_max: int = 0, timeout: float | None = None) -> Batch:
        """Receives up to ``message_max`` answers, waiting for the first for at most ``timeout``
        seconds. Raises as ``fastmq.Requester.receive``."""
        return await self._waiters.receive(message_max, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()


class _Asker:
    """The requester of a client, and the tasks that wait for its answers."""

    def __init__(self, loop: _Loop, requester: _fastmq.Requester) -> None:
        self._loop = loop
        self.requester = requester
        self._number = next(_NUMBERS)
        self._tokens = count(1)
        # What has come of each request, and who waits for the rest.
        self._open: dict[int, tuple[list[Message], asyncio.Future[None]]] = {}
        self._is_armed = False
        self._timer: asyncio.TimerHandle | None = None
        # Looks in vain, one after another, and how many requests do without one now.
        self._missed = self._unlooked = 0

    async def ask(self, submit: Callable[[int], None], limit: float | None) -> list[Message]:
        """Submits with a token and waits for all that comes of it, or for a fate by `limit`."""
        self._loop.check()
        token = next(self._tokens)
        submit(token)
        future = self._loop.loop.create_future()
        answers: list[Message] = []
        self._open[token] = (answers, future)
        try:
            self._collect()
            if len(self._open) == 1:
                await self._look(future)
            if not future.done():
                self._rings_in(limit)
                self._turn()
            await future
        except asyncio.CancelledError:
            # One whose answer waits to be received is over.
            with suppress(fastmq.NotFound, fastmq.Closed):
                self.requester.cancel(token)
            raise
        finally:
            self._open.pop(token, None)
        return answers

    async def _look(self, future: asyncio.Future[None]) -> None:
        """Waits for the answer in place for a moment, if the loop has nothing else to do and the
        last answers came so soon: to sleep and be woken takes longer than many an answer."""
        if self._unlooked > 0:
            self._unlooked -= 1
            return
        loop = self._loop.loop
        begin = loop.time()
        # The others first.
        await asyncio.sleep(0)
        self._collect()
        if future.done() or loop.time() - begin > _TURN_SECONDS:
            return
        self._collect(_LOOK_SECONDS)
        self._missed = 0 if future.done() else min(self._missed + 1, _MISSED_MAX)
        self._unlooked = (1 << self._missed) - 1

    def _turn(self) -> None:
        """Hands over what has come, and sees to it that the loop hears of the rest."""
        self._collect()
        if self._open:
            try:
                self._arm()
            except fastmq.Error as error:
                self._fail(error)

    def _collect(self, seconds: float = 0) -> None:
        """Hands over what has come, or comes within so many seconds."""
        requester = self.requester
        try:
            batch = requester._receive_soon(seconds) if seconds else requester._receive_now()
            while batch:
                for answer in batch.messages():
                    self._answered(answer)
                batch = requester._receive_now()
        except fastmq.Error as error:
            self._fail(error)

    def _fail(self, error: fastmq.Error) -> None:
        waiting = [future for _, future in self._open.values()]
        self._open.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(error)

    def _answered(self, answer: Message) -> None:
        asked = self._open.get(answer.token)
        if asked is None:
            return
        answers, future = asked
        answers.append(answer)
        if not answer.has_more:
            del self._open[answer.token]
            if not future.done():
                future.set_result(None)

    def _arm(self) -> None:
        loop = self._loop.loop
        if not self._is_armed:
            self._is_armed = True
            self._loop.waiting[self._number] = self._ring
            if self.requester._poll_ready(self._loop.alarm, self._number):
                loop.call_soon(self._ring)

    def _rings_in(self, seconds: float | None) -> None:
        """Has the loop look then: a request that times out rings nobody."""
        if seconds is None:
            return
        loop = self._loop.loop
        when = loop.time() + seconds
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = loop.call_at(when, self._late)

    def _late(self) -> None:
        """A deadline may have passed, and the next one is known to the requester alone."""
        self._timer = None
        self._ring()
        if self._open and not self._loop.is_closed:
            self._rings_in(self.requester._next_deadline())

    def _ring(self) -> None:
        # The waker may be armed still; that it is armed anew costs nothing.
        self._is_armed = False
        self._turn()


class Client:
    """A broker in this process (``open``), or one of a server in another (``connect``).

    ``async with`` or ``await close()`` closes it. Its methods are those of ``fastmq.Client``.
    """

    def __init__(self, client: _fastmq.Client, *, is_remote: bool) -> None:
        self._loop = _Loop()
        self._client = client
        self._is_remote = is_remote
        self._asker: _Asker | None = None
        self.publish = client.publish
        self.publish_batch = client.publish_batch
        self.publish_columns = client.publish_columns
        self.forget_last = client.forget_last
        self.reply = client.reply
        self.reply_columns = client.reply_columns
        self.dispatch = client.dispatch

    async def publish_wait(
        self,
        subject: Text,
        payload: Payload,
        timeout: float | None = None,
        *,
        headers: HeadersLike | None = None,
        key: Text | None = None,
        reply_to: Text | None = None,
        ttl: float | None = None,
        keep_last: bool = False,
    ) -> None:
        """Publishes one message, waiting for room for at most ``timeout`` seconds.

        Raises as ``fastmq.Client.publish_wait``.
        """
        send = partial(
            self._client.publish,
            subject,
            payload,
            headers=headers,
            key=key,
            reply_to=reply_to,
            ttl=ttl,
            keep_last=keep_last,
        )
        await _wait_for_room(self._loop, send, timeout)

    def publisher(self, subject: Text) -> Publisher:
        """Opens a publisher for one subject. Raises as ``fastmq.Client.publisher``."""
        return Publisher(self._loop, self._client.publisher(subject))

    def queue(
        self,
        *,
        policy: Policy = Policy.BACKPRESSURE,
        capacity: int = 0,
        wait: Wait = Wait.BALANCED,
    ) -> Queue:
        """Opens a queue that several subscriptions may feed. Raises as ``fastmq.Client.queue``."""
        return Queue(self._loop, self._client.queue(policy=policy, capacity=capacity, wait=wait))

    async def subscribe(
        self,
        pattern: Text,
        *,
        group: Text | None = None,
        group_mode: GroupMode = GroupMode.BALANCED,
        weight: int = 0,
        delivery: Delivery = Delivery.QUEUE,
        queue: Queue | None = None,
        policy: Policy = Policy.BACKPRESSURE,
        replay_last: bool = False,
        tag: int = 0,
        on_message: Callable[[Message], object] | None = None,
    ) -> Subscription:
        """Subscribes to every subject that matches ``pattern``.

        ``on_message`` runs on the thread that ``delivery`` says, not in the event loop.
        Raises as ``fastmq.Client.subscribe``.
        """
        subscribe = partial(
            self._client.subscribe,
            pattern,
            group=group,
            group_mode=group_mode,
            weight=weight,
            delivery=delivery,
            queue=None if queue is None else queue._source,
            policy=policy,
            replay_last=replay_last,
            tag=tag,
            on_message=on_message,
        )
        # Only a server's answer is waited for.
        subscribed = await self._loop.elsewhere(subscribe) if self._is_remote else subscribe()
        waiters = None if queue is None else queue._waiters
        return Subscription(self._loop, subscribed, waiters)

    def _ask(self) -> _Asker:
        if self._asker is None:
            self._asker = _Asker(self._loop, self._client.requester(in_flight_max=65_535))
        return self._asker

    async def request(
        self,
        subject: Text,
        payload: Payload,
        timeout: float | None = 5.0,
        *,
        headers: HeadersLike | None = None,
        key: Text | None = None,
        ttl: float | None = None,
    ) -> Message:
        """Asks and waits for the answer for at most ``timeout`` seconds. Cancelling it ends the
        request.

        Raises as ``fastmq.Client.request``, and Again: 65,535 are in flight.
        """
        asker = self._ask()

        def submit(token: int) -> None:
            asker.requester.submit(
                payload, token, timeout, subject=subject, headers=headers, key=key, ttl=ttl
            )

        (answer,) = await asker.ask(submit, timeout)
        if answer._is_bare_failure:
            raise _fate(answer.status, subject)
        return answer

    async def request_into(
        self,
        subject: Text,
        payload: Payload,
        into: Buffer,
        timeout: float | None = 5.0,
        *,
        headers: HeadersLike | None = None,
        key: Text | None = None,
        ttl: float | None = None,
    ) -> int:
        """Asks, and writes the answer's payload to ``into``; gives its size in bytes.

        Raises as ``fastmq.Client.request_into``.
        """
        room = memoryview(into).cast("B")  # type: ignore[arg-type]
        if room.readonly:
            raise TypeError(f"into is a buffer to write to, not {type(into).__name__}")
        answer = await self.request(
            subject, payload, timeout, headers=headers, key=key, ttl=ttl
        )
        if answer.status is not Status.OK:
            raise _fate(answer.status, subject)
        size = len(answer.payload)
        if size > len(room):
            raise fastmq.TooLarge(f"the answer has {size} bytes; there is room for {len(room)}")
        room[:size] = answer.payload
        return size

    async def request_many(
        self,
        subject: Text,
        payload: Payload,
        timeout: float | None = 5.0,
        *,
        answers_max: int = fastmq.ANSWERS_ALL,
        gap: float | None = None,
        headers: HeadersLike | None = None,
        key: Text | None = None,
        ttl: float | None = None,
    ) -> list[Message]:
        """Asks and waits for several answers for at most ``timeout`` seconds.

        Gives and raises as ``fastmq.Client.request_many``.
        """
        asker = self._ask()

        def submit(token: int) -> None:
            asker.requester.submit_many(
                payload,
                token,
                timeout,
                subject=subject,
                answers_max=answers_max,
                gap=gap,
                headers=headers,
                key=key,
                ttl=ttl,
            )

        limits = [limit for limit in (timeout, gap) if limit is not None]
        answers = await asker.ask(submit, min(limits, default=None))
        if len(answers) == 1 and answers[0].subscription_id == 0:
            raise _fate(answers[0].status, subject)
        return answers

    def reply_stream(self, request: Message | int) -> ReplyStream:
        """Opens the reply stream of a request. Raises as ``fastmq.Client.reply_stream``."""
        return ReplyStream(self._loop, self._client.reply_stream(request))

    def requester(
        self, subject: Text | None = None, *, in_flight_max: int = 0, wait: Wait = Wait.BALANCED
    ) -> Requester:
        """Opens a requester. Raises as ``fastmq.Client.requester``."""
        requester = self._client.requester(subject, in_flight_max=in_flight_max, wait=wait)
        return Requester(self._loop, requester)

    async def listen(self, urls: str | None = None, **options: Unpack[ListenOptions]) -> Server:
        """Serves other processes at ``urls`` and ``sockets``, on threads of the library.

        Gives a ``fastmq.Server``, and raises as ``fastmq.Client.listen``.
        """
        return await self._loop.elsewhere(partial(self._client.listen, urls, **options))

    def statistics(self) -> ClientStatistics:
        """Figures since the client was opened."""
        return self._client.statistics()

    async def drain(self, timeout: float | None = None) -> None:
        """Stops taking messages and waits until every queue is empty.

        Raises as ``fastmq.Client.drain``.
        """
        await self._loop.elsewhere(partial(self._client.drain, timeout))

    @property
    def closed(self) -> bool:
        """True after ``close``."""
        return self._client.closed

    async def close(self) -> None:
        """Closes the client; tasks that wait find it closed. Does nothing the second time.
        Cancelling it stops the waiting, not the closing."""
        if self._loop.is_forked_child():
            return
        if self._loop.loop.is_closed():
            # Closed under us: nobody is left who would be kept waiting.
            self._client.close()
        elif not self._client.closed:
            self._loop.check()
            closing = self._loop.loop.run_in_executor(None, self._client.close)
            closing.add_done_callback(lambda _: self._loop.close())
            await asyncio.shield(closing)
        self._loop.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_raised: object) -> None:
        await self.close()


def _fate(status: Status, subject: Text) -> fastmq.Error:
    subject = subject.encode() if isinstance(subject, str) else subject
    return _fastmq._fate(status, subject)


class _Opening:
    """What ``open`` and ``connect`` give: awaited, or entered by ``async with``."""

    def __init__(self, make: Callable[[], _fastmq.Client], *, is_remote: bool) -> None:
        self._make = make
        self._is_remote = is_remote
        self._client: Client | None = None

    async def _open(self) -> Client:
        client = await self._connect() if self._is_remote else self._make()
        return Client(client, is_remote=self._is_remote)

    async def _connect(self) -> _fastmq.Client:
        connected: list[_fastmq.Client] = []
        is_left = False

        def connect() -> _fastmq.Client:
            client = self._make()
            connected.append(client)
            if is_left:
                client.close()
            return client

        try:
            return await asyncio.get_running_loop().run_in_executor(None, connect)
        except asyncio.CancelledError:
            # Nobody gets what comes of it: whoever is later, that thread or we, closes it.
            is_left = True
            for client in connected:
                client.close()
            raise

    def __await__(self) -> Generator[object, None, Client]:
        return self._open().__await__()

    async def __aenter__(self) -> Client:
        self._client = await self._open()
        return self._client

    async def __aexit__(self, *_raised: object) -> None:
        if self._client is not None:
            await self._client.close()


def open(**options: Unpack[OpenOptions]) -> _Opening:
    """Opens a broker in this process: ``async with aio.open() as client``, or
    ``client = await aio.open()``. Options and errors are those of ``fastmq.open``."""
    return _Opening(partial(fastmq.open, **options), is_remote=False)


def connect(urls: str, **options: Unpack[ConnectOptions]) -> _Opening:
    """Connects to a server: ``async with aio.connect(url) as client``, or
    ``client = await aio.connect(url)``. Options and errors are those of ``fastmq.connect``, but
    for ``polled`` (Unsupported): an event loop does not drive the connection."""
    if options.get("polled"):
        raise fastmq.Unsupported("an event loop does not drive a connection; leave out polled")
    return _Opening(partial(fastmq.connect, urls, **options), is_remote=True)
