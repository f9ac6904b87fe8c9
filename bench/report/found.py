"""The rows of a run, asked by contender, load and mode. Pure."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.figures import Spread

LEAST_CPU_MS: Final = 1e-6  # less is none: the system counts CPU in steps
KAFKA_LIMIT: Final = "Kafka alone, with orjson"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """What one run measured."""

    rows: Sequence[Row]

    def contenders(self, load: str, dtype: str) -> list[str]:
        """Who was measured with a load, in the order of the run; limits first."""
        named = [row for row in self.rows if row.get("load") == load and row.get("dtype") == dtype]
        named = [row for row in named if "per_s" in row and "question" not in row and "experiment" not in row]
        ordered = dict.fromkeys(row["peer"] for row in named)
        return sorted(ordered, key=lambda peer: not is_limit(peer))

    def select(self, load: str, dtype: str, peer: str, mode: str) -> list[Row]:
        wanted = {"load": load, "dtype": dtype, "peer": peer, "mode": mode}
        return [
            row
            for row in self.rows
            if "per_s" in row and "question" not in row and all(row.get(key) == value for key, value in wanted.items())
        ]

    def spread(self, load: str, dtype: str, peer: str, mode: str, figure: str) -> Spread | None:
        values = [row[figure] for row in self.select(load, dtype, peer, mode) if figure in row]
        return Spread.of(values) if values else None

    def limit(self, load: str, dtype: str) -> str | None:
        """The loop that costs least: Kafka alone for T3, else the best way to run the model alone."""
        if load == "T3":
            return KAFKA_LIMIT if self.select(load, dtype, KAFKA_LIMIT, "backlog") else None
        loops = [peer for peer in self.contenders(load, dtype) if self.select(load, dtype, peer, "loop")]
        costs = {peer: self.spread(load, dtype, peer, "loop", "cpu_ms") for peer in loops}
        return min(loops, key=lambda peer: spread.median if (spread := costs[peer]) else 0.0, default=None)

    def share(self, load: str, dtype: str, peer: str, mode: str) -> Spread | None:
        """The limit's CPU for a request by the contender's: 1 is the limit itself.

        Of the limit those rows of the same repeat count that were measured last before the contender and first after
        it, in the order of the run.
        """
        limit = self.limit(load, dtype)
        if limit is None:
            return None
        if peer == limit:
            return Spread.of([1.0])
        place = {id(row): number for number, row in enumerate(self.rows)}
        measured = self.select(load, dtype, limit, mode_of(limit))
        shares = []
        for row in self.select(load, dtype, peer, mode):
            alike = [(place[id(each)] - place[id(row)], each) for each in measured if each["repeat"] == row["repeat"]]
            before = max((each for each in alike if each[0] < 0), default=None, key=lambda each: each[0])
            after = min((each for each in alike if each[0] > 0), default=None, key=lambda each: each[0])
            if row["cpu_ms"] > LEAST_CPU_MS and (nearest := [each[1]["cpu_ms"] for each in (before, after) if each]):
                shares.append(statistics.mean(nearest) / row["cpu_ms"])
        return Spread.of(shares) if shares else None

    def stretch(self, load: str, dtype: str, peer: str, in_flight: int) -> Spread | None:
        """The 99th percentile in units of requests in flight by throughput, the mean when all wait alike."""
        rows = self.select(load, dtype, peer, f"closed {in_flight}")
        values = [row["p99_ms"] / (1000 * in_flight / row["per_s"]) for row in rows]
        return Spread.of(values) if values else None

    def missing(self) -> list[tuple[str, str, str]]:
        """Contender, load and reason of what was not measured; each once."""
        found: dict[tuple[str, str, str], None] = {}
        for row in self.rows:
            if why := row.get("not_measured") or row.get("failed"):
                found[str(row.get("peer", row.get("case"))), row.get("load", ""), why] = None
        return list(found)

    def of(self, kind: str, name: str) -> list[Row]:
        """The rows of a question or an experiment."""
        return [row for row in self.rows if row.get(kind) == name]

    def cases(self, kind: str, name: str, figures: Sequence[str]) -> list[list[str]]:
        """A table of a question's or experiment's cases: each figure's median over the repeats."""
        rows = self.of(kind, name)
        told = list(dict.fromkeys(_case(row) for row in rows))
        table = []
        for case in told:
            own = [row for row in rows if _case(row) == case]
            if why := next((row["failed"] for row in own if "failed" in row), None):
                table.append([case, why, *[""] * (len(figures) - 1)])
                continue
            cells = [[row[figure] for row in own if figure in row] for figure in figures]
            table.append([case, *[_cell(values) for values in cells]])
        return table


def is_limit(peer: str) -> bool:
    return peer.startswith(("model alone", "Kafka alone"))


def mode_of(limit: str) -> str:
    return "backlog" if limit.startswith("Kafka") else "loop"


def number(value: float) -> str:
    """Three figures that tell, and no more; what is too small to be measured is none."""
    if abs(value) < LEAST_CPU_MS:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def shown(spread: Spread | None, scale: Callable[[float], str] = number) -> str:
    """`median (min to max)`, or the value alone where there was one run."""
    if spread is None:
        return ""
    if spread.least == spread.most:
        return scale(spread.median)
    return f"{scale(spread.median)} ({scale(spread.least)} to {scale(spread.most)})"


def _case(row: Row) -> str:
    return f"{row.get('case', '')}: {row['peer']}" if row.get("case") and row.get("peer") else str(row.get("case", ""))


def _cell(values: Sequence[Any]) -> str:
    if not values:
        return ""
    return values[0] if isinstance(values[0], str) else number(Spread.of(values).median)
