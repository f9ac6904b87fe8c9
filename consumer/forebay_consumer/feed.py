"""The window with its lock: preprocess puts items in, free instances pull batches out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from threading import Condition

from forebay_consumer.clock import Clock, monotonic
from forebay_consumer.expiry import Expiry
from forebay_consumer.record import Claim, Item, Record
from forebay_consumer.window import NO_ENDS, Batch, Window, claim_of


class Feed:
    """Thread-safe.

    Args:
        takes: whether items of an assignment may still be started.
        ends: how far each partition goes, as far as more of it can come in, given how many rows wait here.
        expiry: what expires waits for company for half of the time that is left to it.
    """

    def __init__(
        self,
        window: Window,
        takes: Callable[[Claim], bool],
        clock: Clock = monotonic,
        ends: Callable[[int], Mapping[Claim, int]] = lambda _: NO_ENDS,
        *,
        expiry: Expiry,
    ) -> None:
        self._window = window
        self._takes = takes
        self._ends = ends
        self._clock = clock
        self._expiry = expiry
        self._has_ttl = expiry.ttl_s is not None
        self._changed = Condition()
        self._closed = False

    @property
    def max_rows(self) -> int:
        """Most rows that a batch has now, but for an item that has more alone."""
        return self._window.max_rows

    @property
    def rows(self) -> int:
        """How many rows wait for a batch."""
        return self._window.rows

    def put(self, items: Sequence[Item]) -> list[Item]:
        """Let items wait; gives back those whose partition was revoked in the meantime."""
        now = self._clock()
        with self._changed:
            kept: list[Item] = []
            refused: list[Item] = []
            for claim, of_claim in groupby(items, claim_of):
                (kept if self._takes(claim) else refused).extend(of_claim)
            for item in kept:
                item.ready_s = now
                if self._has_ttl or item.envelope.deadline_s is not None:
                    item.latest_s = now + self._expiry.left_s(item.record, item.envelope) / 2
            self._window.add(kept)
            self._changed.notify_all()
        return refused

    def passed(self, records: Iterable[Record]) -> None:
        """These were polled and are answered otherwise, or were before: see `Window.passed`."""
        with self._changed:
            self._window.passed(records)
            self._changed.notify_all()

    def pull(self) -> Batch | None:
        """Block until a batch is due; None once closed."""
        with self._changed:
            while not self._closed:
                now = self._clock()
                ends = self._ends(self._window.rows)
                batch = self._window.take(now, ends)
                if batch is not None:
                    return batch
                due = self._window.due_s(ends)
                self._changed.wait(None if due is None else max(0.0, due - now))
        return None

    def ran(self, batch: Batch, seconds: float) -> None:
        """So long took a batch, from `pull` until its outcomes were handed on, without an error."""
        with self._changed:
            self._window.ran(batch, seconds)

    def drop(self) -> list[Item]:
        """Remove what waits of partitions that may no longer be started."""
        with self._changed:
            return self._window.drop(lambda claim: not self._takes(claim))

    def drain(self) -> None:
        """Nothing more will come: what waits goes at once."""
        with self._changed:
            self._window.drain()
            self._changed.notify_all()

    def bound(self, max_rows: int, max_cost: int | None) -> None:
        """What was found to be the best size of a batch: see `Window.bound`."""
        with self._changed:
            self._window.bound(max_rows, max_cost)
            self._changed.notify_all()

    def pack(self) -> None:
        """The model, which is loaded by now, pads nothing: see `Window.pack`."""
        with self._changed:
            self._window.pack()
            self._changed.notify_all()

    def close(self) -> None:
        """Let `pull` return None, whatever waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
