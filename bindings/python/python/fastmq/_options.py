"""Options that have several fields."""

from __future__ import annotations

from dataclasses import dataclass

from ._constants import Scheduling


@dataclass(frozen=True, slots=True)
class ThreadOptions:
    """What a thread is to be. What is left out stays as it is."""

    name: str = ""
    """What ``/proc`` shows: at most 15 bytes; 11 for the threads of a client, whose names are
    this, "-" and a number."""

    cores: int = 0
    """The cores it may run on: bit n for core n, of the first 64."""

    scheduling: Scheduling = Scheduling.KEEP
    """How the kernel chooses."""

    priority: int = 0
    """1 to 99 under ``FIFO`` and ``RR``, else 0."""
