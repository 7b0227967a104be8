"""The exceptions: one class for each status, all of them ``fastmq.Error``."""

from __future__ import annotations

from ._constants import Status

# Not of `typing`, which takes a while to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

__all__ = [
    "CLASSES",
    "Again",
    "Busy",
    "Cancelled",
    "Closed",
    "Conflict",
    "Corrupt",
    "Denied",
    "Disconnected",
    "End",
    "Error",
    "Exists",
    "Internal",
    "Invalid",
    "Io",
    "Misuse",
    "NoMemory",
    "NoResponder",
    "NoSpace",
    "NotFound",
    "SlowConsumer",
    "Timeout",
    "TooLarge",
    "Unavailable",
    "Unsupported",
]


class Error(Exception):
    """A call has failed.

    ``str()`` gives the sentence that the C interface has in ``fastmq_last_error``.
    """

    status: ClassVar[Status] = Status.INTERNAL
    """What the caller does next; of the class, as each status has one."""

    code: ClassVar[str] = "FASTMQ_INTERNAL"
    """The name of the status in C, such as ``"FASTMQ_TIMEOUT"``."""

    def __init_subclass__(cls, *, status: Status | None = None) -> None:
        super().__init_subclass__()
        if status is not None:
            cls.status = status
            cls.code = f"FASTMQ_{status.name}"


class Again(Error, BlockingIOError, status=Status.AGAIN):
    """Nothing is ready, or there is no room: wait, then call again."""


class Timeout(Error, TimeoutError, status=Status.TIMEOUT):
    """The time is up."""


class End(Error, EOFError, status=Status.END):
    """Closed and drained: nothing comes any more."""


class Cancelled(Error, status=Status.CANCELLED):
    """Cancelled before it was answered."""


class Invalid(Error, ValueError, status=Status.INVALID):
    """An argument is wrong, and the sentence names it."""


class Misuse(Error, RuntimeError, status=Status.MISUSE):
    """The call is wrong here: a batch is open, another thread is inside, after fork."""


class TooLarge(Error, ValueError, status=Status.TOO_LARGE):
    """Larger than a limit."""


class Unsupported(Error, NotImplementedError, status=Status.UNSUPPORTED):
    """Not supported."""


class Closed(Error, ValueError, status=Status.CLOSED):
    """The handle or its client is closed."""


class NotFound(Error, LookupError, status=Status.NOT_FOUND):
    """There is no such thing."""


class Exists(Error, status=Status.EXISTS):
    """It exists already."""


class NoResponder(Error, status=Status.NO_RESPONDER):
    """Nobody answers this subject."""


class Busy(Error, status=Status.BUSY):
    """The responder has no room."""


class Conflict(Error, status=Status.CONFLICT):
    """Another change came first."""


class Unavailable(Error, ConnectionError, status=Status.UNAVAILABLE):
    """Not now; try again."""


class Disconnected(Error, ConnectionResetError, status=Status.DISCONNECTED):
    """The connection is gone; whether the request was carried out is unknown."""


class SlowConsumer(Error, ConnectionAbortedError, status=Status.SLOW_CONSUMER):
    """Disconnected for being slow."""


class Denied(Error, PermissionError, status=Status.DENIED):
    """Not permitted."""


class NoSpace(Error, OSError, status=Status.NO_SPACE):
    """A memory cap or the disk is full."""


class Corrupt(Error, status=Status.CORRUPT):
    """Data are damaged."""


class Io(Error, OSError, status=Status.IO):
    """The operating system refused."""


class NoMemory(Error, MemoryError, status=Status.NO_MEMORY):
    """The allocator has no memory."""


class Internal(Error, status=Status.INTERNAL):
    """A bug of the library."""


CLASSES: dict[int, type[Error]] = {
    int(cls.status): cls
    for cls in (
        Again,
        Timeout,
        End,
        Cancelled,
        Invalid,
        Misuse,
        TooLarge,
        Unsupported,
        Closed,
        NotFound,
        Exists,
        NoResponder,
        Busy,
        Conflict,
        Unavailable,
        Disconnected,
        SlowConsumer,
        Denied,
        NoSpace,
        Corrupt,
        Io,
        NoMemory,
        Internal,
    )
}
"""The class of each status, by number; ``Status.OK`` has none."""
