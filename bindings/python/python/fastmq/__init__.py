"""FAST MQ: a message queue in your process, or between processes.

A client holds a broker that lives in this process (``open``), or is one of a server in another
(``connect``). Publish by subject or through a ``Publisher``; receive from a ``Subscription`` in
batches, one message at a time, or by columns; ask with ``Client.request`` or, many at a time, with
a ``Requester``.

>>> import fastmq
>>> with fastmq.open() as client, client.subscribe("flight.*.JFK") as flights:
...     client.publish("flight.LAX.JFK", b"delayed 12 minutes")
...     for message in flights.receive(timeout=1):
...         print(message.subject, message.payload)
flight.LAX.JFK b'delayed 12 minutes'

``fastmq.aio`` has the same names for asyncio. Times are in seconds; ``timeout=None`` waits for
ever, ``timeout=0`` not at all. Whatever fails raises a subclass of ``fastmq.Error`` whose ``code``
is the name of the status in C.
"""

from __future__ import annotations

import atexit as _atexit

from ._fastmq import (
    Batch,
    Claim,
    Client,
    Columns,
    Event,
    Message,
    Publisher,
    Queue,
    ReplyStream,
    Requester,
    Server,
    Subscription,
    _close_all,
    abi,
    connect,
    decode_headers,
    encode_headers,
    open,
    status_text,
    thread_setup,
    wait_any,
)
from ._fastmq import VERSION as __version__
from ._subjects import (
    ANSWERS_ALL,
    HEADER_BROKEN,
    HEADER_CLIENT,
    HEADER_SUBSCRIPTION,
    SUBJECT_CONNECTED,
    SUBJECT_DISCONNECTED,
    SUBJECT_JOINED,
    SUBJECT_LEFT,
    SUBJECT_STATS,
)

# Not of `typing`, which takes a while to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import aio
    from ._constants import (
        Credit,
        Delivery,
        EventFlag,
        EventKind,
        GroupMode,
        LogLevel,
        Memory,
        MessageFlag,
        Policy,
        Ready,
        Scheduling,
        Status,
        Timestamps,
        Wait,
    )
    from ._errors import (
        Again,
        Busy,
        Cancelled,
        Closed,
        Conflict,
        Corrupt,
        Denied,
        Disconnected,
        End,
        Error,
        Exists,
        Internal,
        Invalid,
        Io,
        Misuse,
        NoMemory,
        NoResponder,
        NoSpace,
        NotFound,
        SlowConsumer,
        Timeout,
        TooLarge,
        Unavailable,
        Unsupported,
    )
    from ._log import set_log
    from ._options import ThreadOptions

__all__ = [
    "ANSWERS_ALL",
    "HEADER_BROKEN",
    "HEADER_CLIENT",
    "HEADER_SUBSCRIPTION",
    "SUBJECT_CONNECTED",
    "SUBJECT_DISCONNECTED",
    "SUBJECT_JOINED",
    "SUBJECT_LEFT",
    "SUBJECT_STATS",
    "Again",
    "Batch",
    "Busy",
    "Cancelled",
    "Claim",
    "Client",
    "Closed",
    "Columns",
    "Conflict",
    "Corrupt",
    "Credit",
    "Delivery",
    "Denied",
    "Disconnected",
    "End",
    "Error",
    "Event",
    "EventFlag",
    "EventKind",
    "Exists",
    "GroupMode",
    "Internal",
    "Invalid",
    "Io",
    "LogLevel",
    "Memory",
    "Message",
    "MessageFlag",
    "Misuse",
    "NoMemory",
    "NoResponder",
    "NoSpace",
    "NotFound",
    "Policy",
    "Publisher",
    "Queue",
    "Ready",
    "ReplyStream",
    "Requester",
    "Scheduling",
    "Server",
    "SlowConsumer",
    "Status",
    "Subscription",
    "ThreadOptions",
    "Timeout",
    "Timestamps",
    "TooLarge",
    "Unavailable",
    "Unsupported",
    "Wait",
    "__version__",
    "abi",
    "connect",
    "decode_headers",
    "encode_headers",
    "open",
    "set_log",
    "status_text",
    "thread_setup",
    "wait_any",
]

# Threads of the library call into the interpreter: they must end before it does.
_atexit.register(_close_all)


if not TYPE_CHECKING:
    # Most programs that are short use none of them, and the module `enum` alone takes longer to
    # import than all else here.
    _LATER = {
        name: module
        for module, names in {
            "_constants": """
                Credit Delivery EventFlag EventKind GroupMode LogLevel Memory MessageFlag
                Policy Ready Scheduling Status Timestamps Wait
            """,
            "_errors": """
                Again Busy Cancelled Closed Conflict Corrupt Denied Disconnected End Error
                Exists Internal Invalid Io Misuse NoMemory NoResponder NoSpace NotFound
                SlowConsumer Timeout TooLarge Unavailable Unsupported
            """,
            "_log": "set_log",
            "_options": "ThreadOptions",
        }.items()
        for name in names.split()
    }

    def __getattr__(name):
        from importlib import import_module

        if name == "aio":
            return import_module(".aio", __name__)
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f".{_LATER[name]}", __name__), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *_LATER, "aio"})
