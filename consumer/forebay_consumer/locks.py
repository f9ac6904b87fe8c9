"""Which records a share group has locked to this worker, and how each ends. Pure, but for one lock.

One poll of one share consumer is a `Hold`: its records have been locked since the same moment, and the client allows
the next poll only when each of them is acknowledged. A record ends once: *answered*, to be accepted, or *released*,
to be handed out again. A hold *closes* when it has been open for so long that what is not started would not end in
time: then nothing more of it is started, and what waits is released.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from threading import Condition
from typing import NamedTuple

from forebay_consumer.clock import Clock, monotonic
from forebay_consumer.progress import Commit
from forebay_consumer.record import Claim, Record


class End(Enum):
    """How a record leaves a hold."""

    ANSWERED = "answered"  # its reply is confirmed, and its dead letter where one is owed
    RELEASED = "released"  # it was not started, and never will be by this hold


class Ended(NamedTuple):
    record: Record
    end: End


class Hold:
    """The records of one poll. `ended` is filled by `Locks` and emptied by `Locks.wait`; only `Locks` changes it."""

    __slots__ = ("claims", "closes_s", "closing", "ended", "left")

    def __init__(self, records: Sequence[Record], closes_s: float) -> None:
        self.claims = frozenset(record.claim for record in records)
        self.closes_s = closes_s
        self.closing = False
        self.left = len(records)  # not ended, or ended and not given out by `wait`
        self.ended: list[Ended] = []


class Locks:
    """Thread-safe. Consumers' threads open and close holds, the intake's thread takes, all ends may come from any."""

    def __init__(self, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._changed = Condition()
        self._holds: dict[Claim, Hold] = {}
        self._fresh: deque[Record] = deque()  # polled and not taken
        self._untold: set[tuple[Claim, int]] = set()
        self._stalled = False
        self._polling = 0  # consumers in a poll, or noting what it brought
        self._finishing = False
        self._stopped = False

    # ---- the consumers' side

    def begin_poll(self) -> bool:
        """Whether a consumer may poll; then `end_poll` follows, when what it brought is noted."""
        with self._changed:
            self._polling += not self._finishing
            return not self._finishing

    def end_poll(self) -> None:
        with self._changed:
            self._polling -= 1
            self._changed.notify_all()

    def open(self, records: Sequence[Record], closes_s: float) -> Hold:
        """Note what a poll brought, at least one record, under claims of its own; `take` gives it on.

        Args:
            closes_s: monotonic time from which nothing of it is started; where it is past, all is released at once.
        """
        hold = Hold(records, closes_s)
        with self._changed:
            self._holds.update(dict.fromkeys(hold.claims, hold))
            self._untold.update((record.claim, record.offset) for record in records)
            self._fresh.extend(records)
            hold.closing = self._clock() >= closes_s
            if self._finishing or hold.closing:
                self._release_fresh()
            self._changed.notify_all()
        return hold

    def wait(self, hold: Hold, timeout_s: float) -> list[Ended]:
        """Block until records of the hold have ended, at most `timeout_s`, and give them out, each once."""
        with self._changed:
            self._changed.wait_for(lambda: hold.ended or self._stopped, timeout_s)
            ended, hold.ended = hold.ended, []
            hold.left -= len(ended)
            return ended

    def close(self, hold: Hold) -> None:
        """Forget a hold: the broker has been told of all its records, or nobody ever will."""
        with self._changed:
            for claim in hold.claims:
                self._holds.pop(claim, None)
            self._stalled = self._stalled and bool(self._holds)
            self._changed.notify_all()

    def told(self, ended: Iterable[Ended]) -> None:
        """Note that the broker was told how these records ended."""
        with self._changed:
            self._untold.difference_update((record.claim, record.offset) for record, _ in ended)
            self._changed.notify_all()

    def stop(self) -> None:
        """Let every `wait` return."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    # ---- the worker's side

    @property
    def uncovered(self) -> int:
        """Records polled of whose end the broker was not told yet."""
        return len(self._untold)

    def untold(self, record: Record) -> bool:
        """Whether the broker was not told yet how this record ended, and would hand it out again."""
        return (record.claim, record.offset) in self._untold

    @property
    def stalled(self) -> bool:
        """Whether polling is of no use: what was polled had to be released, and nothing was answered since.

        Each round would take a delivery of records that this worker cannot run.
        """
        return self._stalled

    def fresh(self, timeout_s: float) -> list[Record]:
        """What was polled since the last call; blocks until there is something, at most `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._fresh, timeout_s)
            records = list(self._fresh)
            self._fresh.clear()
            return records

    def take(self, records: Iterable[Record]) -> list[Record]:
        """All of them: nobody else was given these."""
        return list(records)

    def advance(self, claim: Claim, position: int) -> None:
        """A share group has no position."""

    def takes(self, claim: Claim) -> bool:
        hold = self._holds.get(claim)
        return hold is not None and not hold.closing and not self._finishing

    def owns(self, claim: Claim) -> bool:
        """Also when the lock has run out: who has run a request answers it, and at worst it is answered twice."""
        return claim in self._holds

    def done(self, records: Iterable[Record]) -> None:
        """The broker confirmed the replies to these records."""
        self._end(records, End.ANSWERED)
        self._stalled = False

    def drop(self, records: Iterable[Record]) -> None:
        """These are given up unstarted."""
        self._end(records, End.RELEASED)

    def overdue(self) -> bool:
        """Close the holds whose time has come; whether there were any. What waits elsewhere is the caller's to drop."""
        now = self._clock()
        with self._changed:
            late = [hold for hold in set(self._holds.values()) if not hold.closing and now >= hold.closes_s]
            for hold in late:
                hold.closing = True
            if late:
                self._release_fresh()
            return bool(late)

    def stall(self) -> None:
        """Note that something had to be released since it could not be started in time."""
        with self._changed:
            self._stalled = bool(self._holds)

    def finish(self) -> None:
        """From now on nothing is started, and what a poll still brings is released at once."""
        with self._changed:
            self._finishing = True
            self._release_fresh()
            self._changed.notify_all()

    def wait_settled(self, timeout_s: float) -> None:
        """Block until all is settled, or something is to be answered at once, at most `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self.settled() or self._fresh, timeout_s)

    stuck = False

    def settled(self) -> bool:
        return not self._holds and not self._polling

    def due(self, now: float) -> Mapping[Claim, Commit]:
        """A share group commits no offsets."""
        del now
        return {}

    # ---- inside, under the lock

    def _end(self, records: Iterable[Record], end: End) -> None:
        with self._changed:
            for record in records:
                if (hold := self._holds.get(record.claim)) is not None:
                    hold.ended.append(Ended(record, end))
            self._changed.notify_all()

    def _release_fresh(self) -> None:
        """Of those that wait to be taken, end what may no longer be started."""
        waiting: deque[Record] = deque()
        for record in self._fresh:
            hold = self._holds[record.claim]
            # On its last delivery a record is answered, not run; released, it would be gone without a word.
            if (hold.closing or self._finishing) and not record.last:
                hold.ended.append(Ended(record, End.RELEASED))
            else:
                waiting.append(record)
        self._fresh = waiting
        self._changed.notify_all()
