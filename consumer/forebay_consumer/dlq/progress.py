"""Which letters of a partition have been put back, small enough to live in a group's commit. Pure.

A commit holds one offset, `passed`, below which nothing waits, and in its metadata, per kind of letter, the ranges
above in which *every letter of that kind* was put back. Letters of other kinds do not break a range, so putting back
one code of many costs a few bytes, however many letters there are.
"""

from typing import Final

import orjson

from forebay_consumer.dlq.letters import Kind
from forebay_consumer.errors import FatalError

PLANNED_BYTES: Final = 2_000
"""Of the 4,096 that a broker takes by default (`offset.metadata.max.bytes`); the rest is for deliveries that fail."""


class Progress:
    """What has been put back of one partition.

    Attributes:
        passed: below it no letter waits.
    """

    def __init__(self, passed: int = 0) -> None:
        self.passed = passed
        self._ranges: dict[Kind, list[tuple[int, int]]] = {}

    @classmethod
    def read(cls, offset: int, metadata: str | None) -> "Progress":
        """From a commit; a negative offset means that there is none.

        Raises:
            FatalError: the metadata is not ours.
        """
        progress = cls(max(0, offset))
        try:
            for topic, codes in orjson.loads(metadata or "{}").items():
                for code, bounds in codes.items():
                    ranges = list(zip(bounds[::2], bounds[1::2], strict=True))
                    progress._ranges[Kind(topic, code)] = [(int(start), int(end)) for start, end in ranges]
        except (ValueError, TypeError, AttributeError) as error:
            raise FatalError(f"the group's commit was not written by dlq redrive: {metadata!r:.80}") from error
        return progress

    def metadata(self) -> str:
        """For a commit at `passed`."""
        plain: dict[str, dict[str, list[int]]] = {}
        for kind, ranges in self._ranges.items():
            if above := [(max(start, self.passed), end) for start, end in ranges if end > self.passed]:
                plain.setdefault(kind.topic, {})[kind.code] = [bound for bounds in above for bound in bounds]
        return orjson.dumps(plain).decode() if plain else ""

    @property
    def end(self) -> int:
        """Above it nothing was put back."""
        return max([self.passed, *(end for ranges in self._ranges.values() for _, end in ranges)])

    def holds(self, kind: Kind, offset: int) -> bool:
        """Whether the letter of this kind at this offset was put back."""
        return offset < self.passed or any(start <= offset < end for start, end in self._ranges.get(kind, ()))

    def check_room(self) -> None:
        """Make sure that all this can be written down.

        Raises:
            FatalError: it has become too much.
        """
        if (size := len(self.metadata().encode())) > PLANNED_BYTES:
            raise FatalError(
                f"what was put back is too scattered to be noted ({size} bytes, allowed {PLANNED_BYTES}); "
                "put back what lies in between first: leave out --since, --until and --code"
            )

    def add(self, kind: Kind, start: int, end: int) -> None:
        """Note that every letter of this kind within was put back."""
        merged: list[tuple[int, int]] = []
        for bounds in sorted([*self._ranges.get(kind, ()), (start, end)]):
            if merged and bounds[0] <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], bounds[1]))
            else:
                merged.append(bounds)
        self._ranges[kind] = merged


class Scan:
    """One reading of a partition, in the order of its offsets, that says what became of each record."""

    def __init__(self, progress: Progress, start: int, low: int = 0) -> None:
        """Begin at `start`; records below `low` are no longer in the topic."""
        self.progress = progress
        progress.passed = max(progress.passed, low)
        self._start = start
        self._unbroken: dict[Kind, int] = {}  # from there on no letter of the kind was left
        self._left = start > progress.passed  # something below may wait

    def done(self, kind: Kind, offset: int) -> None:
        """The letter was put back, now or before."""
        self.progress.add(kind, self._unbroken.get(kind, self._start), offset + 1)
        self.ignored(offset)

    def ignored(self, offset: int) -> None:
        """The record is none that could ever be put back."""
        if not self._left:
            self.progress.passed = max(self.progress.passed, offset + 1)

    def left(self, kind: Kind, offset: int) -> None:
        """The letter waits for another time."""
        self._unbroken[kind] = offset + 1
        self._left = True

    def reached(self, end: int) -> None:
        """There was nothing more below `end`."""
        self.ignored(end - 1)
