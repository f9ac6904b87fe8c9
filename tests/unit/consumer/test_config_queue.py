"""The settings of delivery mode `queue`, and what is refused with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import ShareConsumer

from forebay_consumer.config import REFUSED_BY_QUEUE, QueueSettings, WorkerSettings, load
from forebay_consumer.errors import BadConfig

KAFKA: Mapping[str, Any] = {"bootstrap.servers": "host:9092", "group.id": "group"}
NEEDED: Mapping[str, Any] = {
    "topics": {"requests": ["requests"], "replies": ["replies"]},
    "model": {"name": "m", "class": "a:B"},
}


def _read(folder: Path, **parts: Any) -> WorkerSettings:
    file = folder / "worker.yaml"
    file.write_text(yaml.safe_dump({**NEEDED, "kafka": dict(KAFKA), **parts}))
    return load(file)


def _refusal(folder: Path, **parts: Any) -> str:
    with pytest.raises(BadConfig) as caught:
        _read(folder, **parts)
    return str(caught.value)


def test_the_mode_alone_is_enough(tmp_path: Path) -> None:
    delivery = _read(tmp_path, delivery="queue").delivery
    assert delivery.mode == "queue"
    assert delivery.queue == QueueSettings(lock_ms=None, max_deliveries=None, consumers=2)


def test_its_settings_stand_below_delivery(tmp_path: Path) -> None:
    given = {"lock_ms": 20_000, "max_deliveries": 5, "consumers": 3}
    assert _read(tmp_path, delivery={"mode": "queue", "queue": given}).delivery.queue == QueueSettings(**given)


@pytest.mark.parametrize("key", REFUSED_BY_QUEUE)
def test_a_client_setting_that_has_no_place_in_a_share_group_is_refused(tmp_path: Path, key: str) -> None:
    value = {"group.protocol": "classic", "partition.assignment.strategy": "cooperative-sticky"}.get(key, "1")
    kafka = {**KAFKA, key: value}
    told = _refusal(tmp_path, delivery="queue", kafka=kafka)
    assert f"kafka.{key} may not be set with delivery.mode queue: {REFUSED_BY_QUEUE[key]}" in told
    assert _read(tmp_path, kafka=kafka).kafka[key] == value, "in the other modes it may"


OURS = {"share.acknowledgement.mode", "statistics.interval.ms"}


@pytest.mark.parametrize("key", sorted(REFUSED_BY_QUEUE.keys() - OURS))
def test_the_client_itself_would_refuse_it(key: str) -> None:
    words = {"isolation.level": "read_committed", "group.protocol": "classic"}
    words |= {"partition.assignment.strategy": "range", "allow.auto.create.topics": "false"}
    with pytest.raises(ValueError, match=r"share consumer"):
        ShareConsumer({"bootstrap.servers": "127.0.0.1:1", "group.id": "g", key: words.get(key, "6000")})


def test_a_start_that_asks_for_offsets_is_refused(tmp_path: Path) -> None:
    told = _refusal(tmp_path, delivery={"mode": "queue", "start": "fail"})
    assert "delivery.start=fail: allowed with delivery.mode queue are earliest and latest" in told


def test_a_bound_on_what_waits_behind_is_refused(tmp_path: Path) -> None:
    told = _refusal(tmp_path, delivery="queue", limits={"max_backlog": 10})
    assert "limits.max_backlog may not be set with delivery.mode queue" in told
    assert "limits.request_ttl_ms" in told


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param({"lock_ms": 999}, "delivery.queue.lock_ms", id="a lock shorter than any broker allows"),
        pytest.param({"max_deliveries": 1}, "delivery.queue.max_deliveries", id="one delivery, which would not be run"),
        pytest.param({"consumers": 0}, "delivery.queue.consumers", id="no consumers"),
        pytest.param({"lock": 1}, "delivery.queue.lock", id="a key that is none"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, given: Mapping[str, Any], said: str) -> None:
    assert said in _refusal(tmp_path, delivery={"mode": "queue", "queue": given})
