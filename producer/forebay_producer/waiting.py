"""Requests without an answer: who waits for them, and until when. Knows no Kafka."""

import heapq
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from forebay_producer.errors import ClientClosed, ClientQueueFull, ForebayError
from forebay_schemas import Result

_SPARE: Final = 1024  # deadlines kept beyond their requests before they are cleared away

_log = logging.getLogger("forebay_producer")


@dataclass(eq=False, slots=True)
class Question:
    """One request that waits for its answer.

    Attributes:
        confirmed: the broker has the request; set by its delivery report.
    """

    correlation: bytes
    request_id: str
    timeout_s: float
    deadline: float
    future: "Future[Result]" = field(default_factory=Future)
    confirmed: bool = False


class Waiting:
    """All unanswered requests of a client, at most `limit`. Thread-safe.

    A question leaves once: answered, failed, cancelled or expired, whatever comes first; what comes later is ignored.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._room = threading.Condition()
        self._questions: dict[bytes, Question] = {}
        self._deadlines: list[tuple[float, bytes]] = []
        self._closed = False

    def __len__(self) -> int:
        return len(self._questions)

    def add(self, question: Question, *, patient: bool) -> None:
        """Take in one more; waits for room until its deadline, unless not `patient`.

        Raises:
            ClientQueueFull: there was no room.
            ClientClosed: `close` was called, before or meanwhile.
        """
        with self._room:
            while len(self._questions) >= self._limit and not self._closed:
                left = question.deadline - time.monotonic()
                if left <= 0 or not patient:
                    raise ClientQueueFull(
                        f"{self._limit} requests are unanswered; wait for answers, or raise max_in_flight"
                    )
                self._room.wait(left)
            if self._closed:
                raise ClientClosed("the client is closed")
            self._questions[question.correlation] = question
            heapq.heappush(self._deadlines, (question.deadline, question.correlation))
            if len(self._deadlines) > 2 * len(self._questions) + _SPARE:
                self._deadlines = [(kept.deadline, kept.correlation) for kept in self._questions.values()]
                heapq.heapify(self._deadlines)
        # Not the question, which holds the future: with its answer it would wait for the cycle collector.
        question.future.add_done_callback(partial(self._on_done, question.correlation))

    def take(self, correlation: bytes) -> Question | None:
        """Take one out; None when it has left before, or never was ours."""
        with self._room:
            question = self._questions.pop(correlation, None)
            if question is not None:
                self._room.notify()
            return question

    def expired(self, now: float) -> Iterator[Question]:
        """Take out those whose deadline has passed."""
        while True:
            with self._room:
                if not self._deadlines or self._deadlines[0][0] > now:
                    return
                _, correlation = heapq.heappop(self._deadlines)
            if question := self.take(correlation):
                yield question

    def close(self) -> None:
        """Let nobody in any more."""
        with self._room:
            self._closed = True
            self._room.notify_all()

    def rest(self) -> list[Question]:
        """Take out all."""
        with self._room:
            left, self._questions = list(self._questions.values()), {}
            return left

    def _on_done(self, correlation: bytes, future: "Future[Result]") -> None:
        if future.cancelled():
            self.take(correlation)
            future.set_running_or_notify_cancel()  # or `concurrent.futures.wait` would wait for it for ever


def finish(question: Question, outcome: Result | ForebayError) -> None:
    """Give the caller its answer. A callback of the caller's that raises, even SystemExit, does not get out of here."""
    try:
        with suppress(InvalidStateError):  # cancelled in the meantime
            if isinstance(outcome, ForebayError):
                outcome.request_id = question.request_id
                question.future.set_exception(outcome)
            else:
                question.future.set_result(outcome)
    except BaseException:
        _log.exception("a callback of request %s raised", question.request_id)
