"""Whether waiting for company pays. Pure: is told of arrivals and passes, and the time.

A pass takes about `a + b × cost` seconds, so a second pass costs `a` more than one for all. Let m items wait, with an
instance free, and r more come in g seconds. Going at once lets the r wait for two passes; waiting lets the m wait for g
and for the others' share of the pass. Waiting shortens the mean latency as long as

    r × (a - g) > m × (g + b × their cost)

On a GPU, where `a` is nearly all of a pass, that is worth some milliseconds; on a CPU, where `b` is, next to nothing;
and for a lone client, whose next request comes only after its answer, nothing. What keeps a busy instance's batches
large is not this wait, but that requests gather while a pass runs.
"""

import math
from typing import Final

ARRIVALS: Final = 16  # how many the estimates look back on, by exponential weights
PASSES: Final = 32
SHORTEST_GAP_S: Final = 1e-5


class Company:
    """Estimates of what arrives and of what a pass takes. Not thread-safe."""

    def __init__(self) -> None:
        self._last_s = -math.inf  # of the last arrival
        self._log_gap: float | None = None  # a geometric mean: the pause between two bursts hides no burst
        self._items = 0.0  # per arrival
        self._cost = 0.0  # per arrival
        # Sums for the least squares of seconds over cost.
        self._n = self._x = self._y = self._xx = self._xy = 0.0

    def came(self, now: float, items: int, cost: int) -> None:
        """So many items came in together, of that cost in all."""
        if self._last_s > -math.inf:
            gap = math.log(max(now - self._last_s, SHORTEST_GAP_S))
            self._log_gap = gap if self._log_gap is None else self._log_gap + (gap - self._log_gap) / ARRIVALS
            self._items += (items - self._items) / ARRIVALS
            self._cost += (cost - self._cost) / ARRIVALS
        else:
            self._items, self._cost = items, cost
        self._last_s = now

    def ran(self, cost: int, seconds: float) -> None:
        """A batch of that cost took so long, from being taken until its outcomes were handed on."""
        keep = 1 - 1 / PASSES
        self._n = self._n * keep + 1
        self._x = self._x * keep + cost
        self._y = self._y * keep + seconds
        self._xx = self._xx * keep + cost * cost
        self._xy = self._xy * keep + cost * seconds

    def until_s(self, items: int) -> float:
        """The moment until which `items` that wait should go on waiting, unless more come; -inf for not at all."""
        if self._log_gap is None or not self._n:
            return -math.inf
        fixed_s, per_cost_s = self._pass()
        pays_s = (self._items * fixed_s - items * per_cost_s * self._cost) / (self._items + items)
        # A silence that has lasted for longer than usual is likely to last: then it is over at `pays_s`, too.
        return self._last_s + pays_s if math.exp(self._log_gap) < pays_s else -math.inf

    def _pass(self) -> tuple[float, float]:
        """`a` and `b`: least squares, with one pass of no cost that took half the mean time thrown in.

        It decides where all passes cost the same, and is outvoted where they do not.
        """
        n, y = self._n + 1, self._y + self._y / self._n / 2
        spread = n * self._xx - self._x * self._x  # not 0: that pass costs less than any other
        slope = max(0.0, (n * self._xy - self._x * y) / spread)
        fixed = (y - slope * self._x) / n
        return (fixed, slope) if fixed > 0 else (0.0, self._xy / self._xx)
