"""SIGTERM and SIGINT: the first asks the worker to drain, a second ends the process at once, and so does time."""

import os
import signal
import socket
import sys
import threading
from types import FrameType, TracebackType
from typing import Final, Self

from forebay_consumer.clock import Clock, monotonic

EXIT_AT_ONCE: Final = 130
EXIT_TOO_LATE: Final = 1
GRACE_S: Final = 1.0  # beyond the deadline, to leave the group: the next owner then need not wait for a session to end

_STOPS: Final = (signal.SIGTERM, signal.SIGINT)


class Shutdown:
    """Whether, and until when, the worker drains. Thread-safe."""

    def __init__(self, within_s: float, clock: Clock = monotonic) -> None:
        self._within_s = within_s
        self._clock = clock
        self._deadline_s: float | None = None
        self._asked = threading.Event()

    @property
    def asked(self) -> bool:
        return self._asked.is_set()

    @property
    def left_s(self) -> float:
        """Seconds until draining must end; infinite while nobody asked."""
        return float("inf") if self._deadline_s is None else max(0.0, self._deadline_s - self._clock())

    def wait(self, timeout_s: float) -> bool:
        """Whether somebody asks within that time."""
        return self._asked.wait(timeout_s)

    def ask(self) -> None:
        """Begin to drain; again has no effect."""
        if self._deadline_s is None:
            self._deadline_s = self._clock() + self._within_s
            self._asked.set()


class Signals:
    """Turns SIGTERM and SIGINT into `Shutdown.ask`, and a second one, or the deadline, into an immediate end.

    A thread of its own acts on them: Python's handlers wait for the main thread, which the Kafka client may hold for
    as long as no broker answers. A child that a model forks has none of this: a signal ends it, and tells us nothing.
    """

    def __init__(self, shutdown: Shutdown) -> None:
        self._shutdown = shutdown
        self._thread = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._wakeup_before = -1
        self._entered = False

    def __enter__(self) -> Self:
        self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in _STOPS:
            signal.signal(number, _noted)
        self._entered = True
        os.register_at_fork(after_in_child=self._forget)  # there is no way to take that back
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number in _STOPS:
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(self._wakeup_before)
        self._entered = False
        self._writer.close()
        self._thread.join()
        self._reader.close()

    def _forget(self) -> None:
        """In a child, which shares the socket."""
        if self._entered:
            signal.set_wakeup_fd(-1)
            for number in _STOPS:
                signal.signal(number, signal.SIG_DFL)

    def _watch(self) -> None:
        # No clean-up at either end: nothing unanswered is committed, and the next owner runs it again.
        while True:
            self._reader.settimeout(self._shutdown.left_s + GRACE_S if self._shutdown.asked else None)
            try:
                received = self._reader.recv(1)
            except TimeoutError:
                sys.stderr.write("forebay-consumer: limits.shutdown_ms is over and something still hangs; ended\n")
                sys.stderr.flush()
                os._exit(EXIT_TOO_LATE)
            if not received:
                return
            if received[0] not in _STOPS:
                continue
            if self._shutdown.asked:
                os._exit(EXIT_AT_ONCE)
            self._shutdown.ask()


def _noted(_number: int, _frame: FrameType | None) -> None:
    """With a handler of any kind the signal's number is written to the wake-up socket, which is all we need."""
