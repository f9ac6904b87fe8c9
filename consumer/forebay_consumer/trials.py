"""Which records may be let in, so that one that kills the process is found, and no other blamed. Pure, but for a lock.

A segmentation fault or the kernel's memory killer leaves no exception behind: all that remains of a life is what it
had committed. So nothing is let in before the broker has acknowledged a commit that says `open`, and nothing at or
above the `hi` of that commit. Whoever takes a partition over and finds it still open has a dead predecessor: the
unanswered records below `hi` are *suspects*. While a process has any, it lets in one record at a time over all its
partitions, and each suspect only after a commit that names it as on trial was acknowledged. A record that was on
trial in `max_lives` lives already is not run again. Nothing else is evidence against a record: not a death shared
with others, not a watermark that stands still.

A process that loses a partition and gets it back finds its own claim. Nobody died, so nobody is suspect but who was
before; yet records of the lost assignment may be running still, so what is claimed never shrinks. Another that gets it
cannot know that nobody died. Where it was cut off itself a moment before, as all are in an outage, it takes the
predecessor for one that was too: its records are suspects, and its trial is no evidence.

An attempt counter per partition would convict innocents: tests/unit/consumer/test_trials_simulation.py.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from threading import Lock
from typing import Final, NamedTuple

from forebay_consumer.ledger import Mark
from forebay_consumer.progress import Progress, Trial
from forebay_consumer.record import Claim, Record

_NEVER: Final = -1
_EVER: Final = 2**62
_claim = attrgetter("claim")


@dataclass(slots=True, eq=False)
class _Partition:
    """One assignment.

    Attributes:
        position: below it everything was polled, or is never delivered.
        suspects_end: records below it were perhaps seen by a process that died.
        found: the trial that the predecessor had committed, until its record is seen.
        inherited: the same, for good.
        trial: the trial that is going on, or is asked for.
        standing: the trial that stands in the last commit, for all we know.
        told: what the last acknowledged commit said; none yet when None.
        asked_hi: the highest `hi` asked for. Never less is asked while records go in: commits may overtake each other.
        asking: a commit is on its way.
        held: polled and not let in, in order.
        let_in: highest offset let in, and one.
        let_in_then: the same at the last acknowledgement.
        inside: how many are let in and not ended.
    """

    position: int
    suspects_end: int
    found: Trial | None
    inherited: Trial | None = field(init=False)
    let_in: int
    let_in_then: int
    trial: Trial | None = None
    standing: Trial | None = None
    told: Progress | None = None
    asked_hi: int = 0
    asking: bool = False
    inside: int = 0
    held: deque[Record] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.inherited = self.found

    @property
    def stale(self) -> bool:
        """Whether a trial that is over still stands in the last commit: a death now would count against its record."""
        return self.standing is not None and self.standing != (self.trial or self.found)

    @property
    def suspicious(self) -> bool:
        if self.trial is not None or self.stale or self.position < self.suspects_end:
            return True
        return bool(self.held) and self.held[0].offset < self.suspects_end

    @property
    def holds_suspect(self) -> bool:
        """Whether the next trial of it is of a record that is held."""
        if self.found is not None and self.position <= self.found.offset:
            return False
        return bool(self.held) and self.held[0].offset < self.suspects_end

    @property
    def acknowledged_hi(self) -> int:
        return _NEVER if self.told is None or not self.told.open else self.told.hi


class _Left(NamedTuple):
    """What is remembered of a partition that went: who was suspect, and the evidence of earlier lives."""

    suspects_end: int
    found: Trial | None


class Trials:
    """Thread-safe: `ended` and what concerns commits may be called from other threads, all else on the intake's.

    Args:
        max_lives: lives that one record may end while it runs alone.
        ahead: how far `hi` is claimed beyond what was let in, at least; as much as may be inside, so that none waits.
        at_most: where given, it tells what is claimed instead: so many beyond the commit's offset, over all partitions
            that have anything to run. Fewer are then suspect after a death, and more wait for a commit.
        life: the id of this process, by which it knows its own claims; empty to take them for another's.
    """

    def __init__(self, max_lives: int, ahead: int, life: str = "", at_most: Callable[[], int] | None = None) -> None:
        self._max_lives = max_lives
        self._ahead = ahead
        self._at_most = at_most
        self._life = life
        self._left: dict[tuple[str, int], _Left] = {}
        self._survived: dict[tuple[str, int], set[int]] = {}  # since it was opened: what ran alone or late, to its end
        self._convicts: set[tuple[Claim, int]] = set()  # inside, to be answered unrun
        self._lock = Lock()
        self._partitions: dict[Claim, _Partition] = {}
        self._inside = 0  # records let in and not ended
        self._suspicious = False
        self._finishing = False

    @property
    def suspicious(self) -> bool:
        """Whether one record at a time is let in."""
        return self._suspicious

    @property
    def choosing(self) -> bool:
        """Whether the next trial waits for a record to be polled.

        Not while one is chosen or runs, nor before the commit that takes back one that is over, nor where the next
        suspect is held: what is polled beyond the room for it would stay.
        """
        with self._lock:
            everyone = self._partitions.values()
            if self._inside or any(partition.trial is not None or partition.stale for partition in everyone):
                return False
            first = [partition for partition in everyone if partition.found is not None]
            return not any(partition.holds_suspect for partition in first or everyone)

    @property
    def busy(self) -> bool:
        return self._inside > 0

    def open(self, claim: Claim, start: int, found: Progress, end: int, outage: bool = False) -> None:
        """Begin an assignment.

        Args:
            start: the committed offset.
            found: what stood beside it.
            end: the end of the partition now: later records were not there when a predecessor died.
            outage: we were cut off from the group a moment ago, so the predecessor may have been, too, and live.
        """
        with self._lock:
            place = claim.topic, claim.partition
            left, survived = self._left.pop(place, None), self._survived.pop(place, ())
            if left is not None and found.life and found.life == self._life:
                suspects_end, trial = max(start, left.suspects_end), left.found
                asked_hi = found.hi
            else:
                suspects_end, trial = min(found.hi, end) if found.open else start, found.trial
                asked_hi = 0
                if outage and trial is not None:
                    trial = Trial(trial.offset, trial.lives - 1) if trial.lives > 1 else None
            if trial is not None and (trial.offset >= suspects_end or trial.offset in survived):
                trial = None  # it is over, or the log ends before it; or it has run here, and nobody died
            partition = _Partition(start, suspects_end, trial, start, start, asked_hi=asked_hi)
            partition.standing = found.trial
            self._partitions[claim] = partition
            self._look()

    def close(self, claims: Collection[Claim]) -> list[Record]:
        """End assignments; gives back what was held of them."""
        with self._lock:
            held: list[Record] = []
            for claim in claims:
                partition = self._partitions.pop(claim, None)
                if partition is not None:
                    held += partition.held
                    if partition.suspicious:
                        left = _Left(partition.suspects_end, partition.inherited)
                    else:
                        left = _Left(0, None)
                    self._left[claim.topic, claim.partition] = left
            self._look()
            return held

    def held(self, claims: Collection[Claim] | None = None) -> int:
        """How many records of these assignments, or of all, were polled and not let in."""
        with self._lock:
            asked = self._partitions if claims is None else claims
            return sum(len(found.held) for claim in asked if (found := self._partitions.get(claim)) is not None)

    def finish(self) -> list[Record]:
        """Let nothing more in, and say in the next commits that nothing is; gives back what was held."""
        with self._lock:
            self._finishing = True
            held: list[Record] = []
            for partition in self._partitions.values():
                if partition.held:
                    partition.position = partition.held[0].offset  # suspects given back stay suspects
                held += partition.held
                partition.held.clear()
            self._look()
            return held

    def reached(self, positions: Mapping[Claim, int]) -> None:
        """Note how far the partitions were read, past what is never delivered; what was polled is admitted by now.

        Once finishing, it counts no more: what was given back is to be read again.
        """
        with self._lock:
            if self._finishing:
                return
            for claim, position in positions.items():
                partition = self._partitions.get(claim)
                if partition is not None:
                    partition.position = max(partition.position, position)
            self._look()

    def unread(self) -> list[Claim] | None:
        """The assignments to poll; None means all.

        While there are suspects: those with suspects not polled yet. Else: those that are opened.
        """
        with self._lock:
            if self._suspicious:
                return [claim for claim, found in self._partitions.items() if found.position < found.suspects_end]
            opened = [claim for claim, found in self._partitions.items() if found.told is not None]
            return None if len(opened) == len(self._partitions) else opened

    @property
    def opening(self) -> bool:
        """Whether some assignment waits for the acknowledgement of its first commit."""
        with self._lock:
            return any(partition.told is None for partition in self._partitions.values())

    def admit(self, records: Iterable[Record]) -> tuple[list[Record], list[Record]]:
        """Take polled records, in order per partition, and say which are let in now.

        Returns:
            The records to run, and those to answer as poison unrun. The others are held, until a later call.
        """
        with self._lock:
            for claim, of_claim in groupby(records, _claim):
                partition = self._partitions.get(claim)
                if partition is not None:
                    partition.held.extend(of_claim)
                    partition.position = max(partition.position, partition.held[-1].next_offset)
            run, poison = (self._one(), self._convicted()) if self._suspicious else (self._all(), [])
            self._look()
            self._inside += len(run) + len(poison)
            for claim, of_claim in groupby((*run, *poison), _claim):
                self._partitions[claim].inside += len(list(of_claim))
            return run, poison

    def ended(self, records: Iterable[Record], ran: bool = True) -> None:
        """These are over.

        Args:
            ran: to their end, answered or not; else they go to the next owner, and the evidence of earlier lives stays.
        """
        with self._lock:
            for claim, of_claim in groupby(records, _claim):
                ended = [record.offset for record in of_claim]
                self._inside -= len(ended)
                partition = self._partitions.get(claim)
                if partition is not None:
                    partition.inside -= len(ended)
                    if partition.trial is None or partition.trial.offset not in ended:
                        continue
                    ended = [partition.trial.offset]
                    partition.trial = None
                    if ran:
                        partition.found = None
                    else:  # it is to be read again, by whoever owns it next
                        partition.position = min(partition.position, ended[0])
                for offset in ended:
                    if (claim, offset) in self._convicts:
                        self._convicts.remove((claim, offset))
                    elif ran:
                        self._survived.setdefault((claim.topic, claim.partition), set()).add(offset)
                        self._acquit(claim, offset)
            if self._suspicious:
                self._look()

    # ---- commits

    def due(self) -> list[Claim]:
        """Assignments for which a commit is wanted at once, whatever the interval says."""
        with self._lock:
            return [
                claim
                for claim, partition in self._partitions.items()
                if not partition.asking and self._wants(partition)
            ]

    def asking(self) -> set[Claim]:
        """Assignments with a commit on its way."""
        with self._lock:
            return {claim for claim, partition in self._partitions.items() if partition.asking}

    def progress(self, claim: Claim, mark: Mark) -> Progress:
        """What a commit of `mark` is to say now; it counts as asked for.

        Raises:
            KeyError: the assignment has ended; so from `parting`.
        """
        with self._lock:
            partition = self._partitions[claim]
            partition.asking = True
            self._forget_answered(partition, mark)
            return self._said(partition, mark)

    def parting(self, claim: Claim, mark: Mark) -> Progress:
        """What the last commit of an assignment says, which a process that lives hands over."""
        with self._lock:
            partition = self._partitions[claim]
            self._forget_answered(partition, mark)
            return self._last(partition, mark)

    def accepted(self, claim: Claim, told: Progress) -> None:
        """The broker acknowledged a commit that said `told`."""
        with self._lock:
            partition = self._partitions.get(claim)
            if partition is not None:
                partition.asking = False
                partition.told = told
                partition.standing = told.trial
                partition.let_in_then = partition.let_in
                self._look()

    def untold(self, claim: Claim) -> None:
        """The broker acknowledged a commit, and keeps nothing beside the offset: go on without trials."""
        with self._lock:
            partition = self._partitions.get(claim)
            if partition is not None:
                partition.asking = False
                partition.standing = partition.trial or partition.found
                partition.told = Progress(not self._finishing, _EVER, partition.standing)

    def refused(self, claim: Claim) -> None:
        with self._lock:
            partition = self._partitions.get(claim)
            if partition is not None:
                partition.asking = False

    def settled(self) -> bool:
        """Once finishing: whether the broker acknowledged for every assignment that nothing is inside."""
        with self._lock:
            return all(not self._wants(partition) for partition in self._partitions.values())

    # ---- inside, under the lock

    def _acquit(self, claim: Claim, offset: int) -> None:
        """A record of a lost assignment ran to its end: where the partition is back, nothing speaks against it."""
        for other, partition in self._partitions.items():
            same = (other.topic, other.partition) == (claim.topic, claim.partition)
            if same and partition.found is not None and partition.found.offset == offset:
                partition.found = None

    def _forget_answered(self, partition: _Partition, mark: Mark) -> None:
        """What was on trial is answered, though it was not seen here."""
        if partition.found is not None and partition.found.offset < mark.offset:
            partition.found = None

    def _look(self) -> None:
        self._suspicious = any(partition.suspicious for partition in self._partitions.values())

    def _wants(self, partition: _Partition) -> bool:
        told = partition.told
        if self._finishing:
            if told is None or told.hi == _EVER:
                return told is None
            over = partition.trial is None and told.trial != (partition.found if partition.suspicious else None)
            return over or told.open != partition.suspicious
        if told is None or told.trial != (partition.trial or partition.found):
            return True
        if self._suspicious:
            return False
        if self._at_most is not None:  # the commit of what is inside claims more; with nothing inside, nobody else will
            return bool(partition.held) and not partition.inside and partition.held[0].offset >= told.hi
        return told.hi - partition.let_in < self._margin(partition) // 2

    def _margin(self, partition: _Partition) -> int:
        # Twice what went in while the last commit was on its way, so that a fast model does not wait for the next.
        return max(self._ahead, 2 * (partition.let_in - partition.let_in_then))

    def _share(self, partition: _Partition, mark: Mark) -> int:
        """What may be claimed of a partition when the whole is bounded; at least what it holds next."""
        busy = sum(bool(one.told is None or one.held or one.inside) for one in self._partitions.values())
        share = mark.offset + max(1, (self._at_most() if self._at_most else 1) // max(1, busy))
        return max(share, partition.held[0].next_offset) if partition.held and not partition.inside else share

    def _said(self, partition: _Partition, mark: Mark) -> Progress:
        if self._finishing:
            return self._last(partition, mark)
        claimed = partition.let_in
        if not self._suspicious:
            claimed = claimed + self._margin(partition) if self._at_most is None else self._share(partition, mark)
        partition.asked_hi = max(partition.asked_hi, partition.suspects_end, partition.let_in, claimed, mark.offset)
        return Progress(True, partition.asked_hi, partition.trial or partition.found, mark.done, self._life)

    def _last(self, partition: _Partition, mark: Mark) -> Progress:
        """Said by a process that lives: a trial that it cut short is no evidence, and who was suspect stays so."""
        hi = partition.suspects_end if partition.suspicious else mark.offset
        found = partition.found if partition.suspicious else None
        return Progress(partition.suspicious, max(hi, mark.offset), found, mark.done, self._life)

    def _all(self) -> list[Record]:
        """What may go in while nobody is suspected."""
        run: list[Record] = []
        if self._finishing:
            return run
        for partition in self._partitions.values():
            hi = partition.acknowledged_hi
            if partition.held and partition.held[-1].offset < hi:  # nearly always: all of them
                run += partition.held
                partition.let_in = partition.held[-1].next_offset
                partition.held.clear()
            while partition.held and partition.held[0].offset < hi:
                record = partition.held.popleft()
                partition.let_in = record.next_offset
                run.append(record)
        return run

    def _one(self) -> list[Record]:
        """The suspect whose trial is acknowledged, if nothing else is inside; else ask for the next trial."""
        if self._inside or self._finishing:
            return []
        for partition in self._partitions.values():
            trial = partition.trial
            if trial is not None:
                if partition.told is None or partition.told.trial != trial:
                    return []
                index = next(i for i, record in enumerate(partition.held) if record.offset == trial.offset)
                record = partition.held[index]
                del partition.held[index]
                partition.let_in = max(partition.let_in, record.next_offset)
                return [record]
        # A record that was on trial when a process died goes first: who kills at random then hardly hits it twice.
        everyone = list(self._partitions.values())
        first = [partition for partition in everyone if partition.found is not None]
        # The next trial of a partition replaces the one that is over; before any other, that one is taken back.
        stale = [partition for partition in everyone if partition.stale]
        for partition in first or everyone:
            if stale and partition not in stale:
                continue
            if (suspect := self._suspect(partition)) is not None:
                partition.trial = suspect
                break
        return []

    def _suspect(self, partition: _Partition) -> Trial | None:
        """The trial to hold next in a partition: that of the predecessor first, since only one can be remembered."""
        offsets = [record.offset for record in partition.held if record.offset < partition.suspects_end]
        found = partition.found
        if found is not None:
            if found.offset in offsets:
                return Trial(found.offset, found.lives + 1) if found.lives < self._max_lives else None
            if partition.position <= found.offset:
                return None  # not polled yet
            partition.found = None
        return Trial(offsets[0], 1) if offsets else None

    def _convicted(self) -> list[Record]:
        """Records that have had their lives; they are answered, not run, so others need not have left."""
        convicted: list[Record] = []
        if self._inside:
            return convicted  # it may be the one that is, of an assignment that was lost
        for claim, partition in self._partitions.items():
            found = partition.found
            if found is None or found.lives < self._max_lives:
                continue
            for index, record in enumerate(partition.held):
                if record.offset == found.offset:
                    del partition.held[index]
                    partition.trial = found  # until it is answered
                    self._convicts.add((claim, found.offset))
                    convicted.append(record)
                    break
        return convicted
