# The types and the documentation of the extension module; `fastmq` gives out what is public.

from collections.abc import Callable, Iterable, Iterator, Mapping

from collections.abc import Sequence
from typing import Any, Final, Protocol, Self, TypeAlias, TypedDict, Unpack, final

from ._constants import (
    Credit,
    Delivery,
    EventFlag,
    EventKind,
    GroupMode,
    Memory,
    Policy,
    Status,
    Timestamps,
    Wait,
)
from ._errors import Error
from ._options import ThreadOptions

class HasBuffer(Protocol):
    """Whatever has the buffer protocol."""

    def __buffer__(self, flags: int, /) -> memoryview: ...

class HasArray(Protocol):
    """Arrays of NumPy and of others that are like them, which need not say more before 3.12."""

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """What the array is."""

class HasFileno(Protocol):
    """Whatever has a descriptor, such as ``socket.socket``."""

    def fileno(self) -> int:
        """The descriptor."""

Buffer: TypeAlias = bytes | bytearray | memoryview | HasBuffer | HasArray
"""A contiguous buffer: bytearray, memoryview, array, NumPy arrays."""

Text: TypeAlias = str | bytes
"""A subject, a pattern, a name, a key: UTF-8."""

Payload: TypeAlias = str | Buffer
"""Bytes; a str is sent as UTF-8. What could change is copied when the call begins."""

HeadersLike: TypeAlias = Mapping[str, Text] | Iterable[tuple[Text, Text]]
"""Headers by name, or pairs, where a name may stand several times."""

VERSION: Final[str]

class OpenOptions(TypedDict, total=False):
    """Options of every client. What is None, 0 or left out takes the default."""

    memory_max: int | None
    """Cap on the bytes of lanes, blocks and latest values; 0: no cap."""
    queue_capacity: int | None
    """Default capacity of a lane in bytes: 8 MiB."""
    payload_max: int | None
    """Largest payload in bytes: 1 MiB; at most 64 MiB."""
    wait: Wait | None
    """How readers wait."""
    threads_max: int | None
    """Library threads for ``Delivery.THREAD``: 1."""
    close_timeout: float | None
    """How many seconds close waits for running handlers: 5."""
    threads: ThreadOptions | None
    """What library threads are."""
    timestamps: Timestamps | None
    """Whether messages and batches carry their time."""
    memory: Memory | None
    """What memory is; needs ``memory_max``."""

class ConnectOptions(OpenOptions, total=False):
    """Options of a client of a server. What is None, 0 or left out takes the default."""

    name: Text | None
    """What the client is called, at most 255 bytes."""
    token: Text | None
    """The secret that the server asks for, at most 4,096 bytes."""
    connect_timeout: float | None
    """How many seconds ``connect`` waits for a connection: 5."""
    operation_timeout: float | None
    """How many seconds ``subscribe`` waits for the server's answer: 5."""
    store_max: int | None
    """Bytes of publishes that wait while there is no connection: 1 MiB; 1: none wait."""
    backoff_min: float | None
    """The shortest pause in seconds before the servers are tried again: 0.02."""
    backoff_max: float | None
    """The longest: 5."""
    later: bool | None
    """Do not wait for a connection, and do not fail for want of one."""
    unconfirmed: bool | None
    """``subscribe`` does not wait for the server's answer; a refusal is an event."""
    polled: bool | None
    """No thread for the connection: it is driven by calls that wait, ask, receive or dispatch."""
    on_event: Callable[[Event], object] | None
    """Is told what happens to the connection, on the thread that drives it. It must not block;
    it may publish, reply and close; a request or a subscription there raises Misuse."""

class ChangeOptions(TypedDict, total=False):
    """What a server that runs takes over."""

    token: Text | None
    """What clients must know who connect from now on, at most 4,096 bytes."""
    subscriptions_max: int | None
    """Subscriptions of one connection: 4,096."""

class ListenOptions(ChangeOptions, total=False):
    """Options of a server. What is None, 0 or left out takes the default."""

    name: Text | None
    """What the server is called, at most 255 bytes."""
    insecure: bool | None
    """It may listen at addresses that other machines reach, where its bytes can be read."""
    connections_max: int | None
    """Connections at once: 65,536."""
    wait: Wait | None
    """How its threads wait."""
    shards: int | None
    """Threads that serve connections: 1; at most 64."""
    thread: ThreadOptions | None
    """What its threads are."""
    sockets: Iterable[int | HasFileno] | None
    """Sockets that listen already, such as a service manager's, to accept at, too: objects with
    ``fileno()``, or descriptors. The server has duplicates of its own; yours stay open."""

class ClientStatistics(TypedDict):
    """Figures of a client since it was opened: numbers of what the keys name."""

    threads: int
    published: int
    delivered: int
    dropped: int
    expired: int
    refused: int
    requests: int
    answers: int
    late_answers: int
    memory: int
    memory_high: int
    queues: int
    subscriptions: int
    clock_calls: int
    locks: int
    parks: int
    wakes: int
    last_values: int

class QueueStatistics(TypedDict):
    """Figures of a queue since it was opened."""

    lanes: int
    published: int
    delivered: int
    dropped: int
    expired: int
    pending: int
    pending_bytes: int
    high_water_bytes: int
    locks: int
    waits: int
    wakes: int
    replaced: int

class SubscriptionStatistics(TypedDict):
    """Figures of a subscription since it was made."""

    id: int
    delivered: int
    dropped: int

def open(**options: Unpack[OpenOptions]) -> Client:
    """Opens a broker in this process. Starts no thread and opens no descriptor.

    >>> client = fastmq.open(queue_capacity=1 << 20)
    >>> client.close()

    Raises Invalid, Denied (a right that an option needs is missing), Unsupported, Io, NoMemory.
    """

def connect(urls: str, **options: Unpack[ConnectOptions]) -> Client:
    """Connects to the first of the servers that answers: ``unix:/path``, ``shm:NAME`` or
    ``tcp://host:port``, with commas between several.

    The client connects again by itself whenever the connection breaks, over a thread of its own.
    A publish that was accepted may be refused by the server, or lost with the connection:
    ``on_event`` is told. Blocks for at most ``connect_timeout``.

    >>> with fastmq.open() as broker, broker.listen("tcp://127.0.0.1:0") as server:
    ...     with fastmq.connect(server.urls[0]) as client, client.subscribe("a.*") as subscription:
    ...         broker.publish("a.b", b"hello")
    ...         print(subscription.receive(timeout=5)[0].payload)
    b'hello'

    Raises Invalid (a URL or an option), Unavailable, Denied, Timeout, Unsupported, Io, NoMemory.
    """

def wait_any(queues: Sequence[Queue | Subscription], timeout: float | None = None) -> int:
    """Waits until one of 1 to 1,024 queues has something to receive, and gives its index.

    ``timeout`` in seconds; None: for ever. Ctrl-C ends it.
    Raises Again (timeout 0), Timeout, End, Closed, Invalid, Misuse (a batch is open).
    """

def thread_setup(options: ThreadOptions | None = None) -> None:
    """Makes the calling thread what ``options`` say: its name, its cores, its scheduling.

    Raises Invalid, Denied (the right is missing), Io, Misuse; nothing has changed then.
    """

def abi() -> int:
    """The C ABI that this version has: ``major << 16 | minor``."""

def status_text(status: int) -> str:
    """One line about a status for people."""

def encode_headers(headers: HeadersLike) -> bytes:
    """Encodes headers as messages carry them. Raises Invalid, TooLarge (64 KiB in all).

    >>> fastmq.decode_headers(fastmq.encode_headers({"trace": "abc"}))
    [('trace', b'abc')]
    """

def decode_headers(encoded: bytes) -> list[tuple[str, bytes]]:
    """Decodes what ``encode_headers`` gives. Raises Invalid."""

def _close_all() -> None: ...
def _fate(status: int, subject: bytes) -> Error: ...
def _set_log(level: int, on_log: Callable[[int, str, str], object] | None) -> None: ...

@final
class Alarm:
    """Wakes an event loop: one descriptor for all queues of a client. Used by ``fastmq.aio``."""

    def __new__(cls) -> Self: ...
    def fileno(self) -> int:
        """The descriptor: readable while ``take`` has something."""
    def take(self) -> list[int]:
        """The numbers that have rung since the last call."""

@final
class Message:
    """A received message, with bytes of its own. Used from any thread."""

    @property
    def subject(self) -> str:
        """The subject; empty for an answer."""
    @property
    def payload(self) -> bytes:
        """The payload."""
    @property
    def reply_to(self) -> str:
        """Where an answer may be published; empty: nowhere."""
    @property
    def headers(self) -> list[tuple[str, bytes]]:
        """The headers, in the order in which they were added."""
    @property
    def key(self) -> bytes:
        """The key; empty: none."""
    @property
    def sequence(self) -> int:
        """The publisher's sequence, from 1 on; 0: published without a handle."""
    @property
    def publisher(self) -> int:
        """Names the publisher that counts ``sequence``; 0: published without a handle."""
    @property
    def timestamp_ns(self) -> int:
        """Unix nanoseconds of the publish, or 0."""
    @property
    def token(self) -> int:
        """Names the request to answer, or the request that this answers; 0: none."""
    @property
    def delivery_count(self) -> int:
        """1 on the first delivery."""
    @property
    def lost_before(self) -> int:
        """Messages dropped by this queue since the previous one."""
    @property
    def status(self) -> Status:
        """Status of an answer; OK otherwise."""
    @property
    def subscription_id(self) -> int:
        """The subscription that this came by; of an answer among several, the responder's."""
    @property
    def tag(self) -> int:
        """The number given at subscribe."""
    @property
    def flags(self) -> int:
        """``MessageFlag`` bits."""
    @property
    def is_redelivered(self) -> bool:
        """True if it was delivered before."""
    @property
    def has_more(self) -> bool:
        """True if more replies follow."""
    @property
    def is_end(self) -> bool:
        """True for the last of several replies."""
    @property
    def is_request(self) -> bool:
        """True if an answer is expected: ``Client.reply``."""
    @property
    def _is_bare_failure(self) -> bool: ...
    def header(self, name: str) -> bytes:
        """The value of the first header with this name, compared without ASCII case.

        Raises NotFound.
        """
    def __bytes__(self) -> bytes: ...

@final
class Batch:
    """Received messages: a sequence of ``Message``. Used by one thread at a time.

    It is open until ``close``, the end of ``with``, or the next receive from its queue, which
    copies out what is still there; until then its messages take room in the queue. Inside ``with``
    the payloads can be read in place.

    >>> with fastmq.open() as client, client.subscribe("a") as subscription:
    ...     client.publish("a", b"in place")
    ...     with subscription.receive(timeout=1) as batch:
    ...         print(bytes(batch.view(0)[3:]))
    b'place'
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Message: ...
    def __iter__(self) -> Iterator[Message]: ...
    def messages(self) -> list[Message]:
        """Copies of all messages. Raises Misuse (closed)."""
    def payloads(self) -> list[bytes]:
        """Copies of the payloads alone: faster than messages. Raises Misuse (closed)."""
    def subjects(self) -> list[str]:
        """The subjects alone. Raises Misuse (closed)."""
    def view(self, index: int) -> memoryview:
        """A payload in place, read-only: inside ``with`` only.

        The view ends with the batch: it raises ValueError afterwards. Slices of it, and arrays made
        of it, keep the batch open, and ending the ``with`` raises Misuse while one is there.
        Raises Misuse (not inside ``with``, closed), IndexError.
        """
    def columns(self) -> Columns:
        """A copy by columns. Raises Misuse (closed)."""
    @property
    def received_ns(self) -> int:
        """When it was received, in Unix nanoseconds; 0 if the client has no time stamps."""
    @property
    def closed(self) -> bool:
        """True after ``close``."""
    def close(self) -> None:
        """Gives the queue its room back. Does nothing the second time.

        Raises Misuse: a slice or an array of a view is still there; the batch ends with it.
        """
    def __enter__(self) -> Self: ...
    def __exit__(self, *raised: object) -> None: ...

@final
class Columns:
    """Messages by columns, for NumPy and Arrow, which read them without a copy.

    Each is a read-only memoryview with memory of its own, which outlives the batch. A payload is
    ``data[offsets[i]:offsets[i + 1]]``: the layout of Arrow's ``LargeBinary``.

    >>> with fastmq.open() as client, client.subscribe("a") as subscription:
    ...     count = client.publish_batch([("a", b"first"), ("a", b"second")])
    ...     columns = subscription.receive(timeout=1).columns()
    >>> bytes(columns.data), list(columns.offsets)
    (b'firstsecond', [0, 5, 11])
    """

    def __len__(self) -> int: ...
    @property
    def data(self) -> memoryview:
        """The payloads, one after another."""
    @property
    def offsets(self) -> memoryview:
        """Where each payload begins, and where the last one ends: int64, one more than rows."""
    @property
    def subject_data(self) -> memoryview:
        """The subjects, one after another."""
    @property
    def subject_offsets(self) -> memoryview:
        """Where each subject begins, and where the last one ends: int64."""
    @property
    def tokens(self) -> memoryview:
        """``Message.token``: uint64."""
    @property
    def tags(self) -> memoryview:
        """``Message.tag``: uint64."""
    @property
    def sequences(self) -> memoryview:
        """``Message.sequence``: uint64."""
    @property
    def timestamps_ns(self) -> memoryview:
        """``Message.timestamp_ns``: uint64."""
    @property
    def statuses(self) -> memoryview:
        """``Message.status``: uint32."""
    @property
    def subscription_ids(self) -> memoryview:
        """``Message.subscription_id``: uint32."""

@final
class Event:
    """What has happened to a client's connection; 0 and empty where the kind names no field."""

    @property
    def kind(self) -> EventKind:
        """What it is about."""
    @property
    def flags(self) -> EventFlag:
        """More about the kind."""
    @property
    def status(self) -> Status:
        """Why."""
    @property
    def subscription_id(self) -> int:
        """Which subscription."""
    @property
    def count(self) -> int:
        """How many: see the kind."""
    @property
    def server(self) -> str:
        """What the server is called."""
    @property
    def subject(self) -> str:
        """The subject of a message."""
    @property
    def detail(self) -> str:
        """Why, as a sentence."""

@final
class Client:
    """A broker in this process (``open``), or one of a server in another (``connect``).

    Used from any thread at the same time. It is closed by ``with`` or ``close``; one that is
    forgotten is closed when it is collected, with a ResourceWarning. In a forked child every call
    raises Misuse, but for ``close``, which does nothing.
    """

    def publish(
        self,
        subject: Text,
        payload: Payload,
        *,
        headers: HeadersLike | None = None,
        key: Text | None = None,
        reply_to: Text | None = None,
        ttl: float | None = None,
        keep_last: bool = False,
    ) -> None:
        """Publishes one message to every subscription whose pattern matches, and to one member of
        each group. Does not block; each thread's messages keep their order.

        ``key`` keeps messages of one kind in order in key-shared groups; ``reply_to`` is where an
        answer may be published; ``ttl`` is how many seconds it is worth delivering. With
        ``keep_last`` it becomes the last value of its subject, for whoever subscribes later with
        ``replay_last``.

        >>> with fastmq.open() as client:
        ...     client.publish("gate.B22", "boarding", keep_last=True)
        ...     with client.subscribe("gate.*", replay_last=True) as gates:
        ...         print(next(gates).payload)
        b'boarding'

        Raises Again (a queue is full, and nobody got the message), Invalid, Denied (the subject
        begins with $SYS), TooLarge, NoSpace, NoMemory, Closed, Misuse.
        """
    def publish_wait(
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
        """As ``publish``, waiting for room for at most ``timeout`` seconds; None: for ever.

        Raises as ``publish``, and Timeout, and Misuse inside a handler of the full queue.
        """
    def publish_batch(self, messages: Iterable[tuple[Text, Payload]]) -> int:
        """Publishes pairs of subject and payload in order, up to the first that is refused.

        Gives how many were published; if there are messages and none was, raises as ``publish``.

        >>> with fastmq.open() as client, client.subscribe("price.>") as prices:
        ...     client.publish_batch([("price.A", b"1"), ("price.B", b"2")])
        ...     prices.receive(timeout=1).subjects()
        2
        ['price.A', 'price.B']
        """
    def publish_columns(
        self, subject_data: Payload, subject_offsets: Buffer, data: Payload, offsets: Buffer
    ) -> int:
        """Publishes by columns, as ``Columns`` has them. Offsets are integers of 32 or 64 bits.

        Gives how many were published, as ``publish_batch``. Raises Invalid: offsets do not rise
        within their data, or there are more subjects than payloads.
        """
    def forget_last(self, subject: Text) -> None:
        """Forgets the last value of a subject. Raises NotFound, Invalid, Closed, Misuse."""
    def publisher(self, subject: Text) -> Publisher:
        """Opens a publisher for one subject: the fastest way to publish.

        Raises Invalid, Denied, Closed, NoMemory, Misuse.
        """
    def queue(
        self,
        *,
        policy: Policy = Policy.BACKPRESSURE,
        capacity: int = 0,
        wait: Wait = Wait.BALANCED,
    ) -> Queue:
        """Opens a queue that several subscriptions may feed.

        ``capacity`` in bytes per lane; 0: the client's. ``wait``: BALANCED is the client's.
        Raises Invalid, Closed, NoMemory, Misuse.
        """
    def subscribe(
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
        """Subscribes to every subject that matches ``pattern``: ``*`` is one token, ``>`` is one
        or more at the end.

        Members of a ``group`` share its messages. Messages wait in ``queue``, or in one of the
        subscription's own with ``policy``; or ``on_message`` is called, on the thread that
        ``delivery`` says: THREAD, one of the library; DISPATCH, inside ``Client.dispatch``; INLINE,
        the one that publishes. What it raises goes to ``sys.unraisablehook``; KeyboardInterrupt to
        the main thread.
        A client of a server waits for the server's answer for at most ``operation_timeout``.

        >>> with fastmq.open() as client:
        ...     one = client.subscribe("job", group="workers")
        ...     two = client.subscribe("job", group="workers")
        ...     client.publish("job", b"work")
        ...     ready = fastmq.wait_any([one, two], timeout=1)
        ...     print([one, two][ready].receive().payloads())
        [b'work']

        Raises Invalid, Conflict (the group has another group_mode), Closed, NoMemory, NoSpace,
        Unsupported, Misuse; of a server also Unavailable and Timeout.
        """
    def request(
        self,
        subject: Text,
        payload: Payload,
        timeout: float | None = 5.0,
        *,
        headers: HeadersLike | None = None,
        key: Text | None = None,
        ttl: float | None = None,
    ) -> Message:
        """Asks and waits for the answer for at most ``timeout`` seconds. Ctrl-C ends it.

        An answer with a status other than OK and nothing else raises the error of that status; one
        that has a payload or headers is given, with its ``status``.

        >>> with fastmq.open() as client:
        ...     double = lambda request: client.reply(request, request.payload * 2)
        ...     with client.subscribe("double", delivery=Delivery.INLINE, on_message=double):
        ...         print(client.request("double", b"la").payload)
        b'lala'

        Raises NoResponder, Busy, Timeout, Cancelled; of a server also Disconnected (it may or may
        not have been handled) and Unavailable; else as ``publish``.
        """
    def request_into(
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
        """Asks, and writes the answer's payload to ``into``, a buffer of bytes that can be written
        to; gives its size in bytes. Waits as ``request``.

        >>> room = bytearray(64)
        >>> with fastmq.open() as client:
        ...     double = lambda request: client.reply(request, request.payload * 2)
        ...     with client.subscribe("double", delivery=Delivery.INLINE, on_message=double):
        ...         size = client.request_into("double", b"la", room)
        >>> bytes(room[:size])
        b'lala'

        Raises TooLarge (``into`` has no room for it), the error of the answer's status if that is
        not OK, and as ``request``; BufferError or TypeError for what cannot be written to.
        """
    def request_many(
        self,
        subject: Text,
        payload: Payload,
        timeout: float | None = 5.0,
        *,
        answers_max: int = 0xFFFF_FFFF,
        gap: float | None = None,
        headers: HeadersLike | None = None,
        key: Text | None = None,
        ttl: float | None = None,
    ) -> list[Message]:
        """Asks and waits until ``answers_max`` responders have answered (ANSWERS_ALL: all that have
        the request), or for at most ``timeout`` seconds. Ctrl-C ends it.

        ``gap`` is the longest time in seconds without an answer. The last message has ``is_end``;
        if its ``subscription_id`` is 0 it is no answer, and its status says why fewer came.

        Raises as ``request`` where nobody has answered.
        """
    def reply(
        self,
        request: Message | int,
        payload: Payload,
        *,
        status: Status = Status.OK,
        headers: HeadersLike | None = None,
    ) -> None:
        """Answers a request, given by its message or its token. Does not block.

        Raises Again (the asker has no room), NotFound (the asker is gone), TooLarge, Invalid,
        NoSpace, NoMemory, Closed, Misuse.
        """
    def reply_columns(self, tokens: Buffer, data: Payload, offsets: Buffer) -> int:
        """Answers requests by columns, up to the first that is refused; gives how many it were.

        If none was, raises as ``reply``.
        """
    def reply_stream(self, request: Message | int) -> ReplyStream:
        """Opens the reply stream of a request that was submitted with credit.

        >>> def count(request):
        ...     with client.reply_stream(request) as stream:
        ...         for number in range(3):
        ...             stream.send(str(number))
        ...         stream.end()
        >>> with fastmq.open() as client, client.requester("count") as asker:
        ...     with client.subscribe("count", delivery=Delivery.INLINE, on_message=count):
        ...         asker.submit_many(b"", 1, credit=8)
        ...         print([reply.payload for reply in asker.receive(timeout=1) if reply.has_more])
        [b'0', b'1', b'2']

        Raises NotFound (nobody waits for an answer), Unsupported (the asker takes no stream),
        Exists (it was opened before), Cancelled, Invalid, NoMemory, Closed, Misuse.
        """
    def requester(
        self, subject: Text | None = None, *, in_flight_max: int = 0, wait: Wait = Wait.BALANCED
    ) -> Requester:
        """Opens a requester: many requests in flight. ``in_flight_max``: 0 is 1,024; at most 65,535.

        Raises Invalid, Denied, Closed, NoSpace, NoMemory, Misuse.
        """
    def listen(self, urls: str | None = None, **options: Unpack[ListenOptions]) -> Server:
        """Serves other processes at ``urls``: ``unix:/path``, ``shm:NAME`` or ``tcp://host:port``,
        with commas between several; port 0 takes a free one, which ``Server.urls`` tells. It may
        be left out if there are ``sockets``.

        Raises Invalid, Denied (other machines would reach it, and ``insecure`` is not set),
        Unsupported (the client is one of another server), Io, Closed, NoMemory, Misuse.
        """
    def dispatch(self, message_max: int = 0, budget: float = 0.0) -> int:
        """Calls the handlers of ``Delivery.DISPATCH`` and says what else is ready: ``Ready`` bits.

        Stops after ``message_max`` messages and ``budget`` seconds; 0: no limit. Does not wait.
        Raises Closed, NoMemory, Corrupt, Misuse.
        """
    def fd(self) -> int:
        """The descriptor for a loop of your own: readable exactly while ``dispatch`` has something
        to do. Only wait on it. Raises Io, Closed, Misuse."""
    def next_deadline(self) -> float | None:
        """Seconds until something times out, for loops with their own timers; None: nothing will."""
    def statistics(self) -> ClientStatistics:
        """Figures since the client was opened."""
    def drain(self, timeout: float | None = None) -> None:
        """Stops taking messages and waits until every queue is empty and no handler runs, for at
        most ``timeout`` seconds. Ctrl-C ends it.

        Raises Timeout (the sentence says what still waits), Closed, Misuse.
        """
    @property
    def closed(self) -> bool:
        """True after ``close``."""
    def close(self) -> None:
        """Closes the client: its other handles raise Closed from now on, calls that wait return.

        Waits for running handlers for at most ``close_timeout``. Does nothing the second time.
        """
    def __enter__(self) -> Self: ...
    def __exit__(self, *raised: object) -> None: ...

@final
class Publisher:
    """A subject to publish to: the fastest way. Used by one thread at a time (Misuse)."""

    def publish(
        self,
        payload: Payload,
        *,
        headers: HeadersLike | None = None,
        key: Text | None = None,
        reply_to: Text | None = None,
        ttl: float | None = None,
        keep_last: bool = False,
    ) -> None:
        """Publishes one payload to the publisher's subject. As ``Client.publish``."""
    def publish_wait(self, payload: Payload, timeout: float | None = None) -> None:
        """Publishes one payload, waiting for room. As ``Client.publish_wait``."""
    def publish_batch(self, payloads: Iterable[Payload]) -> int:
        """Publishes payloads in order, up to the first that is refused; readers may see them all at
        once. As ``Client.publish_batch``."""
    def publish_columns(self, data: Payload, offsets: Buffer) -> int:
        """Publishes the rows of a column: ``data[offsets[i]:offsets[i + 1]]``. Gives how many were
        published, as ``publish_batch``."""
    def claim(self, size: int) -> Claim:
        """Claims room for one payload of at most ``size`` bytes, to be written in place.

        A publisher has one claim at a time, and publishes nothing else meanwhile: Misuse.

        >>> with fastmq.open() as client, client.publisher("gate.B22") as gate:
        ...     with gate.claim(64) as claim:
        ...         claim.view[:8] = b"boarding"
        ...         claim.commit(8)

        Raises Again (a queue is full), TooLarge, NoSpace, NoMemory, Closed, Misuse.
        """
    def close(self) -> None:
        """Closes the publisher; what it published stays, an open claim is abandoned.

        Raises Misuse: a view of the claim is in use.
        """
    def __enter__(self) -> Self: ...
    def __exit__(self, *raised: object) -> None: ...

@final
class Claim:
    """Room for one payload, written in place. Leaving ``with`` abandons what was not committed, and
    so does forgetting it and its views."""

    @property
    def view(self) -> memoryview:
        """The bytes to write, zeros at first. Ends with the claim.

        Raises BufferError: the claim is over, or was committed once and refused.
        """
    def commit(self, size: int) -> None:
        """Publishes the first ``size`` bytes. What is refused may be committed again.

        Raises as ``Client.publish``; Invalid for more bytes than were claimed; Misuse without a
        claim, or while a slice or an array of the view is there.
        """
    def abandon(self) -> None:
        """Gives the claim back unpublished; does nothing if it is over."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *raised: object) -> None: ...

@final
class Queue:
    """A place where messages wait until they are received, by one thread at a time.

    Iterating gives one message after another until the queue is closed or drained. An iteration
    that is left takes nothing that was not given: the rest waits in the queue.
    """

    def receive(self, message_max: int = 0, timeout: float | None = None) -> Batch:
        """Receives up to ``message_max`` messages (0: as many as a batch holds), waiting for the
        first for at most ``timeout`` seconds; None: for ever. Ctrl-C ends it.

        Raises Again (nothing is there, and ``timeout`` is 0), Timeout, End (the client was
        drained), Closed, NoMemory, Corrupt, Misuse (a batch is open in ``with``, or another
        thread receives).
        """
    def _receive_now(self, message_max: int = 0) -> Batch | None: ...
    def _poll_ready(self, alarm: Alarm, number: int) -> bool: ...
    def fd(self) -> int:
        """The queue's descriptor: readable exactly while there is something to receive. Only wait
        on it. Raises Io, Closed, Misuse."""
    def statistics(self) -> QueueStatistics:
        """Figures since the queue was opened."""
    def close(self) -> None:
        """Closes the queue and ends the subscriptions that feed it.

        Raises Misuse: it belongs to a subscription, which closes it.
        """
    def __iter__(self) -> Self: ...
    def __next__(self) -> Message: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *raised: object) -> None: ...

@final
class Subscription:
    """A pattern and where its messages go. It ends with ``with``, ``unsubscribe``, or when it is
    collected. Iterating is that of its ``queue``."""

    @property
    def id(self) -> int:
        """The number that its messages carry as ``subscription_id``."""
    @property
    def pattern(self) -> str:
        """The pattern."""
    @property
    def queue(self) -> Queue:
        """The queue that it feeds. Raises Misuse: a handler gets its messages."""
    def receive(self, message_max: int = 0, timeout: float | None = None) -> Batch:
        """Receives from its queue: as ``Queue.receive``."""
    def _receive_now(self, message_max: int = 0) -> Batch | None: ...
    def _poll_ready(self, alarm: Alarm, number: int) -> bool: ...
    def statistics(self) -> SubscriptionStatistics:
        """Figures since it was made."""
    def unsubscribe(self) -> None:
        """Ends it, and its queue if it owns that. Afterwards its handler does not run, unless that
        is what calls. Does nothing the second time."""
    def close(self) -> None:
        """The same as ``unsubscribe``."""
    def __iter__(self) -> Self: ...
    def __next__(self) -> Message: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *raised: object) -> None: ...

@final
class Requester:
    """Many requests in flight. Used by one thread at a time (Misuse).

    >>> with fastmq.open() as client, client.requester("square") as asker:
    ...     square = lambda request: client.reply(request, str(int(request.payload) ** 2))
    ...     with client.subscribe("square", delivery=Delivery.INLINE, on_message=square):
    ...         for number in range(3):
    ...             asker.submit(str(number), token=number)
    ...         print([(answer.token, answer.payload) for answer in asker.receive(timeout=1)])
    [(0, b'0'), (1, b'1'), (2, b'4')]
    """

    def submit(
        self,
        payload: Payload,
        token: int,
        timeout: float | None = 5.0,
        *,
        subject: Text | None = None,
        headers: HeadersLike | None = None,
        key: Text | None = None,
        ttl: float | None = None,
    ) -> None:
        """Sends a request, to ``subject`` or the requester's own. Does not block.

        Exactly one final answer comes by ``receive`` with this token; its status is the
        responder's, or NO_RESPONDER, BUSY, TIMEOUT, CANCELLED or DISCONNECTED.

        Raises Again (as many are in flight as may be), Unavailable (no connection to the server),
        Invalid, Denied, TooLarge, NoSpace, NoMemory, Closed, Misuse.
        """
    def submit_columns(
        self, data: Payload, offsets: Buffer, first_token: int, timeout: float | None = 5.0
    ) -> int:
        """Sends the rows of a column as requests to the requester's own subject, with tokens from
        ``first_token`` on, up to the first that is refused; gives how many it were.

        If none was, raises as ``submit``.
        """
    def submit_many(
        self,
        payload: Payload,
        token: int,
        timeout: float | None = 5.0,
        *,
        subject: Text | None = None,
        answers_max: int = 1,
        credit: int = 0,
        credit_mode: Credit = Credit.AUTOMATIC,
        gap: float | None = None,
        headers: HeadersLike | None = None,
        key: Text | None = None,
        ttl: float | None = None,
    ) -> None:
        """Sends a request to which several answers may come: of several responders, or of one that
        streams its replies.

        ``answers_max`` responders' answers; ANSWERS_ALL: of all that get the request. ``credit``
        replies may be streamed before the first is received; 0: no streams. ``gap`` is the longest
        time in seconds without a message. Each answer has ``has_more`` but the last, which has
        ``is_end``; if its ``subscription_id`` is 0 it is the library's own, and its status says how
        the request ended. The end of a reply stream is a message too, with status END, CANCELLED,
        or the error that the responder ended it with.

        Raises as ``submit``.
        """
    def grant(self, token: int, replies: int) -> None:
        """Grants more replies to each reply stream of a request: 1 to 1,048,576.

        Raises NotFound (no such request in flight), Invalid, Closed, Misuse.
        """
    def receive(self, message_max: int = 0, timeout: float | None = None) -> Batch:
        """Receives up to ``message_max`` answers (0: as many as a batch holds), waiting for the
        first for at most ``timeout`` seconds; None: for ever. Ctrl-C ends it.

        Raises Again (timeout 0), Timeout, Closed, NoMemory, Misuse.
        """
    def _receive_now(self, message_max: int = 0) -> Batch | None: ...
    def _receive_soon(self, timeout: float) -> Batch | None: ...
    def _poll_ready(self, alarm: Alarm, number: int) -> bool: ...
    def _next_deadline(self) -> float | None: ...
    def cancel(self, token: int) -> None:
        """Ends a request: its answer arrives with CANCELLED. Raises NotFound, Closed, Misuse."""
    def in_flight(self) -> int:
        """Requests that have no final answer yet, those with one not yet received included."""
    def fd(self) -> int:
        """The requester's descriptor: readable exactly while there is an answer to receive or a
        request has timed out. Only wait on it. Raises Io, Closed, Misuse."""
    def close(self) -> None:
        """Closes it; requests in flight are given up. Does nothing the second time."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *raised: object) -> None: ...

@final
class ReplyStream:
    """A responder's stream of replies to one request. Used by one thread at a time (Misuse)."""

    def send(self, payload: Payload, *, headers: HeadersLike | None = None) -> None:
        """Sends one reply. Does not block; replies keep their order.

        Raises Again (the asker has granted no more, or has no room), Cancelled (nobody waits for
        more), Misuse (it was ended), TooLarge, NoSpace, NoMemory, Closed.
        """
    def send_wait(
        self,
        payload: Payload,
        timeout: float | None = None,
        *,
        headers: HeadersLike | None = None,
    ) -> None:
        """As ``send``, waiting for credit and room for at most ``timeout`` seconds.

        Raises as ``send``, and Timeout, and Misuse inside the asker's own submit.
        """
    def credit(self) -> int:
        """How many replies the asker has granted that were not sent. Raises Cancelled, Misuse."""
    def end(self, status: Status = Status.OK) -> None:
        """Ends the stream: the asker receives a last message with ``status``, END for OK.

        Raises Cancelled (the other side has ended it), Misuse (it was ended), Closed.
        """
    def close(self) -> None:
        """Closes it; a stream that was not ended ends with CANCELLED."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *raised: object) -> None: ...

@final
class Server:
    """A broker that other processes use. Used from any thread at the same time."""

    @property
    def urls(self) -> list[str]:
        """Where it listens, in the order in which it was asked."""
    def change(self, **options: Unpack[ChangeOptions]) -> None:
        """Takes over a token and a limit, for who connects and what is subscribed from now on.

        Raises Invalid, Closed, NoMemory, Misuse.
        """
    def close(self, timeout: float = 0.0) -> None:
        """Takes no more connections, asks the clients to finish, and closes when they have gone or
        after ``timeout`` seconds. Does nothing the second time."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *raised: object) -> None: ...
