"""What is counted, and under which names."""

import pytest

from forebay_consumer.metrics import Metrics
from forebay_consumer.record import Claim
from forebay_consumer.window import Batch, Trigger
from forebay_schemas import Code
from support.consumer import make_item


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"forebay_{name}", labels)


def test_a_batch_is_counted_by_trigger_rows_cost_padding_and_linger() -> None:
    metrics = Metrics()
    items = [make_item(0, rows=2, cost=10, total_cost=13), make_item(1, rows=1, cost=5)]
    items[0].ready_s, items[1].ready_s = 4.0, 4.9
    batch = Batch(items, Trigger.LINGER, rows=3, padded_cost=30)
    metrics.batch_taken(batch, now=5.5)
    metrics.padded(batch)
    assert value(metrics, "batches_total", trigger="linger") == 1
    assert value(metrics, "batches_total", trigger="size") is None
    assert value(metrics, "batch_size_sum") == 3
    assert value(metrics, "batch_cost_sum") == 30
    assert value(metrics, "padding_ratio_sum") == pytest.approx(1 - 18 / 30)
    assert value(metrics, "linger_seconds_sum") == pytest.approx(1.5)


def test_a_batch_of_equal_costs_has_no_padding() -> None:
    metrics = Metrics()
    metrics.padded(Batch([make_item(0, cost=7), make_item(1, cost=7)], Trigger.SIZE, 2, 14))
    assert value(metrics, "padding_ratio_bucket", le="0.0") == 1


def test_answers_are_counted_by_status_and_code() -> None:
    metrics = Metrics()
    metrics.answered({None: 5, Code.TOO_LARGE: 2}, lambda code: code is Code.TOO_LARGE)
    metrics.answered({None: 1, Code.EXPIRED: 1}, lambda code: code is Code.TOO_LARGE)
    assert value(metrics, "requests_total", status="ok", code="") == 6
    assert value(metrics, "requests_total", status="error", code="too_large") == 2
    assert value(metrics, "requests_total", status="error", code="expired") == 1
    assert value(metrics, "dead_letters_total", code="too_large") == 2
    assert value(metrics, "dead_letters_total", code="expired") is None


def test_lag_is_shown_for_the_present_assignment_alone() -> None:
    metrics = Metrics()
    metrics.lagging({Claim("in", 0, 1): 10, Claim("in", 1, 1): 20})
    metrics.lagging({Claim("in", 1, 1): 15, Claim("other", 0, 2): 3})
    assert value(metrics, "lag", topic="in", partition="0") is None
    assert value(metrics, "lag", topic="in", partition="1") == 15
    assert value(metrics, "lag", topic="other", partition="0") == 3
    metrics.lagging({})
    assert value(metrics, "lag", topic="in", partition="1") is None


def test_lag_of_a_partition_that_came_back_is_shown_again() -> None:
    metrics = Metrics()
    for lag in ({Claim("in", 0, 1): 10}, {}, {Claim("in", 0, 2): 4}, {Claim("in", 0, 3): 5}):
        metrics.lagging(lag)
    assert value(metrics, "lag", topic="in", partition="0") == 5


def test_two_workers_in_a_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.answered({None: 1}, lambda _: False)
    assert value(other, "requests_total", status="ok", code="") is None


def test_every_metric_is_ours_or_of_the_process() -> None:
    # Names are an interface: dashboards and alerts hang on them.
    names = {family.name for family in Metrics().registry.collect()}
    foreign = {name for name in names if not name.startswith(("forebay_", "process_", "python_info"))}
    assert foreign == set()
    assert {"forebay_requests", "forebay_batches", "forebay_lag", "forebay_forward_seconds"} <= names
