"""The batches that a worker forms of a backlog. Pure."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from typing import Final

from forebay_consumer.record import Item
from forebay_consumer.window import Batch, Rules, Window

_FEWEST: Final = 8  # batches, of which a few are run
_MOST: Final = 256  # forming them takes time, too
_ROOM: Final = 4  # batches' worth beyond the look-ahead, as in a worker with one copy of the model


def form(items: Sequence[Item], rules: Rules, packs: bool) -> list[Batch]:
    """What the window takes, one after another, while the same items come in over and over.

    All items once at least, or where they would make more than some `_MOST` batches every second, third, ... of them by
    cost, in their order: recorded requests may be in order of length, or short and long in turns. The window always
    holds as much as a worker's would, so no batch is small for want of company.

    Args:
        packs: the model pads nothing.
    """
    window = Window(replace(rules, linger_s=0.0, adaptive=False))
    if packs:
        window.pack()
    items = _some(items, _stride(items, rules))
    room = (rules.lookahead + _ROOM) * rules.max_rows
    wanted = max(sum(len(item.rows) for item in items), _FEWEST * rules.max_rows)
    coming = cycle(items)
    batches: list[Batch] = []
    taken = 0
    while taken < wanted:
        while window.rows < room:
            window.add([replace(next(coming))])  # the window knows items by identity
        batch = window.take(0.0)
        assert batch is not None  # the linger is over at once
        batches.append(batch)
        taken += batch.rows
    return batches


def _some(items: Sequence[Item], stride: int) -> list[Item]:
    by_cost = sorted(range(len(items)), key=lambda place: items[place].total_cost)
    return [items[place] for place in sorted(by_cost[min(stride // 2, len(items) - 1) :: stride])]


def _stride(items: Sequence[Item], rules: Rules) -> int:
    """How many items stand for one, that there be about `_MOST` batches of full size."""
    by_rows = sum(len(item.rows) for item in items) / rules.max_rows
    by_cost = sum(item.total_cost for item in items) / rules.max_cost if rules.max_cost is not None else 0.0
    return max(1, math.ceil(max(by_rows, by_cost) / _MOST))


def spread(batches: Sequence[Batch], count: int) -> list[Batch]:
    """So many that stand for all: from the middle of each equal share of them by cost, the middle shares first."""
    by_cost = sorted(batches, key=lambda batch: batch.padded_cost)
    count = min(count, len(by_cost))
    places = sorted(range(count), key=lambda place: abs(2 * place + 1 - count))
    return [by_cost[(2 * place + 1) * len(by_cost) // (2 * count)] for place in places]
