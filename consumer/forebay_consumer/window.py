"""What makes a batch. Pure: knows neither Kafka nor torch nor threads, and is told the time."""

import math
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby
from operator import attrgetter
from typing import Final

from forebay_consumer.company import Company
from forebay_consumer.record import Claim, Item, Record

MOST_MARKERS: Final = 4
"""A gap of so many offsets may be the ends of transactions, of which there will be more; a larger one is not."""

NO_ENDS: Final[Mapping[Claim, int]] = {}
claim_of: Final = attrgetter("record.claim")
latest_of: Final = attrgetter("latest_s")


class Trigger(StrEnum):
    """Why a batch closed."""

    SIZE = "size"  # no further row fits
    COST = "cost"  # a further row would exceed the cost
    PREFERRED = "preferred"  # a preferred size is reached
    LINGER = "linger"  # the oldest item has waited long enough, or one that expires has
    COMPANY = "company"  # waiting for company does not pay
    DRAIN = "drain"  # the worker takes no more; there is nothing to wait for


@dataclass(frozen=True, slots=True)
class Batch:
    """Items that share one forward pass.

    The oldest waiting item is among them, unless it lingers and they are full, or one of them expires.

    Attributes:
        rows: rows of all items together.
        padded_cost: rows × the largest cost of a row; of packed rows the sum of their costs.
    """

    items: Sequence[Item]
    trigger: Trigger
    rows: int
    padded_cost: int


@dataclass(frozen=True, slots=True)
class Rules:
    """When a batch closes.

    Attributes:
        max_rows: rows per batch; an item that has more alone still goes, alone.
        linger_s: how long the oldest item waits for company, from its record's `since_s`; from its own arrival in the
            window while more of the log is on its way, for a record of a backlog has waited long before it is polled.
        adaptive: it waits so long only while more of the log is on its way, or while waiting pays, see `company`.
        preferred: row counts at which a batch goes at once; each at most `max_rows`.
        max_cost: bound on the cost with its padding, or None; an item that exceeds it alone still goes, alone.
        lookahead: how many batches' worth of rows are looked at for companions near in cost, or packed in order.
    """

    max_rows: int = 32
    linger_s: float = 0.02
    adaptive: bool = False
    preferred: Sequence[int] = ()
    max_cost: int | None = None
    lookahead: int = 4


class Window:
    """Decoded items that wait, in order of arrival.

    `take` and `due_s` are pulled by whoever has a free instance; their `ends` tell how far each partition goes that can
    send more in. Not thread-safe: `Feed` holds the lock.

    Args:
        follows: remember how far each assignment came in; without, nobody asks with `ends`.
    """

    def __init__(self, rules: Rules, follows: bool = True) -> None:
        self._rules = rules
        self._follows = follows
        self._waiting: deque[Item] = deque()
        self._rows = 0
        self._expiring = 0  # how many of them expire
        self._reached: dict[Claim, int] = {}  # highest offset that came in, and one
        self._markers: dict[Claim, int] = {}  # offsets that were left out at the last gap, where they were few
        self._company = Company() if rules.adaptive else None
        self._draining = False
        self._packs = False

    @property
    def rows(self) -> int:
        return self._rows

    @property
    def max_rows(self) -> int:
        return self._rules.max_rows

    def add(self, items: Sequence[Item]) -> None:
        if items and self._company is not None:
            self._company.came(items[0].ready_s, len(items), sum([item.total_cost for item in items]))
        self._waiting.extend(items)
        self._rows += sum([len(item.rows) for item in items])
        self._expiring += sum([item.latest_s < math.inf for item in items])
        if self._follows:
            for claim, of_claim in groupby(items, claim_of):
                self._past(claim, [item.record.offset for item in of_claim])
        if True in [item.record.alone for item in items]:
            # Its turn came when nothing else of its kind was inside, and its lock runs out.
            self._waiting = deque(sorted(self._waiting, key=lambda item: not item.record.alone))

    def passed(self, records: Iterable[Record]) -> None:
        """These were polled and do not come in: nobody waits for them."""
        if self._follows:
            for record in records:
                self._past(record.claim, [record.offset])

    def _past(self, claim: Claim, offsets: Sequence[int]) -> None:
        reached = self._reached.get(claim, offsets[0])
        gap = offsets[0] - reached
        if gap < 0:  # chunks overtook each other, or a part of one did not come in: what seemed left out was not
            self._markers.pop(claim, None)
        elif 0 < gap <= MOST_MARKERS:
            self._markers[claim] = gap
        self._reached[claim] = max(reached, max(offsets) + 1)

    def ran(self, batch: Batch, seconds: float) -> None:
        """So long took a batch, from `take` until it was over, without an error."""
        if self._company is not None:
            self._company.ran(batch.padded_cost, seconds)

    def drain(self) -> None:
        """From now on nothing lingers: whatever waits is taken at once."""
        self._draining = True

    def bound(self, max_rows: int, max_cost: int | None) -> None:
        """From now on a batch has at most these; an item that has more rows alone still goes, alone."""
        self._rules = replace(self._rules, max_rows=max_rows, max_cost=max_cost)

    def pack(self) -> None:
        """From now on rows cost what they cost alone, and go in order of arrival: the model pads nothing."""
        self._packs = True

    def drop(self, gone: Callable[[Claim], bool]) -> list[Item]:
        """Remove and return the items whose partition is gone."""
        self._reached = {claim: past for claim, past in self._reached.items() if not gone(claim)}
        self._markers = {claim: count for claim, count in self._markers.items() if not gone(claim)}
        dropped = [item for item in self._waiting if gone(item.record.claim)]
        if dropped:
            self._waiting = deque(item for item in self._waiting if not gone(item.record.claim))
            self._left(dropped)
        return dropped

    def due_s(self, ends: Mapping[Claim, int] = NO_ENDS) -> float | None:
        """The moment at which some item need wait no longer, or None when nothing waits."""
        if not self._waiting:
            return None
        return min(self._lingered_s(ends), self._alone_s(ends), self._first_to_expire().latest_s)

    def _lingered_s(self, ends: Mapping[Claim, int]) -> float:
        oldest = self._waiting[0]
        if oldest.record.alone:
            return -math.inf  # no other may join it
        since_s = oldest.record.since_s
        return (max(oldest.ready_s, since_s) if self._coming(ends) else since_s) + self._rules.linger_s

    def _first_to_expire(self) -> Item:
        return min(self._waiting, key=latest_of) if self._expiring else self._waiting[0]

    def _alone_s(self, ends: Mapping[Claim, int]) -> float:
        """The moment from which company is not worth the wait."""
        if self._company is None or self._coming(ends):
            return math.inf
        return self._company.until_s(len(self._waiting))

    def _coming(self, ends: Mapping[Claim, int]) -> bool:
        """More of the log is on its way. So seem records that never come in, but for as many as were missing before."""
        reached, markers = self._reached, self._markers
        return any(end > reached.get(claim, end) + markers.get(claim, 0) for claim, end in ends.items())

    def take(self, now: float, ends: Mapping[Claim, int] = NO_ENDS) -> Batch | None:
        """The next batch, or None while waiting for company is still right."""
        if not self._waiting:
            return None
        if not self._packs and (count := self._equals()):
            chosen = [self._waiting.popleft() for _ in range(count)]
            self._left(chosen)
            return Batch(chosen, Trigger.SIZE, self._rules.max_rows, self._rules.max_rows * chosen[0].cost)
        head = self._head()
        chosen, full = self._fill(head)
        trigger = full or self._patience(chosen, now, ends)
        if trigger is None:
            chosen, trigger = self._full_behind(head)
        looked_at = len(head)
        if trigger is None and (hurried := self._first_to_expire()).latest_s <= now:
            chosen, full = self._fill([item for item in self._waiting if item.key == hurried.key])
            trigger, looked_at = full or Trigger.LINGER, len(self._waiting)
        if trigger is None:
            return None
        if trigger is Trigger.PREFERRED:
            chosen = self._preferred(chosen)
        self._remove(chosen, looked_at)
        rows = sum(len(item.rows) for item in chosen)
        if self._packs:
            return Batch(chosen, trigger, rows, sum(item.total_cost for item in chosen))
        return Batch(chosen, trigger, rows, rows * max(item.cost for item in chosen))

    def _equals(self) -> int:
        """How many of the oldest items fill a batch to the row while equal in key and cost; 0 where they do not.

        What the choice below would be, without looking further.
        """
        oldest, max_rows = self._waiting[0], self._rules.max_rows
        key, cost, rows = oldest.key, oldest.cost, 0
        if self._rows < max_rows or (self._rules.max_cost is not None and max_rows * cost > self._rules.max_cost):
            return 0
        for count, item in enumerate(self._waiting, start=1):
            rows += len(item.rows)
            if item.cost != cost or item.key != key or rows > max_rows:
                return 0
            if rows == max_rows:
                return count
        return 0

    def _head(self) -> list[Item]:
        """The items within `lookahead` batches' worth of rows of the oldest, whether or not they can join it."""
        head: list[Item] = []
        rows = 0
        for item in self._waiting:
            if rows >= self._rules.lookahead * self._rules.max_rows:
                break
            head.append(item)
            rows += len(item.rows)
        return head

    def _fill(self, head: Sequence[Item]) -> tuple[list[Item], Trigger | None]:
        return self._next(head) if self._packs else self._choose(head)

    def _full_behind(self, head: Sequence[Item]) -> tuple[list[Item], Trigger | None]:
        """A full batch of another key, which need not wait until the oldest item has lingered."""
        alike: dict[Hashable, list[Item]] = {}
        for item in head:
            alike.setdefault(item.key, []).append(item)
        del alike[head[0].key]
        for waiting in alike.values():
            chosen, full = self._fill(waiting)
            if full is not None:
                return chosen, full
        return [], None

    def _next(self, head: Sequence[Item]) -> tuple[list[Item], Trigger | None]:
        """As `_choose`, for a model that packs: the oldest compatible items, up to the first that does not fit."""
        chosen: list[Item] = []
        rows = cost = 0
        for item in head:
            if item.key != head[0].key:
                continue
            more_rows, more_cost = rows + len(item.rows), cost + item.total_cost
            if chosen and more_rows > self._rules.max_rows:
                return chosen, Trigger.SIZE
            if chosen and self._rules.max_cost is not None and more_cost > self._rules.max_cost:
                return chosen, Trigger.COST
            chosen.append(item)
            rows, cost = more_rows, more_cost
        if rows >= self._rules.max_rows:
            return chosen, Trigger.SIZE
        full = self._rules.max_cost is not None and cost >= self._rules.max_cost
        return chosen, Trigger.COST if full else None

    def _choose(self, head: Sequence[Item]) -> tuple[list[Item], Trigger | None]:
        """The oldest item and the compatible ones nearest to it in cost, as many as fit.

        Returns:
            The items in order of arrival, and what kept further ones out: SIZE, COST, or None when nothing did.
        """
        oldest = head[0]
        rows, largest = len(oldest.rows), oldest.cost
        companions = [item for item in head[1:] if item.key == oldest.key]
        if any(item.cost != oldest.cost for item in companions):
            companions.sort(key=lambda item: abs(item.cost - oldest.cost))  # stable: among equals the older first
        chosen = {id(oldest)}
        full: Trigger | None = None
        for item in companions:
            if rows >= self._rules.max_rows:
                break
            if rows + len(item.rows) > self._rules.max_rows:
                full = full or Trigger.SIZE
                continue
            cost = max(largest, item.cost)
            if self._rules.max_cost is not None and (rows + len(item.rows)) * cost > self._rules.max_cost:
                full = full or Trigger.COST
                continue
            rows, largest = rows + len(item.rows), cost
            chosen.add(id(item))
        if rows >= self._rules.max_rows:
            full = Trigger.SIZE
        elif self._rules.max_cost is not None and rows * largest >= self._rules.max_cost:
            full = full or Trigger.COST
        return [item for item in head if id(item) in chosen], full

    def _patience(self, chosen: Sequence[Item], now: float, ends: Mapping[Claim, int]) -> Trigger | None:
        if self._draining:
            return Trigger.DRAIN
        if now >= self._lingered_s(ends):
            return Trigger.LINGER
        if self._rules.preferred and self._preferred(chosen):
            return Trigger.PREFERRED
        return Trigger.COMPANY if now >= self._alone_s(ends) else None

    def _preferred(self, chosen: Sequence[Item]) -> list[Item]:
        """The longest run of `chosen` whose rows are exactly a preferred size; empty when there is none."""
        best: list[Item] = []
        rows = 0
        for count, item in enumerate(chosen, start=1):
            rows += len(item.rows)
            if rows in self._rules.preferred:
                best = list(chosen[:count])
        return best

    def _remove(self, chosen: Sequence[Item], looked_at: int) -> None:
        taken = {id(item) for item in chosen}
        left = [item for item in (self._waiting.popleft() for _ in range(looked_at)) if id(item) not in taken]
        self._waiting.extendleft(reversed(left))
        self._left(chosen)

    def _left(self, items: Sequence[Item]) -> None:
        """These wait no more."""
        self._rows -= sum([len(item.rows) for item in items])
        if self._expiring:
            self._expiring -= sum([item.latest_s < math.inf for item in items])
