"""SIGTERM and SIGINT: the first asks the worker to drain, a second ends the process at once."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Final, Self

from forebay_consumer.clock import Clock, monotonic

EXIT_AT_ONCE: Final = 130


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

    def ask(self) -> None:
        """Begin to drain; again has no effect."""
        if self._deadline_s is None:
            self._deadline_s = self._clock() + self._within_s
            self._asked.set()


class Signals:
    """Turns SIGTERM and SIGINT into `Shutdown.ask`, and a second one into an immediate end of the process."""

    def __init__(self, shutdown: Shutdown) -> None:
        self._shutdown = shutdown

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._received)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)

    def _received(self, _number: int, _frame: FrameType | None) -> None:
        if self._shutdown.asked:
            # No clean-up: nothing unanswered is committed, and the next owner runs it again.
            os._exit(EXIT_AT_ONCE)
        self._shutdown.ask()
