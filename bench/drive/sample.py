"""What the driver saw of one run."""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bench import reference

CHECKED: Final = 16
"""Rows of a load whose answers are compared with the model's own."""


class NotAnswered(Exception):
    """The contender did not answer, or not in time, or wrongly; the message says what, in one line."""


@dataclass(frozen=True)
class Plan:
    """One closed loop: at most `count` requests, none sent later than `for_s` after the first; all must be answered."""

    in_flight: int
    count: int
    for_s: float = 60.0
    within_s: float = 60.0


@dataclass
class Work:
    """The rows that go round, and what the model says to some of them."""

    load: str
    dtype: str
    rows: Sequence[Any]
    expected: Mapping[int, Sequence[float]]


@dataclass
class Tally:
    """Requests under way and answered. Not thread-safe.

    `waiting` is filled by `ask` and emptied by `take`: the requests' own count in this run, by their ids.
    """

    work: Work
    answer: Callable[[str, bytes], Any]
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    sent: int = 0
    latencies_s: list[float] = field(default_factory=list)
    waiting: dict[str, tuple[int, float]] = field(default_factory=dict)
    checked: int = 0

    def ask(self) -> tuple[str, Any]:
        """The next request's id and row; its time runs from now."""
        number, self.sent = self.sent, self.sent + 1
        request_id = f"{self.run}-{number}"
        self.waiting[request_id] = (number, time.perf_counter())
        return request_id, self.work.rows[number % len(self.work.rows)]

    def take(self, request_id: str, body: bytes) -> bool:
        """Whether it answers a request of this run for the first time.

        Raises:
            NotAnswered: it is an error, or not what the model says to this row.
        """
        found = self.waiting.pop(request_id, None)
        if found is None:
            return False
        number, asked = found
        self.latencies_s.append(time.perf_counter() - asked)
        expected = self.work.expected.get(number % len(self.work.rows))
        if expected is not None or b'"error"' in body[:200]:
            self._check(body, expected)
        return True

    def _check(self, body: bytes, expected: Sequence[float] | None) -> None:
        try:
            given = self.answer(self.work.load, body)
        except (ValueError, KeyError, TypeError) as error:
            raise NotAnswered(str(error)[:200]) from error
        self.checked += 1
        if expected is not None and not reference.agrees(self.work.load, given, expected, self.work.dtype):
            raise NotAnswered(f"not the model's answer: {str(given)[:100]}")


def checked_rows(count: int) -> list[int]:
    """Places of the rows that are checked: `CHECKED` of them, spread over all."""
    checked = min(CHECKED, count)
    return [place * count // checked for place in range(checked)]
