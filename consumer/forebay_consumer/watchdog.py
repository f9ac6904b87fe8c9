"""Ends the process when a forward pass hangs.

A pass cannot be interrupted from outside: it may sit in C and hold the interpreter lock, so that no Python code runs in
this process any more, signal handlers included. `faulthandler` needs no lock: its thread prints the stacks of all
threads to standard error and exits non-zero. Nothing unanswered was committed; the group hands the partitions on.
"""

import faulthandler
import threading
from collections.abc import Callable
from typing import Final

import structlog

from forebay_consumer.clock import Clock, monotonic

SOONEST_S: Final = 0.001  # faulthandler takes no 0


def _exit_after(seconds: float) -> None:
    faulthandler.dump_traceback_later(seconds, exit=True)


class Watchdog:
    """One for all instances of a process, as `faulthandler` has one timer. Thread-safe.

    Args:
        limit_s: most time for one pass, or None for no limit.
        start: lets the process end after so many seconds, instead of what it was told before.
        cancel: takes that back.
    """

    def __init__(
        self,
        limit_s: float | None,
        start: Callable[[float], None] = _exit_after,
        cancel: Callable[[], None] = faulthandler.cancel_dump_traceback_later,
        clock: Clock = monotonic,
    ) -> None:
        self._limit_s = limit_s
        self._start = start
        self._cancel = cancel
        self._clock = clock
        self._lock = threading.Lock()
        self._deadlines: dict[int, float] = {}
        self._set_s: float | None = None  # the deadline that the timer stands for

    def arm(self, instance: int) -> None:
        """A pass of this instance begins."""
        if self._limit_s is None:
            return
        with self._lock:
            self._deadlines[instance] = self._clock() + self._limit_s
            self._follow()

    def disarm(self, instance: int) -> None:
        """It has ended."""
        with self._lock:
            if self._deadlines.pop(instance, None) is not None:
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
        except RuntimeError as error:  # no thread to be had; the pass itself may still go well
            self._set_s = None
            structlog.get_logger().error("no watchdog for this pass", action="watchdog_failed", error=str(error))
