"""Which records are answered, and hence which offsets may be committed. Pure, but for one lock.

Per assignment (`Claim`) of a partition the ledger knows the records that were taken from Kafka, in offset order.
The *watermark* is the offset below which all of them are answered. Offsets may have holes (transaction markers,
compaction): the watermark steps from one delivered record to the next and never counts on +1.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import groupby, islice
from operator import attrgetter
from threading import Condition
from typing import Final, NamedTuple

from forebay_consumer.progress import Range
from forebay_consumer.record import Claim, Record

MAX_RANGES: Final = 1000  # more would not fit beside an offset
_ALL: Final = 2**63
_claim = attrgetter("claim")


class Mark(NamedTuple):
    """A watermark, and what is answered beyond it, in ascending order."""

    offset: int
    done: tuple[Range, ...] = ()


class _Partition:
    """One assignment. `open` holds what is not settled; `uncovered` what no accepted commit covers."""

    __slots__ = (
        "accepted",
        "answered",
        "asked",
        "done",
        "earlier",
        "in_flight",
        "news",
        "open",
        "position",
        "ready",
        "uncovered",
    )

    def __init__(self, start: int, answered: Collection[Range]) -> None:
        self.earlier = tuple(answered)  # by an earlier owner, from `start` on
        self.answered = deque(answered)  # the same, emptied as the position passes them
        self.position = start  # next offset to commit once `open` is empty
        self.asked = start  # last offset given out for a commit
        self.accepted = start  # last offset that the broker acknowledged
        self.open: deque[int] = deque()
        self.uncovered: deque[int] = deque()
        self.done: set[int] = set()
        self.news = False  # something is done beyond the watermark that was not given out yet
        self.in_flight = 0
        self.ready = 0  # of those in flight, how many wait for nothing but a transaction

    @property
    def watermark(self) -> int:
        return next((offset for offset in self.open if offset not in self.done), self.position)

    def mark(self, transactional: bool) -> Mark:
        watermark = self.watermark
        ranges = self._earlier(watermark) if transactional else self._ranges()
        return Mark(watermark, tuple(islice(ranges, MAX_RANGES)))

    def was_answered(self, offset: int) -> bool:
        while self.answered and self.answered[0].past <= offset:
            self.answered.popleft()
        return bool(self.answered) and self.answered[0].first <= offset

    def _ranges(self) -> Iterator[Range]:
        """Runs of answered records, then those of the earlier owner that the position has not reached."""
        if self.done:
            first = last = None
            for offset in self.open:
                if offset in self.done:
                    first, last = offset if first is None else first, offset
                elif first is not None and last is not None:
                    yield Range(first, last + 1)
                    first = None
            if first is not None and last is not None:
                yield Range(first, last + 1)
        for first, past in self.answered:
            if past > self.position:
                yield Range(max(first, self.position), past)

    def _earlier(self, watermark: int) -> Iterator[Range]:
        """What an earlier owner answered beyond the watermark: our own results there are not published yet."""
        return (Range(max(first, watermark), past) for first, past in self.earlier if past > watermark)

    def settle(self, past: int = _ALL) -> None:
        """Forget what is done from the beginning on, below `past`."""
        while self.open and self.open[0] < past and self.open[0] in self.done:
            self.done.remove(self.open.popleft())


class Ledger:
    """Thread-safe. The intake thread opens and takes, the replies thread marks records done; either commits.

    Args:
        transactional: a record is done when its answer is at hand, since answers and offset become visible in one
            step; then what lies below a mark is what the next transaction carries, and ranges beyond it are not said.
    """

    def __init__(self, transactional: bool = False) -> None:
        self.transactional = transactional
        self._changed = Condition()
        self._partitions: dict[Claim, _Partition] = {}
        self._revoking: frozenset[Claim] = frozenset()
        self._uncovered = 0

    @property
    def uncovered(self) -> int:
        """Records taken that no accepted commit covers yet: what a crash now would run again."""
        return self._uncovered

    def open(self, claim: Claim, start: int, answered: Collection[Range] = ()) -> None:
        """Begin an assignment at offset `start`, below which nothing concerns this worker.

        Args:
            answered: what an earlier owner has answered from there on, in ascending order.
        """
        with self._changed:
            self._partitions[claim] = _Partition(start, answered)

    def owns(self, claim: Claim) -> bool:
        """Whether results of this assignment may still be published."""
        return claim in self._partitions

    def takes(self, claim: Claim) -> bool:
        """Whether records of this assignment may still be started: it is neither gone nor being revoked."""
        return claim in self._partitions and claim not in self._revoking

    def take(self, records: Iterable[Record]) -> list[Record]:
        """Note records polled from Kafka, in offset order per partition, before anything else sees them.

        Returns:
            Those that nobody has answered yet.
        """
        unanswered: list[Record] = []
        with self._changed:
            for claim, of_claim in groupby(records, _claim):
                partition = self._partitions.get(claim)
                if partition is None:
                    continue
                taken = list(of_claim)
                offsets = [record.offset for record in taken]
                partition.open.extend(offsets)
                partition.uncovered.extend(offsets)
                self._uncovered += len(offsets)
                partition.position = taken[-1].next_offset
                if partition.answered:
                    known = {offset for offset in offsets if partition.was_answered(offset)}
                    taken = [record for record in taken if record.offset not in known]
                    partition.done |= known
                    if not self.transactional:
                        partition.settle()
                partition.in_flight += len(taken)
                unanswered += taken
        return unanswered

    def advance(self, claim: Claim, position: int) -> None:
        """Note the consumer's position, which is past transaction markers that are never delivered."""
        with self._changed:
            partition = self._partitions.get(claim)
            if partition is not None and not partition.open:
                partition.position = max(partition.position, position)

    def done(self, records: Iterable[Record]) -> None:
        """Mark records answered: the broker has confirmed their replies. Ignores those of an ended assignment."""
        with self._changed:
            for claim, of_claim in groupby(records, _claim):
                partition = self._partitions.get(claim)
                if partition is None:
                    continue
                offsets = [record.offset for record in of_claim]
                partition.done.update(offsets)
                partition.in_flight -= len(offsets)
                partition.settle()
                partition.news = bool(partition.done)
            self._changed.notify_all()

    def ready(self, records: Iterable[Record]) -> None:
        """Mark records done whose answers wait for the next transaction; they stay in flight."""
        with self._changed:
            for record in records:
                partition = self._partitions.get(record.claim)
                if partition is not None and record.offset not in partition.done:
                    partition.done.add(record.offset)
                    partition.ready += 1
            self._changed.notify_all()

    def withdraw(self, records: Iterable[Record]) -> None:
        """Take `ready` back: these answers are not to be in the next transaction, nor what comes after them."""
        with self._changed:
            for record in records:
                partition = self._partitions.get(record.claim)
                if partition is not None and record.offset in partition.done:
                    partition.done.remove(record.offset)
                    partition.ready -= 1

    def published(self, records: Iterable[Record]) -> None:
        """Count out records whose answers were `ready`, and went in a transaction."""
        with self._changed:
            for record in records:
                if (partition := self._partitions.get(record.claim)) is not None:
                    partition.in_flight -= 1
                    partition.ready -= 1
            self._changed.notify_all()

    def drop(self, records: Iterable[Record]) -> None:
        """Give records up unanswered: they are no longer in flight, and the watermark never passes them."""
        with self._changed:
            for record in records:
                partition = self._partitions.get(record.claim)
                if partition is not None:
                    partition.in_flight -= 1
            self._changed.notify_all()

    def moved(self) -> list[Claim]:
        """Assignments whose mark moved since it was last given out."""
        with self._changed:
            return [
                claim
                for claim, partition in self._partitions.items()
                if partition.watermark > partition.asked or partition.news
            ]

    def marks(self, claims: Iterable[Claim]) -> Mapping[Claim, Mark]:
        """Give out what may be committed now of these assignments, whether or not it moved."""
        with self._changed:
            marks = {}
            for claim in claims:
                partition = self._partitions.get(claim)
                if partition is not None:
                    marks[claim] = mark = partition.mark(self.transactional)
                    partition.asked = mark.offset
                    partition.news = False
            return marks

    def accepted(self, claim: Claim, offset: int) -> None:
        """Note that the broker acknowledged a commit of `offset`."""
        with self._changed:
            partition = self._partitions.get(claim)
            if partition is None or offset <= partition.accepted:
                return
            partition.accepted = offset
            partition.settle(offset)
            while partition.uncovered and partition.uncovered[0] < offset:
                partition.uncovered.popleft()
                self._uncovered -= 1
            self._changed.notify_all()

    def refused(self, claim: Claim) -> None:
        """Note that a commit failed: the watermark is given out again."""
        with self._changed:
            partition = self._partitions.get(claim)
            if partition is not None:
                partition.asked = partition.accepted
                partition.news = bool(partition.done) and not self.transactional

    def revoking(self, claims: Collection[Claim]) -> None:
        """From now on nothing of these assignments is started; what is in flight may still be answered."""
        with self._changed:
            self._revoking |= frozenset(claims)

    def wait_answered(self, claims: Collection[Claim], timeout_s: float, held: int = 0) -> bool:
        """Block until nothing of these assignments is in flight but `held` records, at most `timeout_s`.

        What is `ready` is not waited for: it may lie beyond a record that was given up, and never go.

        Returns:
            Whether that is so.
        """

        def answered() -> bool:
            found = (self._partitions[claim] for claim in claims if claim in self._partitions)
            return sum(partition.in_flight - partition.ready for partition in found) <= held

        with self._changed:
            return self._changed.wait_for(answered, timeout_s)

    def close(self, claims: Collection[Claim]) -> None:
        """End assignments: late results of theirs are ignored from now on."""
        with self._changed:
            for claim in claims:
                partition = self._partitions.pop(claim, None)
                if partition is not None:
                    self._uncovered -= len(partition.uncovered)
            self._revoking -= frozenset(claims)
            self._changed.notify_all()

    def settled(self) -> bool:
        """Whether the broker acknowledged every watermark."""
        with self._changed:
            return all(partition.watermark <= partition.accepted for partition in self._partitions.values())
