"""The history of a run: one file of JSON lines, and the checker that hears every event as it is written."""

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from soak.history import Checker, Event, Note, Report, Rules, to_line


class Recorder:
    """Thread-safe. A context manager; leaving it closes the file."""

    def __init__(self, file: Path, mode: str) -> None:
        self._file = file.open("w")
        self._lock = threading.Lock()
        self._checker = Checker(Rules.of(mode))
        self._began = time.monotonic()
        self.notes: list[str] = []

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def take(self, *events: Event) -> None:
        """Write events down in this order, next to each other, and let the checker judge them."""
        with self._lock:
            now = self.elapsed_s
            self._file.writelines(to_line(event, now) + "\n" for event in events)
            for event in events:
                self._checker.take(event)

    def note(self, what: str, **detail: Any) -> None:
        """Write down what happened around the requests; shown to people, ignored by the checker."""
        shown = "  ".join(f"{key} {value}" for key, value in detail.items())
        self.notes.append(f"{self.elapsed_s:7.1f} s  {what}{'  ' + shown if shown else ''}")
        self.take(Note(what, detail))

    @property
    def unanswered(self) -> int:
        with self._lock:
            return self._checker.unanswered

    def total(self, kind: str) -> int:
        """Events of this kind so far."""
        return self._checker.totals.get(kind, 0)

    def report(self) -> Report:
        with self._lock:
            return self._checker.report()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
