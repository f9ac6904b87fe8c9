"""How long requests wait under each linger: the real window on a clock that is only counted. Pure."""

import math
import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Final

from forebay_consumer.profile import NEARLY
from forebay_consumer.record import Item
from forebay_consumer.window import Batch, Rules, Window

LOADS: Final = (0.1, 0.5, 0.9)  # shares of what can be served
LINGERS_MS: Final = (0, 1, 5, 20, 100)
ARRIVALS: Final = 2000

PassTime = Callable[[int], float]
"""Seconds of a pass by its cost, padding included."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How long the oldest request waits for company."""

    linger_ms: float
    adaptive: bool = False


@dataclass(frozen=True, slots=True)
class Waits:
    """What requests saw under one policy at one load, from their arrival to the end of their pass."""

    policy: Policy
    load: float
    p50_s: float
    p99_s: float
    rows_per_pass: float


def interpolated(times: Sequence[tuple[int, float]]) -> PassTime:
    """Seconds by cost, through what was measured; never less for more.

    Args:
        times: cost and seconds of passes; at least one.
    """
    blocks: list[tuple[float, float, int]] = []  # mean cost, mean seconds, passes: where they fall they are joined
    for cost, seconds in sorted(times):
        blocks.append((cost, seconds, 1))
        while len(blocks) > 1 and (blocks[-2][1] >= blocks[-1][1] or blocks[-2][0] == blocks[-1][0]):
            (x, y, n), (x2, y2, n2) = blocks[-2:]
            blocks[-2:] = [((x * n + x2 * n2) / (n + n2), (y * n + y2 * n2) / (n + n2), n + n2)]
    costs, took = [block[0] for block in blocks], [block[1] for block in blocks]

    def seconds_of(cost: int) -> float:
        place = bisect_left(costs, cost)
        if place == 0:
            return took[0]
        if place == len(costs):  # beyond what was measured: in proportion
            return took[-1] * cost / costs[-1]
        share = (cost - costs[place - 1]) / (costs[place] - costs[place - 1])
        return took[place - 1] + share * (took[place] - took[place - 1])

    return seconds_of


def capacity(formed: Sequence[Batch], pass_s: PassTime) -> float:
    """Requests per second of a backlog in these batches."""
    return sum(len(batch.items) for batch in formed) / sum(pass_s(batch.padded_cost) for batch in formed)


def arrivals(items: Sequence[Item], per_s: float, count: int = ARRIVALS) -> list[Item]:
    """The items in order, again and again, at random moments (Poisson); the same moments at every call."""
    draw = random.Random(1)
    now = 0.0
    came = []
    for item in islice(cycle(items), count):
        now += draw.expovariate(per_s)
        came.append(replace(item, record=replace(item.record, since_s=now), ready_s=now))
    return came


def simulate(came: Sequence[Item], rules: Rules, packs: bool, pass_s: PassTime) -> tuple[list[float], float]:
    """One copy of the model serves the arrivals: the seconds that each request took, ascending, and rows per pass."""
    window = Window(rules)
    if packs:
        window.pack()
    dearest = max(item.cost for item in came)
    now, next_, rows, passes = 0.0, 0, 0, 0
    took: list[float] = []
    while next_ < len(came) or window.rows:
        while next_ < len(came) and came[next_].ready_s <= now:
            window.add([came[next_]])
            next_ += 1
        due_s = window.due_s()
        may = window.rows >= rules.max_rows or (rules.max_cost or math.inf) <= window.rows * dearest
        # Asking the window looks at all that waits; what is neither due nor may be full is not asked for.
        batch = window.take(now) if may or (due_s is not None and due_s <= now) else None
        if batch is None:
            soon = [came[next_].ready_s] if next_ < len(came) else []
            now = max(now, min([*soon, *([] if due_s is None else [due_s])]))
            continue
        seconds = pass_s(batch.padded_cost)
        while next_ < len(came) and came[next_].ready_s <= now + seconds:
            window.add([came[next_]])
            next_ += 1
        now += seconds
        window.ran(batch, seconds)
        took += [now - item.ready_s for item in batch.items]
        rows += batch.rows
        passes += 1
    return sorted(took), rows / passes


def policies(adaptive_ms: float) -> list[Policy]:
    """All that are tried.

    Args:
        adaptive_ms: the most that adaptive linger waits.
    """
    return [Policy(adaptive_ms, adaptive=True), *(Policy(linger_ms) for linger_ms in LINGERS_MS)]


def compare(
    items: Sequence[Item], rules: Rules, packs: bool, formed: Sequence[Batch], pass_s: PassTime, adaptive_ms: float
) -> list[Waits]:
    """Every policy at every load, of the same arrivals."""
    most = capacity(formed, pass_s)
    waits = []
    for load in LOADS:
        came = arrivals(items, load * most)
        for policy in policies(adaptive_ms):
            own = replace(rules, linger_s=policy.linger_ms / 1000, adaptive=policy.adaptive)
            took, rows = simulate(came, own, packs, pass_s)
            waits.append(Waits(policy, load, _quantile(took, 0.5), _quantile(took, 0.99), rows))
    return waits


def choose(waits: Sequence[Waits]) -> Policy:
    """The policy that, at the load where it is farthest from the best, is least far; the first of nearly equal ones."""
    regrets: dict[Policy, float] = {}
    for each in waits:
        rivals = [other for other in waits if other.load == each.load]
        regret = max(
            each.p50_s / min(other.p50_s for other in rivals), each.p99_s / min(other.p99_s for other in rivals)
        )
        regrets[each.policy] = max(regret, regrets.get(each.policy, 0.0))
    enough = min(regrets.values()) / NEARLY
    return next(policy for policy, regret in regrets.items() if regret <= enough)


def _quantile(ascending: Sequence[float], share: float) -> float:
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))]
