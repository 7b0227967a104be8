"""Options that have several fields."""

from __future__ import annotations

from ._constants import Scheduling


# Not a dataclass: the modules that makes one take longer to import than all of these.
class ThreadOptions:
    """What a thread is to be. What is left out stays as it is."""

    __slots__ = ("cores", "name", "priority", "scheduling")

    name: str
    """What ``/proc`` shows: at most 15 bytes; 11 for the threads of a client, whose names are
    this, "-" and a number."""

    cores: int
    """The cores it may run on: bit n for core n, of the first 64; 0: as it is."""

    scheduling: Scheduling
    """How the kernel chooses."""

    priority: int
    """1 to 99 under ``FIFO`` and ``RR``, else 0."""

    def __init__(
        self,
        *,
        name: str = "",
        cores: int = 0,
        scheduling: Scheduling = Scheduling.KEEP,
        priority: int = 0,
    ) -> None:
        self.name = name
        self.cores = cores
        self.scheduling = scheduling
        self.priority = priority

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"ThreadOptions({fields})"
