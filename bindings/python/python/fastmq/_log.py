"""The log: what the library has to say, by the module ``logging`` unless a function is given."""

from __future__ import annotations

from collections.abc import Callable

from ._constants import LogLevel
from ._fastmq import _set_log

# As the module `logging` has them, which is imported only when somebody asks for the log.
_LEVELS = {LogLevel.ERROR: 40, LogLevel.WARN: 30, LogLevel.INFO: 20, LogLevel.DEBUG: 10}


def set_log(
    level: LogLevel, on_log: Callable[[LogLevel, str, str], object] | None = None
) -> None:
    """Sets what gets the lines of the log up to ``level``; ``LogLevel.OFF``: nothing does.

    ``on_log`` gets the level, the target and the text, on any thread. Without it the lines go to
    ``logging.getLogger("fastmq." + target)``. One function for the process; the one that was set
    before may still be running on another thread when this returns.

    Raises Misuse.
    """
    level = LogLevel(level)
    if level is LogLevel.OFF:
        _set_log(0, None)
        return
    if on_log is None:
        from logging import getLogger

        def write(level: int, target: str, text: str) -> None:
            getLogger(f"fastmq.{target}").log(_LEVELS[LogLevel(level)], "%s", text)

        _set_log(level, write)
        return
    if not callable(on_log):
        raise TypeError(f"on_log is a function, not {type(on_log).__name__}")
    said = on_log

    def say(level: int, target: str, text: str) -> None:
        said(LogLevel(level), target, text)

    _set_log(level, say)
