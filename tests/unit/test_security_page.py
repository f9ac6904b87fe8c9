"""The page on security says what the settings take and what the tests on a real broker grant."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from forebay_consumer.config import WorkerSettings, load
from forebay_producer import load as load_client

PAGE: Final = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
EXAMPLES: Final = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


@pytest.mark.parametrize("example", EXAMPLES, ids=["password", "certificate", "endpoint", "function"])
def test_worker_and_client_take_its_examples(tmp_path: Path, example: dict[str, Any]) -> None:
    kafka = {"bootstrap.servers": "broker:9094", **example["kafka"]}
    worker = {
        "kafka": {**kafka, "group.id": "group"},
        "topics": {"requests": ["requests"], "replies": ["replies"]},
        "model": {"name": "shout", "class": "models:Shout"},
    }
    (tmp_path / "worker.yaml").write_text(yaml.safe_dump(worker))
    settings: WorkerSettings = load(tmp_path / "worker.yaml")
    assert settings.shown()["kafka"].keys() == worker["kafka"].keys()
    assert load_client(kafka=kafka).kafka == kafka


def test_its_table_of_rights_is_what_the_tests_grant() -> None:
    rights = re.findall(r"^\| (worker|client) \| (.*?) \| (\w+) \|$", PAGE, re.MULTILINE)
    # As `workers_grants` and `clients_grants` of tests/integration/test_security.py.
    assert [(who, right) for who, _, right in rights] == [
        ("worker", "Read"),
        ("worker", "Read"),
        ("worker", "Write"),
        ("worker", "Write"),
        ("client", "Write"),
        ("client", "Read"),
    ]


def test_every_setting_of_ours_that_it_names_is_there() -> None:
    for part, key in re.findall(r"`(topics|limits)\.(\w+)`", PAGE):
        assert key in WorkerSettings.model_fields[part].annotation.model_fields  # type: ignore[union-attr]
