"""How large a batch should be, found by trying: throughput by size, for rows of several costs. Pure, but for the model.

A larger batch is not always faster: on a CPU it falls out of the cache (a ViT is 12 to 15 % slower at 32 pictures than
at 8; MiniLM a third slower at 4,096 padded tokens than at 1,024), on a GPU it may need hundreds of rows. What is sought
is the smallest that is nearly as fast as the best: more only makes requests wait.

Where a model packs, a pass holds texts of all lengths, and each has a price of its own: mixtures are tried then.
Passes of equal texts would say 248 tokens for MiniLM on a CPU, where mixed ones are 10 % faster at 512 and more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import mul
from typing import Any, Final

from forebay_consumer.clock import Clock
from forebay_consumer.errors import FatalError

BUDGET_S: Final = 4.0
NEARLY: Final = 0.97  # of the best throughput: less than what noise makes of one measurement
_FIRST: Final = 4  # sizes in the first round: 1, 2, 4, 8
_FLAT: Final = 2  # sizes beyond the fastest that brought nothing: what follows brings less
_ROUNDS: Final = 4  # once nothing larger is worth trying
_ALIKE: Final = 8  # units in one measurement, once the first round has told what they take

Pass = Callable[[Sequence[Any]], None]
"""Collate, forward and postprocess prepared rows; blocks until the device is done."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a batch should hold at most.

    Attributes:
        max_cost: rows × the largest cost, or their sum where a model packs; None where every row costs the same, 1.
    """

    max_rows: int
    max_cost: int | None = None


@dataclass(frozen=True, slots=True)
class Sweep:
    """Units per second by units per batch; a unit is a row of this cost, or a mixture that costs as much."""

    cost: int
    rates: dict[int, float]
    mixed: bool = False

    @property
    def best(self) -> int:
        """The smallest size that is nearly as fast as the fastest."""
        rates = _evened(self.rates) if self.mixed else self.rates
        enough = NEARLY * max(rates.values())
        return min(size for size, rate in rates.items() if rate >= enough)


def profile(
    rows: Sequence[tuple[Any, int]],
    most: int,
    max_cost: int | None,
    run: Pass,
    clock: Clock,
    packs: bool = False,
) -> tuple[Sizes | None, Sequence[Sweep]]:
    """Try batches of 1, 2, 4, ... rows, for about `BUDGET_S` in all.

    Args:
        rows: prepared rows, each with its cost, as different as requests are.
        most: rows that a batch may have.
        max_cost: what rows × cost may be; it is not sought where it is given.
        run: what it raises, but for a FatalError, says that larger batches than those before are none.
        packs: rows of unlike costs share a pass without padding.
    Returns:
        What was found, or None when there was time for no two sizes; and what was measured, cheapest rows first.
    """
    chosen = _spread(rows)
    units = [([row], cost) for row, cost in chosen]
    if packs and 1 < len(chosen) <= most:
        units[1:] = [([row for row, _ in chosen], sum(cost for _, cost in chosen))]
    sweeps = []
    ends_s = clock()
    for unit, cost in units:
        ends_s += BUDGET_S * len(unit) / sum(len(unit) for unit, _ in units)
        largest = most // len(unit) if max_cost is None else min(most // len(unit), max(1, max_cost // cost))
        sweeps.append(Sweep(cost, _sweep(unit, largest, run, ends_s, clock), mixed=len(unit) > 1))
    measured = [sweep for sweep in sweeps if sweep.rates]
    if not measured or len(sweeps[0].rates) < min(2, most):
        return None, sweeps
    if max_cost is None and any(sweep.cost > 1 for sweep in sweeps):
        max_cost = max(sweep.best * sweep.cost for sweep in measured)
    # Rows of one cost do not tell how many cheaper ones are best, where there can be any: the bound on the cost does.
    alike = len(sweeps) == 1 and sweeps[0].cost > 1 and max_cost is not None
    return Sizes(most if alike else sweeps[0].best, max_cost), sweeps


def _spread(rows: Sequence[tuple[Any, int]]) -> list[tuple[Any, int]]:
    """The cheapest row, the one in the middle and the dearest, as far as their costs differ."""
    by_cost = {cost: row for row, cost in rows}
    costs = sorted(by_cost)
    wanted = sorted({costs[0], costs[len(costs) // 2], costs[-1]}) if costs else []
    return [(by_cost[cost], cost) for cost in wanted]


def _sweep(unit: Sequence[Any], most: int, run: Pass, ends_s: float, clock: Clock) -> dict[int, float]:
    """The best of several rounds over all sizes: neighbours on the machine only ever add, and rarely for long.

    Small batches run several times in a row: a clock that wavers would let a short pass, and no long one, find its
    fast moments.
    """
    took: dict[int, float] = {}  # seconds of a pass, in the fastest measurement
    passes: dict[int, int] = {}  # in that
    sizes = doubling(most)
    reach, rounds = min(_FIRST, len(sizes)), 0
    while rounds < _ROUNDS:
        for size in sizes[:reach]:
            # Twice the rows take at most twice as long, or are not worth trying.
            expected_s = took.get(size) or (size * took[max(took)] / max(took) if took else 0.0)
            times = max(1, min(max(took, default=1), _ALIKE) // size)
            if clock() + times * expected_s > ends_s:
                return _rates(took)
            try:
                found = _timed([*unit] * size, times, run, clock)
                took[size] = found if times > passes.get(size, 0) else min(found, took[size])
                passes[size] = times
            except FatalError:
                raise
            except Exception:  # the model's own; out of memory above all
                sizes = [smaller for smaller in sizes if smaller < size]
                reach = len(sizes)
                break
        if not took:
            break
        rates = _rates(took)
        grows = reach < len(sizes) and sizes.index(max(rates, key=rates.__getitem__)) >= reach - _FLAT
        reach, rounds = (reach + 1, 0) if grows else (reach, rounds + 1)
    return _rates(took)


def _rates(took: dict[int, float]) -> dict[int, float]:
    return {size: size / seconds for size, seconds in took.items()}


def _evened(rates: dict[int, float]) -> dict[int, float]:
    """The rates as they were if a pass took `a + b × size`, by least squares of the relative errors.

    A mixture's rates rise slowly, and noise would find one far too small nearly as fast.
    """
    x = [rate / size for size, rate in rates.items()]  # 1 / seconds of a pass: that a + b × size, times this, is 1
    y = list(rates.values())
    xx, xy, yy = (sum(map(mul, *pair)) for pair in ((x, x), (x, y), (y, y)))
    spread = xx * yy - xy * xy
    if len(rates) < 2 or spread <= 0:
        return rates
    a, b = (sum(x) * yy - sum(y) * xy) / spread, (sum(y) * xx - sum(x) * xy) / spread
    return {size: size / (a + b * size) for size in rates} if a > 0 < b else rates


def _timed(batch: Sequence[Any], times: int, run: Pass, clock: Clock) -> float:
    began = clock()
    for _ in range(times):
        run(batch)
    return max((clock() - began) / times, 1e-9)


def doubling(most: int) -> list[int]:
    """1, 2, 4, ... and `most` itself."""
    sizes = [2**power for power in range(most.bit_length())]
    return sizes if sizes[-1] == most else [*sizes, most]
