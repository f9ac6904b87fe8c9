"""The end of a record that ends whoever runs it, in a share group: by the broker's count of deliveries. Pure.

After its last delivery the broker drops a record without a word. So a record on one of its last deliveries is not
run: it is answered `poison` and kept as a dead letter. The count rises for all records that a dying process held, so
the culprit may be another one. So what was handed out often is let in one at a time, each when the broker was told of
the one before: what is answered before the culprit's turn comes is out of its reach.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence

import structlog

from forebay_consumer.feed import Feed
from forebay_consumer.flow import Flow
from forebay_consumer.locks import Locks
from forebay_consumer.metrics import Metrics
from forebay_consumer.record import Claim, Fault, Record
from forebay_schemas import Code, read_request


def answered_from(limit: int) -> int:
    """The delivery from which on a record is answered unrun, of `limit` that the broker allows (2 or more).

    The last; of 5 or more the one before it: should a process die while it answers, the broker hands it out once more.
    """
    return limit - 1 if limit >= 5 else limit


def runs_alone(delivery: int, limit: int) -> bool:
    """Whether a record has spent so many deliveries that its next pass should hold no other.

    From there on the broker, too, hands it out with ever fewer neighbours [measured: of 10 deliveries the sixth brings
    half of the batch, the next a quarter, ..., the last one record].
    """
    return 2 * delivery > limit


def poisoned(record: Record) -> Fault:
    """The answer to a record that is not run any more."""
    envelope, _ = read_request(record)
    message = (
        f"the request was handed out {record.delivery} times and never answered: its worker died or was too slow each "
        "time, perhaps of another request that was handed out with it; it was not run again"
    )
    return Fault(record, envelope, Code.POISON, message, "delivery", record.delivery)


class LockKeeper:
    """Ends records under their locks, and closes what has been held for too long. Thread-safe, but for `sweep`."""

    def __init__(self, locks: Locks, flow: Flow, feed: Feed, metrics: Metrics) -> None:
        self._locks = locks
        self._flow = flow
        self._feed = feed
        self._metrics = metrics
        self._log = structlog.get_logger()

    def answered(self, records: Sequence[Record]) -> None:
        self._locks.done(records)
        self._flow.leave(records)

    def give_up(self, records: Sequence[Record], reason: str) -> None:
        del reason  # whoever met it, it was released
        if records:
            self._locks.drop(records)
            self._flow.leave(records)
            self._metrics.dropped.labels("released").inc(len(records))

    def forget(self, records: Sequence[Record], reason: str) -> None:
        self.give_up(records, reason)

    def sweep(self) -> None:
        """Release what is not started of polls whose locks have run for too long. On the intake's thread."""
        if not self._locks.overdue():
            return
        unstarted = [item.record for item in self._feed.drop()]
        if unstarted:
            self._locks.stall()
            self.give_up(unstarted, "lock")
            self._log.warning(
                "released what was not started in time: write requests in producer batches of at most max_batch_size",
                action="released",
                records=len(unstarted),
            )


class Deliveries:
    """Lets in what is not on its last deliveries. On the intake's thread."""

    opening = False

    def __init__(self, locks: Locks, feed: Feed, keeper: LockKeeper) -> None:
        self._locks = locks
        self._feed = feed
        self._keeper = keeper
        self._waiting: deque[Record] = deque()  # to be run alone
        self._apart: list[Record] = []  # let in, and to be told before the next of those that wait

    @property
    def suspicious(self) -> bool:
        return bool(self._waiting)

    choosing = False

    def held(self) -> int:
        return 0  # nothing is committed; what waits here waits for the one that runs alone

    def unread(self) -> Collection[Claim] | None:
        return None

    def admit(self, records: Iterable[Record]) -> tuple[list[Record], list[Record]]:
        """Those on their last deliveries at once; else what is to run alone waits for its turn."""
        run: list[Record] = []
        poison: list[Record] = []
        for record in records:
            (poison if record.last else self._waiting if record.alone else run).append(record)
        self._apart = [record for record in self._apart if self._locks.untold(record)] + poison
        if self._waiting:
            self._release_closing()
        if self._waiting and not self._apart:
            self._apart = [self._waiting.popleft()]
            run += self._apart
        return run, poison

    def reached(self, positions: Mapping[Claim, int]) -> None:
        """A share group has no positions."""

    def finish(self) -> list[Record]:
        self._locks.finish()
        waiting, self._waiting = self._waiting, deque()
        return [*waiting, *(item.record for item in self._feed.drop())]

    def _release_closing(self) -> None:
        gone = [record for record in self._waiting if not self._locks.takes(record.claim)]
        if gone:
            self._waiting = deque(record for record in self._waiting if self._locks.takes(record.claim))
            self._keeper.give_up(gone, "lock")
