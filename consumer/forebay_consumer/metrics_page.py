"""The page of all metrics, made from the metrics themselves."""

from collections.abc import Mapping, Sequence
from typing import Final

from prometheus_client.metrics_core import Metric

from forebay_consumer.metrics import Metrics

_SUFFIX: Final = {"counter": "_total", "info": "_info"}

_ALERTS: Final = (
    (
        "Requests wait longer than they may: too few workers, or one partition has them all. Take your own bound.",
        "histogram_quantile(0.99, sum by (le) (rate(forebay_queue_seconds_bucket[5m]))) > 30",
    ),
    (
        "There is lag or work inside, and nothing is answered: no broker takes the replies, or the passes hang. Not "
        "with `delivery.mode: queue`, where a worker's lag does not end with the group's.",
        "(max(min_over_time(forebay_lag[10m])) > 0 or max(min_over_time(forebay_in_flight_rows[10m])) > 0)\n"
        "unless sum(rate(forebay_requests_total[10m])) > 0",
    ),
    (
        "More than one request in a hundred fails in the model: look at its log, and at the dead letters.",
        'sum(rate(forebay_requests_total{code=~"model_error|out_of_memory|poison|internal"}[10m]))\n'
        "  / sum(rate(forebay_requests_total[10m])) > 0.01",
    ),
    (
        "A worker looks for a record that killed a process; until it is found, that worker runs one request at a time.",
        "max_over_time(forebay_suspicious[5m]) > 0",
    ),
)


def metrics_page() -> str:
    """Markdown: a table of all metrics with type, labels and meaning, and a few alerts."""
    metrics = Metrics()
    ours = [family for family in metrics.registry.collect() if family.name.startswith("forebay_")]
    lines = [
        "# Metrics",
        "",
        "Made by `forebay-consumer metrics`. Each worker answers `GET /metrics` at `metrics.port`, 9400 unless set, in",
        "Prometheus's text format; the probes are on the same port. A histogram is `_bucket` (by `le`), `_sum` and",
        "`_count`; it and a counter also have `_created`, the time when they began. Where the values of a label are",
        "told, it has no others; no label holds an id, a key or an error's text. Beside these there are `process_…`",
        "(on Linux) and `python_info` of Prometheus's client.",
        "",
        "| metric | type | labels | meaning |",
        "|---|---|---|---|",
        *(_row(family, metrics.labels) for family in ours),
        "",
        "`forebay_lag` is told by the worker that owns the partition, so its sum is what nobody has polled. The",
        "group's lag also counts what is polled and not committed, which is `forebay_uncommitted_records`. With",
        "`delivery.mode: queue` every worker tells what lies beyond the furthest record that it has polled itself, and",
        "`forebay_acknowledged_total` stands for `forebay_commits_total`.",
        "",
        "## Alerts",
        "",
        "Four to begin with, as expressions of Prometheus:",
    ]
    for text, expression in _ALERTS:
        lines += ["", text, "", "```", expression, "```"]
    return "\n".join(lines) + "\n"


def _row(family: Metric, labels: Mapping[str, Mapping[str, Sequence[str]]]) -> str:
    name = family.name + _SUFFIX.get(family.type, "")
    shown = "; ".join(_label(label, values) for label, values in labels.get(name, {}).items())
    return f"| `{name}` | {family.type} | {shown} | {family.documentation} |"


def _label(name: str, values: Sequence[str]) -> str:
    return f"`{name}`: {', '.join(values)}" if values else f"`{name}`"
