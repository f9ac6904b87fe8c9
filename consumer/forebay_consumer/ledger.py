"""Which records are answered, and hence which offsets may be committed. Pure, but for one lock.

Per assignment (`Claim`) of a partition the ledger knows the records that were taken from Kafka, in offset order.
The *watermark* is the offset below which all of them are answered. Offsets may have holes (transaction markers,
compaction): the watermark steps from one delivered record to the next and never counts on +1.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from threading import Condition

from forebay_consumer.record import Claim, Record


class _Partition:
    """One assignment. `open` holds what the watermark has not passed; `uncovered` what no accepted commit covers."""

    __slots__ = ("accepted", "asked", "done", "in_flight", "open", "position", "uncovered")

    def __init__(self, start: int) -> None:
        self.position = start  # next offset to commit once `open` is empty
        self.asked = start  # last offset given out for a commit
        self.accepted = start  # last offset that the broker acknowledged
        self.open: deque[int] = deque()
        self.uncovered: deque[int] = deque()
        self.done: set[int] = set()
        self.in_flight = 0

    @property
    def watermark(self) -> int:
        return self.open[0] if self.open else self.position

    def settle(self) -> None:
        while self.open and self.open[0] in self.done:
            self.done.remove(self.open.popleft())


class Ledger:
    """Thread-safe. The intake thread opens, takes and commits; the replies thread marks records done."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._partitions: dict[Claim, _Partition] = {}
        self._revoking: frozenset[Claim] = frozenset()
        self._uncovered = 0

    @property
    def uncovered(self) -> int:
        """Records taken that no accepted commit covers yet: what a crash now would run again."""
        return self._uncovered

    def open(self, claim: Claim, start: int) -> None:
        """Begin an assignment at offset `start`, below which nothing concerns this worker."""
        with self._changed:
            self._partitions[claim] = _Partition(start)

    def owns(self, claim: Claim) -> bool:
        """Whether results of this assignment may still be published."""
        return claim in self._partitions

    def takes(self, claim: Claim) -> bool:
        """Whether records of this assignment may still be started: it is neither gone nor being revoked."""
        return claim in self._partitions and claim not in self._revoking

    def take(self, records: Iterable[Record]) -> None:
        """Note records polled from Kafka, in offset order per partition, before anything else sees them."""
        with self._changed:
            for record in records:
                partition = self._partitions.get(record.claim)
                if partition is None:
                    continue
                partition.open.append(record.offset)
                partition.uncovered.append(record.offset)
                partition.position = record.next_offset
                partition.in_flight += 1
                self._uncovered += 1

    def advance(self, claim: Claim, position: int) -> None:
        """Note the consumer's position, which is past transaction markers that are never delivered."""
        with self._changed:
            partition = self._partitions.get(claim)
            if partition is not None and not partition.open:
                partition.position = max(partition.position, position)

    def done(self, records: Iterable[Record]) -> None:
        """Mark records answered: the broker has confirmed their replies. Ignores those of an ended assignment."""
        with self._changed:
            touched = set()
            for record in records:
                partition = self._partitions.get(record.claim)
                if partition is None:
                    continue
                partition.done.add(record.offset)
                partition.in_flight -= 1
                touched.add(record.claim)
            for claim in touched:
                self._partitions[claim].settle()
            self._changed.notify_all()

    def drop(self, records: Iterable[Record]) -> None:
        """Give records up unanswered: they are no longer in flight, and the watermark never passes them."""
        with self._changed:
            for record in records:
                partition = self._partitions.get(record.claim)
                if partition is not None:
                    partition.in_flight -= 1
            self._changed.notify_all()

    def commits(self) -> Mapping[Claim, int]:
        """Watermarks that moved since they were last given out."""
        with self._changed:
            moved = {}
            for claim, partition in self._partitions.items():
                watermark = partition.watermark
                if watermark > partition.asked:
                    moved[claim] = partition.asked = watermark
            return moved

    def watermarks(self, claims: Iterable[Claim]) -> Mapping[Claim, int]:
        """Watermarks beyond what the broker acknowledged, whether or not they were given out before."""
        with self._changed:
            return {
                claim: partition.watermark
                for claim in claims
                if (partition := self._partitions.get(claim)) is not None and partition.watermark > partition.accepted
            }

    def accepted(self, claim: Claim, offset: int) -> None:
        """Note that the broker acknowledged a commit of `offset`."""
        with self._changed:
            partition = self._partitions.get(claim)
            if partition is None or offset <= partition.accepted:
                return
            partition.accepted = offset
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

    def revoking(self, claims: Collection[Claim]) -> None:
        """From now on nothing of these assignments is started; what is in flight may still be answered."""
        with self._changed:
            self._revoking |= frozenset(claims)

    def wait_answered(self, claims: Collection[Claim], timeout_s: float) -> bool:
        """Block until nothing of these assignments is in flight, at most `timeout_s`; tells whether that is so."""

        def answered() -> bool:
            return all(self._partitions[claim].in_flight == 0 for claim in claims if claim in self._partitions)

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
