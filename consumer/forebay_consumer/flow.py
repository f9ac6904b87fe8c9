"""How much may be inside the worker at once: rows and bytes from poll to confirmed reply."""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Condition, Lock

from forebay_consumer.record import Record


@dataclass(frozen=True, slots=True)
class Room:
    """What may still be polled; nothing when either is 0."""

    rows: int
    bytes: int

    def __bool__(self) -> bool:
        return self.rows > 0 and self.bytes > 0


class Flow:
    """Counts what is inside. One record that alone exceeds the bytes is let in when nothing else is there."""

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._room = Condition(self._lock)
        self._empty = Condition(self._lock)  # apart, that who waits for it is not woken by each that leaves
        self._rows = 0
        self._bytes = 0

    @property
    def rows(self) -> int:
        return self._rows

    @property
    def bytes(self) -> int:
        return self._bytes

    def room(self) -> Room:
        with self._lock:
            return Room(self._max_rows - self._rows, self._max_bytes - self._bytes)

    def wait_for_room(self, timeout_s: float) -> Room:
        """Block until there is room, at most `timeout_s`."""
        with self._lock:
            self._room.wait_for(lambda: self._rows < self._max_rows and self._bytes < self._max_bytes, timeout_s)
            return Room(self._max_rows - self._rows, self._max_bytes - self._bytes)

    def wait_empty(self, timeout_s: float) -> None:
        """Block until nothing is inside, at most `timeout_s`."""
        with self._lock:
            self._empty.wait_for(lambda: not self._rows, timeout_s)

    def enter(self, records: Sequence[Record]) -> None:
        """Count polled records, each as one row until it is decoded."""
        with self._lock:
            self._rows += sum([record.rows for record in records])
            self._bytes += sum([record.size for record in records])

    def widen(self, record: Record, rows: int) -> None:
        """Correct a record's rows once they are known."""
        if rows == record.rows:
            return
        with self._lock:
            self._rows += rows - record.rows
            record.rows = rows

    def leave(self, records: Sequence[Record]) -> None:
        """Count records out: answered, or given up."""
        with self._lock:
            self._rows -= sum([record.rows for record in records])
            self._bytes -= sum([record.size for record in records])
            self._room.notify_all()
            if not self._rows:
                self._empty.notify_all()
