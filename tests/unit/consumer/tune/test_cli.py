"""`forebay-consumer tune` on models of one's own and on a tiny checkpoint; no broker is asked."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from forebay_consumer import Model, config
from forebay_consumer.cli import app
from forebay_consumer.dlq.letters import Entry
from forebay_consumer.dlq.topic import Span
from forebay_consumer.errors import FatalError
from forebay_consumer.tune import recorded
from forebay_schemas import InvalidRequest
from unit.consumer.models.tiny import save

KAFKA = {"bootstrap.servers": "127.0.0.1:1", "group.id": "workers"}
TOPICS = {"requests": ["requests"], "replies": ["replies"]}
HERE = __name__


class Words(Model):
    """Refuses `bad`; a row costs its words."""

    def preprocess(self, rows: Any, parameters: Any) -> Any:
        return [InvalidRequest("bad") if row == "bad" else row for row in rows]

    def cost(self, row: str) -> int:
        return len(row.split())

    def forward(self, batch: Any) -> Any:
        return batch

    def samples(self) -> Any:
        return ("one", "one two three")


class Silent(Words):
    def samples(self) -> Any:
        return ()


class Short(Words):
    """Gives one output too few."""

    def forward(self, batch: Any) -> Any:
        return batch[1:]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.upper().startswith("FOREBAY_"):
            monkeypatch.delenv(name)
    # Loggers keep the standard error they first saw, which here is closed after each command.
    monkeypatch.setattr("forebay_consumer.tune.cli.configure", lambda _: None)
    with capture_logs():
        yield


def tuned(folder: Path, *arguments: str, model: dict[str, Any] | None = None, **parts: Any) -> Result:
    file = folder / "worker.yaml"
    own = model or {"class": f"{HERE}:Words"}
    file.write_text(yaml.safe_dump({"kafka": KAFKA, "topics": TOPICS, "model": {"name": "words", **own}, **parts}))
    return CliRunner().invoke(app, ["tune", "--config", str(file), "--seconds", "1", *arguments])


def told(ended: Result) -> dict[str, Any]:
    assert ended.exit_code == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def written(folder: Path, *lines: str) -> str:
    file = folder / "requests.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return str(file)


def test_the_models_own_samples_are_measured_and_the_yaml_is_of_a_worker(tmp_path: Path) -> None:
    out = tmp_path / "best.yaml"
    ended = tuned(tmp_path, "--out", str(out))
    assert ended.exit_code == 0, ended.stderr
    assert "throughput of a backlog" in ended.stdout
    assert "knee" in ended.stdout
    assert "CPU ms/row" in ended.stdout
    assert "threads" not in ended.stdout
    assert "adaptive, to 20" in ended.stdout
    found = yaml.safe_load(out.read_text())
    assert ended.stdout.endswith(out.read_text())
    assert found["batching"].keys() == {"max_batch_size", "max_batch_cost", "linger_ms", "adaptive_linger"}
    joined = yaml.safe_load((tmp_path / "worker.yaml").read_text()) | found
    (tmp_path / "joined.yaml").write_text(yaml.safe_dump(joined))
    assert config.load(tmp_path / "joined.yaml").batching.max_batch_size == found["batching"]["max_batch_size"]


def test_requests_of_a_file_are_read_as_those_of_a_topic(tmp_path: Path) -> None:
    file = written(tmp_path, '{"text": "one two"}', "", "plain text", '{"inputs": ["a", "b", "c"]}', "bad", "{broken")
    ended = tuned(tmp_path, "--json", "--requests", file)
    found = told(ended)
    assert (found["requests"], found["refused"]) == (3, 2)
    assert "2 requests left out; the first: " in ended.stderr
    assert "line 5: invalid_request: bad" in ended.stderr
    # A request of three rows would be refused by a smaller size.
    assert min(cell["max_batch_size"] for cell in found["sweep"]) == 3
    assert {waits["load"] for waits in found["linger"]} == {0.1, 0.5, 0.9}
    assert sum(cell["best"] for cell in found["sweep"]) == 1


def test_rows_of_a_batch_are_bounded_as_the_worker_bounds_them(tmp_path: Path) -> None:
    file = written(tmp_path, "one")
    found = told(
        tuned(
            tmp_path,
            "--json",
            "--requests",
            file,
            limits={"max_in_flight": 2},
            batching={"max_batch_size": 2, "preferred_batch_sizes": [2]},
        )
    )
    assert [cell["max_batch_size"] for cell in found["sweep"]] == [1, 2]
    assert found["settings"]["batching"]["preferred_batch_sizes"] == []


@pytest.mark.parametrize(
    ("arguments", "name", "code", "words"),
    [
        pytest.param(["--requests", "nowhere.jsonl"], "Words", 2, "--requests nowhere.jsonl: No such file", id="file"),
        pytest.param(
            ["--requests", "a", "--topic-sample", "3"], "Words", 2, "--requests and --topic-sample", id="two sources"
        ),
        pytest.param(["--threads", "1,two"], "Words", 2, "'two' is no number of threads; allowed", id="no number"),
        pytest.param(["--threads", "1,2"], "Words", 2, "--threads: model.class=", id="threads of one's own"),
        pytest.param(["--dtypes", "bfloat16"], "Words", 2, "--dtypes: model.class=", id="dtypes of one's own"),
        pytest.param(["--out", "nowhere/best.yaml"], "Words", 2, "there is no such folder", id="no folder"),
        pytest.param(["--seconds", "0"], "Words", 2, "--seconds", id="no time"),
        pytest.param([], "Silent", 2, "there is nothing to measure with", id="no samples"),
        pytest.param([], "Short", 1, "not one batch could be run: WrongLength", id="a model that fails"),
        pytest.param(["--set", "model.lass=1"], "Words", 2, "model.lass", id="no such key"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, arguments: list[str], name: str, code: int, words: str) -> None:
    ended = tuned(tmp_path, *arguments, model={"class": f"{HERE}:{name}"})
    assert ended.exit_code == code
    assert words in ended.stderr.replace("\n", " ")
    assert ended.stdout == ""


def test_requests_that_are_all_refused_are_an_error_that_shows_the_first(tmp_path: Path) -> None:
    ended = tuned(tmp_path, "--requests", written(tmp_path, "bad", "bad"))
    assert ended.exit_code == 1
    assert "every request would be refused; the first is" in ended.stderr
    assert "line 1: invalid_request: bad" in ended.stderr


class Topic:
    """Stands for the reader of topics: two partitions of five records, in turns."""

    read_from: list[tuple[int, int]]

    def __init__(self, kafka: Any, topic: str, group: str) -> None:
        assert topic == "requests"

    def __enter__(self) -> "Topic":
        Topic.read_from = []
        return self

    def __exit__(self, *_: object) -> None: ...

    def partitions(self) -> list[int]:
        return [0, 1]

    def span(self, partition: int) -> Span:
        return Span(0, 5)

    def read(self, partition: int, span: Span) -> list[Entry]:
        Topic.read_from.append((partition, span.low))
        return [
            Entry(partition, offset, 10 * offset + partition, None, b"p%d o%d" % (partition, offset), self.headers())
            for offset in range(span.low, span.end)
        ]

    def headers(self) -> tuple[tuple[str, bytes], ...]:
        return (("deadline-ms", b"1"), ("reply-topic", b"elsewhere"), ("content-type", b"text/plain"))


def test_the_last_requests_of_each_partition_are_taken_in_the_order_of_their_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorded, "DeadLetterTopic", Topic)
    found = recorded.from_topics(KAFKA, ["requests"], 2)
    assert Topic.read_from == [(0, 3), (1, 3)]
    assert [raw.value for raw in found] == [b"p0 o3", b"p1 o3", b"p0 o4", b"p1 o4"]


def test_recorded_requests_are_measured_though_their_deadlines_have_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "DeadLetterTopic", Topic)
    found = told(tuned(tmp_path, "--json", "--topic-sample", "2"))
    assert (found["requests"], found["refused"], found["source"]) == (4, 0, "recorded")


def test_an_empty_topic_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Topic, "partitions", lambda _: [])
    monkeypatch.setattr(recorded, "DeadLetterTopic", Topic)
    with pytest.raises(FatalError, match="no request is there"):
        recorded.from_topics(KAFKA, ["requests"], 2)


@pytest.mark.models
def test_a_checkpoint_is_tried_in_each_precision_and_with_each_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []
    monkeypatch.setattr("forebay_consumer.models.threads.use_threads", used.append)
    save("classes", tmp_path / "checkpoint")
    model = {"task": "text-classification", "path": str(tmp_path / "checkpoint")}
    found = told(tuned(tmp_path, "--json", "--dtypes", "float32,bfloat16", "--threads", "2,1", model=model))
    assert set(used) == {1, 2}
    tried = {(cell["dtype"], cell["threads"]) for cell in found["sweep"]}
    assert tried == {(dtype, count) for dtype in ("float32", "bfloat16") for count in (1, 2)}
    assert found["settings"]["model"]["options"].keys() == {"dtype", "threads"}
    assert found["precision"] == found["settings"]["model"]["options"]["dtype"]
    assert found["packing"] is not None


def test_threads_are_not_tried_on_kernels_made_for_one_number_of_them(tmp_path: Path) -> None:
    model = {"task": "fill-mask", "path": str(tmp_path), "options": {"compile": True}}
    ended = tuned(tmp_path, "--threads", "1,2", model=model)
    assert ended.exit_code == 2
    assert "--threads with model.options.compile=true" in ended.stderr


@pytest.mark.models
def test_a_precision_that_is_none_is_refused_in_words(tmp_path: Path) -> None:
    ended = tuned(tmp_path, "--dtypes", "float8", model={"task": "fill-mask", "path": str(tmp_path)})
    assert ended.exit_code == 2
    assert "model.options.dtype='float8': allowed are checkpoint, float32, bfloat16, fast" in ended.stderr
