"""How much one device holds, learned from what it could not. Pure.

Memory grows with rows × the longest row, and for attention faster than that with the longest row. So what is learned is
a padded cost, and it is kept apart for rows of about equal cost: those whose largest lies between the same two powers
of two. A model that packs its rows pads nothing, and runs long rows apart: there it is the sum of the costs, whatever
the rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from forebay_consumer.record import Item

PATIENCE: Final = 32
MAX_PATIENCE: Final = 4096


@dataclass(frozen=True, slots=True)
class Part:
    """Items for one pass.

    Attributes:
        cost: with its padding.
        size: the power of two that names rows of about this cost; 0 for packed rows.
        full: the bound kept the next item out; only such a part tells whether more could be held.
    """

    items: Sequence[Item]
    cost: int
    size: int
    full: bool = False


@dataclass(frozen=True, slots=True)
class Bound:
    """What is known for rows of one size, in padded cost.

    Attributes:
        allowed: most that is run.
        bad: least that did not fit; None once as much has fitted.
        good: most that has fitted.
        streak: full parts that fitted since `allowed` changed.
        patience: the streak after which more is tried. Doubles with every try that fails: where memory is simply
            short, failures become rare; where it was short for a moment, the first tries come soon.
    """

    allowed: int
    bad: int | None
    good: int = 0
    streak: int = 0
    patience: int = PATIENCE

    def failed(self, cost: int) -> "Bound":
        bad = cost if self.bad is None else min(cost, self.bad)
        tried_more = self.good and cost > self.good
        patience = min(2 * self.patience, MAX_PATIENCE) if tried_more else self.patience
        good = self.good if self.good < cost else 0  # as much has fitted before: others use the memory now
        return Bound(max(good, bad // 2), bad, good, patience=patience)

    def fitted(self, cost: int, *, full: bool) -> "Bound":
        known = replace(self, good=max(self.good, cost))
        if self.bad is not None and cost >= self.bad:
            known = replace(known, bad=None, patience=PATIENCE)
        if not full:
            return known
        known = replace(known, streak=known.streak + 1)
        return known if known.streak < known.patience else replace(known, allowed=known.next_allowed(), streak=0)

    def next_allowed(self) -> int:
        """One step more: half-way to what failed; with nothing left between, that once again, and so on."""
        if self.bad is not None and self.bad > self.allowed:
            return (self.allowed + self.bad + 1) // 2
        return self.allowed + max(1, self.allowed // 4)


class Ceiling:
    """What one instance has learned. Not thread-safe: an instance has its own."""

    def __init__(self) -> None:
        self._bounds: dict[int, Bound] = {}
        self._packs = False

    def pack(self) -> None:
        """From now on the model pads nothing."""
        self._packs = True

    def first(self, items: Sequence[Item]) -> Part:
        """The first of `items`, as many as are not known to be too much; always at least one."""
        if not self._bounds:
            return self._whole(items)
        rows = largest = total = cost = size = 0
        for count, item in enumerate(items):
            rows, largest, total = rows + len(item.rows), max(largest, item.cost), total + item.total_cost
            more_cost, more_size = (total, 0) if self._packs else (rows * largest, largest.bit_length())
            if count and not self._holds(more_cost, more_size):
                # A longer row may have met the bound of *its* size; that says nothing about this one's.
                return Part(items[:count], cost, size, full=more_size == size)
            cost, size = more_cost, more_size
        return Part(items, cost, size)

    def _whole(self, items: Sequence[Item]) -> Part:
        if self._packs:
            return Part(items, sum([item.total_cost for item in items]), 0)
        largest = max([item.cost for item in items])
        return Part(items, sum([len(item.rows) for item in items]) * largest, largest.bit_length())

    def _holds(self, cost: int, size: int) -> bool:
        bound = self._bounds.get(size)
        return bound is None or cost <= bound.allowed

    def failed(self, part: Part) -> None:
        """The device could not hold this part, which has several items: from now on it would be cut."""
        bound = self._bounds.get(part.size) or Bound(part.cost, None)
        self._bounds[part.size] = bound.failed(part.cost)

    def fitted(self, part: Part) -> None:
        bound = self._bounds.get(part.size)
        if bound is not None:
            self._bounds[part.size] = bound.fitted(part.cost, full=part.full)

    def remember(self) -> Mapping[int, Bound]:
        """What is known now, for `restore`."""
        return dict(self._bounds)

    def restore(self, known: Mapping[int, Bound]) -> None:
        """Unlearn what came since: something else explains it."""
        self._bounds = dict(known)
