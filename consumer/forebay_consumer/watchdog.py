"""Ends the process when a forward pass, or the preparing of a chunk, hangs.

Neither can be interrupted from outside: it may sit in C and hold the interpreter lock, so that no Python code runs in
this process any more, signal handlers included. `faulthandler` needs no lock: its thread prints the stacks of all
threads to standard error and exits non-zero. Nothing unanswered was committed; the group hands the partitions on.

To set that timer starts a thread, which costs more than a small model's pass. So it is not set for each piece of
work: it stands a little beyond the limit, where it serves the next pieces too, for as long as the difference lasts. A
keeper, a thread in Python, ends the process at the very moment a limit is over; while it cannot run, since the lock is
held, the timer runs out.
"""

import faulthandler
import threading
from collections.abc import Callable, Hashable
from typing import Final

import structlog

from forebay_consumer.clock import Clock, monotonic

SPARE_S: Final = 1.0  # the timer stands so much longer than a limit at least, and twice that at most
LOOK_EVERY_S: Final = 0.5
SOONEST_S: Final = 0.05  # time for a line in the log


def _exit_after(seconds: float) -> None:
    faulthandler.dump_traceback_later(seconds, exit=True)


def _in_background(keep: Callable[[], None]) -> None:
    threading.Thread(target=keep, name="watchdog", daemon=True).start()


class Alarm:
    """One for a process, as `faulthandler` has one timer. Thread-safe.

    A piece of work that outlasts its limit ends the process then. If it holds the interpreter lock, the end comes when
    the least limit of all that runs, and twice `SPARE_S`, have passed since the lock was taken, or sooner.

    Args:
        start: lets the process end after so many seconds, instead of what it was told before.
        cancel: takes that back.
        keeper: runs the function that it is given on a thread of its own.
    """

    def __init__(
        self,
        start: Callable[[float], None] = _exit_after,
        cancel: Callable[[], None] = faulthandler.cancel_dump_traceback_later,
        clock: Clock = monotonic,
        keeper: Callable[[Callable[[], None]], None] = _in_background,
    ) -> None:
        self._start = start
        self._cancel = cancel
        self._clock = clock
        self._keeper = keeper
        self._kept = False  # there is a keeper
        self._over = False
        self._changed = threading.Condition()
        self._running: dict[Hashable, tuple[float, float]] = {}  # deadline and limit
        self._set_s: float | None = None  # when the timer ends the process

    def set(self, what: Hashable, within_s: float) -> None:
        """This must end within so many seconds."""
        with self._changed:
            if not self._kept:
                self._kept = self._started(lambda: self._keeper(self._keep))
            if self._set_s is None:
                self._changed.notify()  # the keeper, which rests
            self._running[what] = (self._clock() + within_s, within_s)
            self._follow()

    def clear(self, what: Hashable) -> None:
        """It has ended, or was never set."""
        with self._changed:
            if self._running.pop(what, None) is None:
                return
            self._follow()
            if not self._kept:
                self.look()

    def look(self) -> float | None:
        """End the process, if a limit is over; gives the seconds until the next look, None for none until `set`."""
        with self._changed:
            if not self._running:
                if self._set_s is not None:
                    self._set_s = None
                    self._cancel()
                return None
            deadline, limit_s = min(self._running.values())
            left_s = deadline - self._clock()
            if left_s > 0:
                return min(left_s, LOOK_EVERY_S)
            self._over = self._stand(self._clock())
            if not self._over:
                return LOOK_EVERY_S  # and tries again
            structlog.get_logger().error("work outlasts its limit, the process ends", action="hung", limit_s=limit_s)
            return None

    def _follow(self) -> None:
        """Move the timer, if it stands too early for what runs, or too late."""
        if self._over or not self._running:
            return
        earliest = min(deadline for deadline, _ in self._running.values())
        latest = self._clock() + min(limit for _, limit in self._running.values()) + 2 * SPARE_S
        if self._set_s is None or not earliest + SPARE_S <= self._set_s <= latest:
            self._stand(latest)

    def _stand(self, moment: float) -> bool:
        self._set_s = moment
        if not self._started(lambda: self._start(max(SOONEST_S, moment - self._clock()))):
            self._set_s = None
        return self._set_s is not None

    def _started(self, start: Callable[[], None]) -> bool:
        """Whether there was a thread to be had; without one, what is watched may still go well."""
        try:
            start()
        except RuntimeError as error:
            structlog.get_logger().error("no watchdog for this", action="watchdog_failed", error=str(error))
            return False
        return True

    def _keep(self) -> None:
        with self._changed:
            while True:
                pause_s = self.look()
                if pause_s is None:
                    self._changed.wait()
                    pause_s = LOOK_EVERY_S
                self._changed.wait(pause_s)


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
