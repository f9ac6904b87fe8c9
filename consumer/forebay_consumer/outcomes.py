"""From a batch to one outcome per record, however the forward pass goes. Pure.

A pass that raises is first read for its kind. What may pass by itself is run again, with a wait between. What the
device could not hold is cut smaller, and remembered. Anything else is halved and run again until the culprit is alone:
at most 2·⌈log2(n)⌉ + 1 passes for one culprit among n items. Every other item gets its ordinary result.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from forebay_consumer.ceiling import Ceiling, Part
from forebay_consumer.detail import Detail, tell
from forebay_consumer.errors import BatchError, FatalError, OutOfMemory
from forebay_consumer.frames import forget_frames, free_frames
from forebay_consumer.record import Item
from forebay_consumer.retries import Retries
from forebay_schemas import Code

T = TypeVar("T")

_SENTENCES: Final = {
    Code.MODEL_ERROR: "the model failed on this request",
    Code.OUT_OF_MEMORY: "this request does not fit into memory, even alone",
}


class Failed(Exception):
    """This one item has no result.

    Attributes:
        code: what the client is told.
        attempts: how often the pass was run that ended so; 0 when it never was.
    """

    def __init__(self, code: Code, message: str, attempts: int = 1) -> None:
        super().__init__(message)
        self.code = code
        self.attempts = attempts


def never(_items: Sequence[Item]) -> Mapping[int, str]:
    """Nothing lapses."""
    return {}


def unheard(_error: Exception, _attempt: int) -> None:
    """Nobody is told."""


class Settler(Generic[T]):
    """Settles batches of one instance, one after the other.

    Args:
        run: one pass over some of the items; gives one value per item, in order, or raises.
        retries: what is run again.
        ceiling: what the instance's device holds.
        lapsed: asked before every pass; why some items are not worth one any more, by place.
        retrying: told of what a pass raised before it is run again, and which attempt that was.
        detail: how much of an exception the client is told.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[T]],
        retries: Retries,
        ceiling: Ceiling,
        lapsed: Callable[[Sequence[Item]], Mapping[int, str]] = never,
        retrying: Callable[[Exception, int], None] = unheard,
        detail: Detail = "message",
    ) -> None:
        self._run = run
        self._retries = retries
        self._ceiling = ceiling
        self._lapsed = lapsed
        self._retrying = retrying
        self._detail = detail
        self._too_large: list[Part] | None = None  # inside a part that failed: those in it that no item explains

    def settle(self, items: Sequence[Item], attempt: int = 1) -> list[T | Failed]:
        """Run `items`, and give each what `run` gives for it, or its failure, in order.

        Args:
            attempt: how often these items, with others perhaps, will have been tried; splitting does not raise it.
        Raises:
            FatalError: from `run`, or from a wait that the end of the worker cut short; nothing may be concluded about
                any item.
        """
        outcomes: dict[int, T | Failed] = {}
        left = self._live(items, attempt, outcomes)
        while left:
            part = self._ceiling.first(left)  # one at a time: what it cannot hold, the next is not even tried with
            if len(part.items) == len(items):
                return self._part(part, attempt)
            outcomes.update(zip(map(id, part.items), self._part(part, attempt), strict=True))
            left = self._live(left[len(part.items) :], attempt, outcomes)
        return [outcomes[id(item)] for item in items]

    def _live(self, items: Sequence[Item], attempt: int, outcomes: dict[int, T | Failed]) -> Sequence[Item]:
        """The items that are still worth a pass; the others get their outcome."""
        lapsed = self._lapsed(items)
        if not lapsed:
            return items
        for place, why in lapsed.items():
            outcomes[id(items[place])] = Failed(Code.EXPIRED, f"{why} before it could be run", attempt - 1)
        return [item for place, item in enumerate(items) if place not in lapsed]

    def _part(self, part: Part, attempt: int) -> list[T | Failed]:
        try:
            values = list(self._run(part.items))
        except FatalError:
            raise
        except Exception as raised:
            error = raised
            free_frames(error)
        else:
            self._ceiling.fitted(part)
            return [*values]
        # Outside of `except`, which would keep the failed pass alive while smaller ones need its memory.
        if isinstance(error, OutOfMemory):
            return self._smaller(part, error, attempt)
        if self._retries.allow(error, attempt):
            self._retrying(error, attempt)
            forget_frames(error)
            self._retries.wait(attempt)
            return self.settle(part.items, attempt + 1)
        if len(part.items) == 1:
            return [self._failed(error, attempt)]
        forget_frames(error)
        middle = (len(part.items) + 1) // 2
        return self.settle(part.items[:middle], attempt) + self.settle(part.items[middle:], attempt)

    def _smaller(self, part: Part, error: OutOfMemory, attempt: int) -> list[T | Failed]:
        if len(part.items) == 1:
            return [self._failed(error, attempt)]
        forget_frames(error)
        known, around = self._ceiling.remember(), self._too_large
        self._too_large = []
        self._ceiling.failed(part)
        settled = self.settle(part.items, attempt)
        within = self._too_large
        if any(isinstance(outcome, Failed) and outcome.code is Code.OUT_OF_MEMORY for outcome in settled):
            # One item does not even fit alone: it explains the failure, and the size of the batch does not.
            self._ceiling.restore(known)
            for other in within:
                self._ceiling.failed(other)
        else:
            within.append(part)
        self._too_large = None if around is None else [*around, *within]
        return settled

    def _failed(self, error: Exception, attempt: int) -> Failed:
        # The exception's own text may hold paths or parts of requests: the log has its stack, the client what it may.
        code = error.code if isinstance(error, BatchError) else Code.MODEL_ERROR
        failed = Failed(code, tell(_SENTENCES[code], error, self._detail), attempt)
        failed.__cause__ = error
        return failed


def split_rows(outputs: Sequence[Any], items: Sequence[Item]) -> list[Sequence[Any]]:
    """Give each item the outputs of its own rows, in order."""
    if len(outputs) == len(items) and type(outputs) is list:  # a row each, as mostly
        return [[output] for output in outputs]
    split, start = [], 0
    for item in items:
        split.append(outputs[start : start + len(item.rows)])
        start += len(item.rows)
    return split
