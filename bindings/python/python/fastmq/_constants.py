"""The constants of the C interface, with its numbers."""

from __future__ import annotations

from enum import IntEnum, IntFlag


class Status(IntEnum):
    """What a call says; the tens say what to do next."""

    OK = 0
    """Done."""

    AGAIN = 1
    """Nothing ready, or no room: wait, then call again."""

    TIMEOUT = 2
    """The time is up."""

    END = 3
    """Closed and drained."""

    CANCELLED = 4
    """Cancelled before it was answered."""

    INVALID = 10
    """An argument is wrong, and the sentence names it."""

    MISUSE = 11
    """The call is wrong here: overlap, second open batch, stale handle, after fork."""

    TOO_LARGE = 12
    """Larger than a limit."""

    UNSUPPORTED = 13
    """Not supported."""

    CLOSED = 14
    """The parent of the handle is closed."""

    NOT_FOUND = 20
    """There is no such thing."""

    EXISTS = 21
    """It exists already."""

    NO_RESPONDER = 22
    """Nobody answers this subject."""

    BUSY = 23
    """The responder has no room."""

    CONFLICT = 24
    """Another change came first."""

    UNAVAILABLE = 30
    """Not now; try again."""

    DISCONNECTED = 31
    """The connection is gone; the fate is unknown."""

    SLOW_CONSUMER = 32
    """Disconnected for being slow."""

    DENIED = 40
    """Not permitted."""

    NO_SPACE = 41
    """A memory cap or the disk is full."""

    CORRUPT = 42
    """Data are damaged."""

    IO = 43
    """The operating system refused."""

    NO_MEMORY = 44
    """The allocator has no memory."""

    INTERNAL = 50
    """A bug of this library."""


class Policy(IntEnum):
    """What a queue does with messages for which there is no room, or which newer ones replace."""

    BACKPRESSURE = 0
    """The publish is refused with AGAIN, and nobody gets the message."""

    DROP_OLDEST = 1
    """The oldest messages are dropped and counted."""

    DROP_NEWEST = 2
    """The new message is dropped and counted."""

    LATEST = 3
    """Of each subject the newest message waits, and replaces one that nobody has received: the
    receiver gets what has changed, in the order of the first changes. Never full. Requests pass
    it by; a subscription of a group cannot use it."""


class Wait(IntEnum):
    """How a reader waits."""

    BALANCED = 0
    """Spins for a while that adapts, then sleeps. In the options of a queue: as the client."""

    LATENCY = 1
    """Spins longer before it sleeps."""

    LOW_POWER = 2
    """Sleeps at once."""

    BUSY_POLL = 3
    """Never sleeps."""


class Delivery(IntEnum):
    """How a subscription's messages reach the application."""

    QUEUE = 0
    """Pulled with fastmq_receive."""

    THREAD = 1
    """on_message, on a thread of the library."""

    DISPATCH = 2
    """on_message, inside fastmq_dispatch."""

    INLINE = 3
    """on_message, on the publishing thread; no queue."""


class GroupMode(IntEnum):
    """How the members of a group share its messages."""

    BALANCED = 0
    """Each message goes to a member that is less loaded than others."""

    KEY_SHARED = 1
    """Messages of one key go to one member, those of one publisher in order, while members
    come, go and stall. The key of a message without one is its subject. Members have a queue
    whose policy is FASTMQ_POLICY_BACKPRESSURE, and the same pattern: with another it is another
    group.  A key moves to a member that joins, and away from one that leaves, once the messages
    of it that the publisher sent before were handled: the batch freed, or the callback
    returned. Until then a publish of that key returns AGAIN. What a member that leaves has not
    read goes to the others first; what it is shown then is still its own."""


class MessageFlag(IntFlag):
    """Bits of ``Message.flags``."""

    REDELIVERED = 1
    """Delivered before."""

    MORE = 2
    """More replies follow."""

    END = 4
    """The last of several replies."""

    REQUEST = 8
    """An answer is expected."""


class Ready(IntFlag):
    """What ``Client.dispatch`` found ready, as bits."""

    MESSAGES = 1
    """Messages wait in a queue that is pulled, or were handled."""

    ANSWERS = 2
    """A requester has answers."""

    ROOM = 4
    """A queue that refused a publish has room."""

    DEADLINE = 8
    """A deadline has passed."""

    MORE = 16
    """The budget ended before the work."""


class LogLevel(IntEnum):
    """How important a line of the log is."""

    OFF = 0
    """No lines."""

    ERROR = 1
    """Something failed."""

    WARN = 2
    """Something is not as it should be."""

    INFO = 3
    """Something that happens seldom."""

    DEBUG = 4
    """Something for the developers."""


class Scheduling(IntEnum):
    """How the kernel chooses among threads."""

    KEEP = 0
    """As it is; a new thread begins with that of the thread that starts it."""

    OTHER = 1
    """SCHED_OTHER: shares its core with the others."""

    FIFO = 2
    """SCHED_FIFO: runs until it sleeps or one of a higher priority comes."""

    RR = 3
    """SCHED_RR: the same, in turns with those of its own priority."""


class Credit(IntEnum):
    """How the streams of a request get more credit."""

    AUTOMATIC = 0
    """Each reply that is received grants another one."""

    MANUAL = 1
    """Only fastmq_requester_grant does."""


class Timestamps(IntEnum):
    """Where a client's time stamps come from."""

    NONE = 0
    """There are none, and they cost nothing."""

    CLOCK = 1
    """The host's clock."""

    TSC = 2
    """The counter of the processor, calibrated by the host's clock each second: a few
    microseconds off. Where it is no clock, the host's; `fastmq doctor` and the log say so. The
    first client that asks for it takes a millisecond to open."""


class Memory(IntFlag):
    """What the memory of a client's queues, blocks and latest values is, as bits."""

    PREFAULT = 1
    """It is there from the start, as with the other bits."""

    LOCK = 2
    """It is locked (mlock): never written to a swap file. DENIED if RLIMIT_MEMLOCK does not
    allow so much, and CAP_IPC_LOCK is missing."""

    HUGE_PAGES = 4
    """It is in huge pages of 2 MiB, to which memory_max is rounded up: those that
    vm.nr_hugepages has reserved if there are enough, else such as the kernel makes; these may
    be fewer where its memory is in pieces (AnonHugePages in /proc/self/smaps). UNSUPPORTED if
    there are neither."""


class EventKind(IntEnum):
    """What an event is about."""

    CONNECTED = 1
    """There is a connection, to `server`; the subscriptions were asked for again, `count` of
    them. `flags` say whether it is the first one."""

    DISCONNECTED = 2
    """The connection broke or could not be made: `status` and `detail` say why. `count`
    accepted publishes had not left, and are lost. The client tries again by itself, until it is
    closed: then the last event is this one, with CLOSED."""

    REFUSED = 3
    """The server has refused a publish to `subject`: `status`, `detail`."""

    UNSUBSCRIBED = 4
    """The server refuses the subscription `subscription_id`, which it had taken on an earlier
    connection: `status`, `detail`."""

    GAP = 5
    """`count` messages of `subscription_id` were lost at the server; its next message counts
    them in lost_before."""

    SLOW = 6
    """The server has to keep `count` bytes for this client, which reads too slowly."""

    DRAINING = 7
    """The server will close; the client goes to another one, or comes back."""

    LIMIT = 8
    """The server will refuse something soon: `detail`."""


class EventFlag(IntFlag):
    """Bits of ``Event.flags``."""

    AGAIN = 1
    """CONNECTED, and not for the first time: what was published elsewhere since the last
    connection broke has not come."""

    OTHER_INSTANCE = 2
    """CONNECTED to a server that is not the one of the last connection, or was restarted."""
