"""The worker's settings: what wins, what is refused, and what the refusal says."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from forebay_consumer.config import REFUSED, WorkerSettings, load
from forebay_consumer.errors import BadConfig

BASE: dict[str, Any] = {
    "kafka": {"bootstrap.servers": "file:9092", "group.id": "g"},
    "topics": {"requests": ["requests"], "replies": ["replies"]},
    "model": {"name": "m", "class": "a:B"},
}


def loaded(folder: Path, *overrides: str, **parts: Any) -> WorkerSettings:
    file = folder / "worker.yaml"
    file.write_text(yaml.safe_dump({**BASE, **parts}))
    return load(file, overrides)


def refusal(folder: Path, *overrides: str, **parts: Any) -> str:
    with pytest.raises(BadConfig) as raised:
        loaded(folder, *overrides, **parts)
    return str(raised.value)


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batching = {"linger_ms": 1, "max_batch_size": 2, "lookahead": 3}
    monkeypatch.setenv("FOREBAY_BATCHING__MAX_BATCH_SIZE", "20")
    monkeypatch.setenv("FOREBAY_BATCHING__LOOKAHEAD", "30")
    made = loaded(tmp_path, "batching.lookahead=300", batching=batching).batching
    assert (made.linger_ms, made.max_batch_size, made.lookahead) == (1, 20, 300)


def test_kafka_keys_come_with_dots_or_underscores_and_the_flag_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREBAY_KAFKA__BOOTSTRAP_SERVERS", "environment:9092")
    assert loaded(tmp_path).kafka["bootstrap.servers"] == "environment:9092"
    assert loaded(tmp_path, "kafka.bootstrap.servers=flag:9092").kafka["bootstrap.servers"] == "flag:9092"


@pytest.mark.parametrize("key", REFUSED)
def test_a_kafka_setting_that_would_break_a_promise_is_refused_with_its_reason(tmp_path: Path, key: str) -> None:
    told = refusal(tmp_path, kafka={**BASE["kafka"], key: "x"})
    assert key in told
    assert REFUSED[key] in told


@pytest.mark.parametrize("alias", ["max_batch_size", "batch_size"])
def test_the_batch_size_has_the_fields_names(tmp_path: Path, alias: str) -> None:
    assert loaded(tmp_path, batching={alias: 7}).batching.max_batch_size == 7


@pytest.mark.parametrize("alias", ["linger_ms", "max_queue_delay_ms", "max_batch_delay"])
def test_linger_has_the_fields_names(tmp_path: Path, alias: str) -> None:
    assert loaded(tmp_path, batching={alias: 7}).batching.linger_ms == 7


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        pytest.param({"batching": {"linger": 5}}, ["batching.linger"], id="unknown key"),
        pytest.param({"batching": {"max_batch_size": 0}}, ["batching.max_batch_size", "0", "1"], id="out of range"),
        pytest.param({"delivery": {"start": "newest"}}, ["delivery.start", "newest", "earliest"], id="not allowed"),
        pytest.param(
            {"batching": {"max_batch_size": 8, "preferred_batch_sizes": [16]}},
            ["preferred_batch_sizes", "16", "8"],
            id="002.12 preferred above the maximum",
        ),
        pytest.param({"limits": {"max_in_flight": 5}}, ["max_in_flight=5", "max_batch_size=32"], id="no full batch"),
        pytest.param({"kafka": {"group.id": "g"}}, ["bootstrap.servers"], id="no servers"),
        pytest.param({"topics": {"requests": ["a"], "replies": ["^b"]}}, ["replies[0]"], id="pattern first"),
        pytest.param({"topics": {"requests": ["a"], "replies": ["a"]}}, ["'a'", "request topic"], id="loop"),
        pytest.param({"topics": {"requests": ["a"], "replies": ["b", "^."]}}, ["'^.'"], id="loop by pattern"),
        pytest.param({"model": {"name": "m"}}, ["task", "class"], id="no model"),
        pytest.param({"model": {"name": "m", "task": "fill-mask"}}, ["path"], id="no checkpoint"),
    ],
)
def test_a_mistake_is_told_by_key_value_and_what_is_allowed(
    tmp_path: Path, parts: dict[str, Any], words: list[str]
) -> None:
    told = refusal(tmp_path, **parts)
    assert all(word in told for word in words), told


def test_delivery_may_be_a_word(tmp_path: Path) -> None:
    assert loaded(tmp_path, delivery="at-least-once").delivery.mode == "at-least-once"


def test_secrets_are_neither_shown_nor_told(tmp_path: Path) -> None:
    kafka = {**BASE["kafka"], "sasl.password": "hunter2", "ssl.key.password": "hunter2"}
    assert "hunter2" not in str(loaded(tmp_path, kafka=kafka).shown())
    assert "hunter2" not in refusal(tmp_path, kafka={**kafka, "acks": 1})


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"nowhere\.yaml"):
        load(tmp_path / "nowhere.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(BadConfig, match=r"broken\.yaml"):
        load(tmp_path / "broken.yaml")
