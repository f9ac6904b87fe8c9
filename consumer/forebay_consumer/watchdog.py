"""Ends the process when a forward pass, or the preparing of a chunk, hangs.

Neither can be interrupted from outside: it may sit in C and hold the interpreter lock, so that no Python code runs in
this process any more, signal handlers included. `faulthandler` needs no lock: its thread prints the stacks of all
threads to standard error and exits non-zero. Nothing unanswered was committed; the group hands the partitions on.

To set that timer starts a thread, which costs more than a small model's pass. So it is not set for each piece of
work: it stands a little beyond the longest limit, and a keeper, a thread in Python, puts it off again and again. The
keeper ends the process itself at the moment a limit is over; while it cannot run, since the lock is held, the timer
runs out.
"""

import faulthandler
import math
import threading
from collections.abc import Callable, Hashable
from typing import Final

import structlog

from forebay_consumer.clock import Clock, monotonic

SOONEST_S: Final = 0.001  # faulthandler takes no 0
KEEP_EVERY_S: Final = 1.0


def _exit_after(seconds: float) -> None:
    faulthandler.dump_traceback_later(seconds, exit=True)


def _in_background(keep: Callable[[], None]) -> None:
    threading.Thread(target=keep, name="watchdog", daemon=True).start()


def spare_s(limit_s: float) -> float:
    """How often the keeper looks at work of this limit; twice as long the timer stands beyond it."""
    return min(KEEP_EVERY_S, limit_s / 4)


class Alarm:
    """One for a process, as `faulthandler` has one timer. Thread-safe.

    A piece of work that outlasts its limit ends the process then. If it holds the interpreter lock, that may take as
    long as the longest limit of all that runs, and twice its `spare_s`, from when the lock was taken. Work within its
    limit ends nothing: the timer stands at least `spare_s` beyond all that runs.

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
        self._every_s = math.inf  # between two looks, at most
        self._over = False
        self._changed = threading.Condition()
        self._running: dict[Hashable, tuple[float, float]] = {}  # deadline and limit
        self._set_s: float | None = None  # when the timer ends the process

    def set(self, what: Hashable, within_s: float) -> None:
        """This must end within so many seconds."""
        with self._changed:
            if self._over:
                return
            deadline, spare = self._clock() + within_s, spare_s(within_s)
            self._running[what] = (deadline, within_s)
            if self._every_s == math.inf:
                self._keeper(self._keep)
            if self._set_s is None:
                self._changed.notify()  # the keeper, which rests
            if self._set_s is None or self._set_s < deadline + spare:
                self._stand(deadline + 2 * spare)
            if spare < self._every_s:
                self._every_s = spare
                self._changed.notify()

    def clear(self, what: Hashable) -> None:
        """It has ended, or was never set."""
        with self._changed:
            self._running.pop(what, None)

    def look(self) -> float | None:
        """Put the timer off, or end the process; gives the seconds until the next look, None for none until `set`."""
        with self._changed:
            if not self._running:
                if self._set_s is not None:
                    self._set_s = None
                    self._cancel()
                return None
            now = self._clock()
            earliest = min(deadline for deadline, _ in self._running.values())
            if earliest <= now:
                self._over = True
                self._stand(now)
                return None
            longest = max(limit for _, limit in self._running.values())
            self._stand(now + longest + 2 * spare_s(longest))
            return min(earliest - now, self._every_s)

    def _stand(self, moment: float) -> None:
        self._set_s = moment
        try:
            self._start(max(SOONEST_S, moment - self._clock()))
        except RuntimeError as error:  # no thread to be had; what is watched may still go well
            self._set_s = None
            structlog.get_logger().error("no watchdog for this", action="watchdog_failed", error=str(error))

    def _keep(self) -> None:
        with self._changed:
            while True:
                pause_s = self.look()
                if pause_s is None:
                    self._changed.wait()
                    pause_s = self._every_s  # what has begun now is not over sooner
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
