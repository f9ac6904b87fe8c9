"""Ends the process when a forward pass, or the preparing of a chunk, hangs.

Neither can be interrupted from outside: it may sit in C and hold the interpreter lock, so that no Python code runs in
this process any more, signal handlers included. `faulthandler` needs no lock: its thread prints the stacks of all
threads to standard error and exits non-zero. Nothing unanswered was committed; the group hands the partitions on.
"""

import faulthandler
import threading
from collections.abc import Callable, Hashable
from typing import Final

import structlog

from forebay_consumer.clock import Clock, monotonic

SOONEST_S: Final = 0.001  # faulthandler takes no 0


def _exit_after(seconds: float) -> None:
    faulthandler.dump_traceback_later(seconds, exit=True)


class Alarm:
    """One for a process, as `faulthandler` has one timer, and it stands at the earliest deadline. Thread-safe.

    Args:
        start: lets the process end after so many seconds, instead of what it was told before.
        cancel: takes that back.
    """

    def __init__(
        self,
        start: Callable[[float], None] = _exit_after,
        cancel: Callable[[], None] = faulthandler.cancel_dump_traceback_later,
        clock: Clock = monotonic,
    ) -> None:
        self._start = start
        self._cancel = cancel
        self._clock = clock
        self._lock = threading.Lock()
        self._deadlines: dict[Hashable, float] = {}
        self._set_s: float | None = None  # the deadline that the timer stands for

    def set(self, what: Hashable, within_s: float) -> None:
        """This must end within so many seconds."""
        with self._lock:
            self._deadlines[what] = self._clock() + within_s
            self._follow()

    def clear(self, what: Hashable) -> None:
        """It has ended, or was never set."""
        with self._lock:
            if self._deadlines.pop(what, None) is not None:
                self._follow()

    def _follow(self) -> None:
        """Bring the timer to the earliest deadline; leave it where it is already there, it costs a thread each time."""
        earliest = min(self._deadlines.values(), default=None)
        if earliest == self._set_s:
            return
        self._set_s = earliest
        if earliest is None:
            self._cancel()
            return
        try:
            self._start(max(SOONEST_S, earliest - self._clock()))
        except RuntimeError as error:  # no thread to be had; what is watched may still go well
            self._set_s = None
            structlog.get_logger().error("no watchdog for this", action="watchdog_failed", error=str(error))


class Watchdog:
    """Watches one kind of work, on as many threads as do it. Thread-safe.

    Args:
        limit_s: most time for one piece of it, in seconds, or None for no limit.
        alarm: the process's own, which all its watchdogs share.
    """

    def __init__(self, limit_s: float | None, alarm: Alarm) -> None:
        self._limit_s = limit_s
        self._alarm = alarm

    def arm(self, thread: int) -> None:
        """A piece of work begins on this thread, by its number among those of the kind."""
        if self._limit_s is not None:
            self._alarm.set((self, thread), self._limit_s)

    def disarm(self, thread: int) -> None:
        """It has ended."""
        self._alarm.clear((self, thread))
