"""What `tune` found, for people, for pipes and for the worker's YAML file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from rich.table import Table

from forebay_consumer.config import BatchingSettings
from forebay_consumer.tune.linger import Policy, Waits
from forebay_consumer.tune.sweep import Cell, Found, plain


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured, how, and what follows.

    Attributes:
        precision: what the best candidate computes in, where it says so.
        requests: how many it was measured with.
        source: where they are from.
        refused: how many more a worker would answer with an error; `refusal` is the first, and why.
        capacity_per_s: requests per second of a backlog, in usual passes.
    """

    device: str
    precision: str | None
    packing: str | None
    requests: int
    source: str
    refused: int
    refusal: str | None
    preprocess_ms_per_request: float
    found: Found
    capacity_per_s: float
    waits: Sequence[Waits]
    policy: Policy
    settings: dict[str, Any]


def settings_of(best: Cell, policy: Policy, before: BatchingSettings) -> dict[str, Any]:
    """The parts of a worker's settings that were tuned, as they are written in its file.

    Args:
        before: what was configured; what would contradict is named, too.
    """
    linger_ms = int(policy.linger_ms) if policy.linger_ms == int(policy.linger_ms) else policy.linger_ms
    batching: dict[str, Any] = {"max_batch_size": best.max_rows}
    if before.max_batch_cost is not None or len({item.cost for item in best.candidate.items}) > 1:
        batching["max_batch_cost"] = best.max_cost
    batching |= {"linger_ms": linger_ms, "adaptive_linger": policy.adaptive}
    if before.preferred_batch_sizes:
        batching["preferred_batch_sizes"] = []  # they were chosen for other sizes, and may exceed the new one
    variant = best.candidate.variant
    tried = {"dtype": variant.dtype, "threads": variant.threads}
    options = {name: value for name, value in tried.items() if value is not None}
    return {"batching": batching} | ({"model": {"options": options}} if options else {})


def as_yaml(report: Report) -> str:
    head = f"# forebay-consumer tune: {report.requests} requests ({report.source}), {report.device}"
    body: str = yaml.safe_dump(report.settings, sort_keys=False, default_flow_style=False)
    return f"{head}\n{body}"


def as_json(report: Report) -> dict[str, Any]:
    best = report.found.best
    return {
        "device": report.device,
        "precision": report.precision,
        "packing": report.packing,
        "requests": report.requests,
        "source": report.source,
        "refused": report.refused,
        "preprocess_ms_per_request": round(report.preprocess_ms_per_request, 4),
        "sweep": [plain(cell) | {"best": cell is best} for cell in report.found.cells],
        "cut": report.found.cut,
        "capacity_per_s": round(report.capacity_per_s, 1),
        "linger": [_waits(waits) | {"best": waits.policy == report.policy} for waits in report.waits],
        "settings": report.settings,
    }


def sweep_table(found: Found) -> Table:
    """One row per way to batch; the knee is marked. What was not tried has no column."""
    variants = [cell.candidate.variant for cell in found.cells]
    tried = [name for name in ("dtype", "threads") if any(getattr(variant, name) is not None for variant in variants)]
    made = Table(box=None, pad_edge=False, header_style="bold", title="throughput of a backlog", title_justify="left")
    made.add_column("", no_wrap=True)
    for column in (*tried, "size", "cost", "rows/pass", "pass ms", "rows/s", "CPU ms/row", "passes"):
        made.add_column(column, justify="left" if column == "dtype" else "right", no_wrap=True)
    for cell in found.cells:
        measured = cell.measured
        made.add_row(
            "knee" if cell is found.best else "",
            *(str(getattr(cell.candidate.variant, name)) for name in tried),
            str(cell.max_rows),
            str(cell.max_cost or "-"),
            f"{cell.rows:.1f}",
            f"{1000 * cell.pass_s:.2f}" if measured else "-",
            f"{cell.rows_per_s:,.1f}" if measured else cell.problem or "no time",
            f"{1000 * cell.cpu_s_per_row:.3f}" if measured else "-",
            str(cell.rounds),
        )
    return made


def linger_table(report: Report) -> Table:
    """One row per policy: p50 and p99 in ms and rows per pass, at each load."""
    made = Table(
        box=None,
        pad_edge=False,
        header_style="bold",
        title="latency by linger, simulated: p50 / p99 ms (rows a pass); "
        f"100 % is {report.capacity_per_s:,.0f} requests/s",
        title_justify="left",
    )
    made.add_column("")
    made.add_column("linger ms", no_wrap=True)
    loads = list(dict.fromkeys(waits.load for waits in report.waits))
    for load in loads:
        made.add_column(f"{load:.0%} load", justify="right", no_wrap=True)
    for policy in dict.fromkeys(waits.policy for waits in report.waits):
        cells = [
            f"{1000 * waits.p50_s:.1f} / {1000 * waits.p99_s:.1f} ({waits.rows_per_pass:.1f})"
            for waits in report.waits
            if waits.policy == policy
        ]
        name = f"adaptive, to {policy.linger_ms:g}" if policy.adaptive else f"{policy.linger_ms:g}"
        made.add_row("best" if policy == report.policy else "", name, *cells)
    return made


def _waits(waits: Waits) -> dict[str, Any]:
    return {
        "linger_ms": waits.policy.linger_ms,
        "adaptive": waits.policy.adaptive,
        "load": waits.load,
        "p50_ms": round(1000 * waits.p50_s, 3),
        "p99_ms": round(1000 * waits.p99_s, 3),
        "rows_per_pass": round(waits.rows_per_pass, 2),
    }
