"""Reserved subjects, their headers, and numbers that are names in C."""

from __future__ import annotations

# Not of `typing`, which takes a while to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

SUBJECT_JOINED: Final = "$SYS.JOINED"
"""Presence: whoever subscribes to ``room.*`` is told on ``$SYS.JOINED.room.(*)``. The payload is
the pattern, the key the group, and the header ``HEADER_SUBSCRIPTION`` has the subscription's id."""

SUBJECT_LEFT: Final = "$SYS.LEFT"
"""As ``SUBJECT_JOINED``, when the subscription ends."""

HEADER_SUBSCRIPTION: Final = "Subscription"
"""The header of presence that has the subscription's id, in decimal."""

SUBJECT_STATS: Final = "$SYS.SERVER.STATS"
"""A server answers a request of its client to this subject with what it does, as JSON."""

SUBJECT_CONNECTED: Final = "$SYS.CONNECTED"
"""Whoever connects to a broker that listens is told on ``$SYS.CONNECTED.NAME``. The payload is the
name, the header ``HEADER_CLIENT`` has the client's number."""

SUBJECT_DISCONNECTED: Final = "$SYS.DISCONNECTED"
"""As ``SUBJECT_CONNECTED``, when the connection ends; ``HEADER_BROKEN`` says how it broke."""

HEADER_CLIENT: Final = "Client"
"""The header that has the client's number, in decimal."""

HEADER_BROKEN: Final = "Broken"
"""The header that says how a connection broke, if it did."""

ANSWERS_ALL: Final = 0xFFFF_FFFF
"""As many answers as there are responders."""
