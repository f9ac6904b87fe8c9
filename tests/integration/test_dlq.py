"""`forebay-consumer dlq` as an operator runs it: letters of a real worker, listed, shown, and put back."""

import json
import os
import pty
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from forebay_consumer import dead_letters
from forebay_consumer.dlq.topic import DeadLetterTopic
from forebay_consumer.errors import FatalError
from forebay_consumer.record import Fault
from forebay_schemas import Code, Failure, Result, read_request
from forebay_schemas.headers import RawHeaders, last_values
from support.consumer import make_record
from support.pipeline import Pipeline
from support.raw_producer import bundled_library, produce_raw
from support.worker import WorkerProcess


class Operator:
    """Runs the command with a configuration of `kafka` and `topics` only."""

    def __init__(self, pipeline: Pipeline, folder: Path) -> None:
        self.pipeline = pipeline
        self.config = folder / "operator.yaml"
        self.config.write_text(yaml.safe_dump(pipeline.settings()))
        self._letters: Any = Producer({"bootstrap.servers": pipeline.bootstrap_servers})

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "forebay_consumer", "dlq", command, "--config", str(self.config), *arguments],
            capture_output=True, check=False, timeout=90, env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip

    def lines(self, command: str, *arguments: str) -> list[dict[str, Any]]:
        """The JSON lines of a command that goes well."""
        told = self.run(command, "--json", *arguments)
        assert told.returncode == 0, told.stderr
        return [json.loads(line) for line in told.stdout.splitlines()]

    def put_back(self, *arguments: str) -> list[int]:
        """Offsets of the letters that a run put back."""
        return [line["offset"] for line in self.lines("redrive", *arguments)]

    def write(
        self,
        count: int = 1,
        code: Code = Code.MODEL_ERROR,
        *,
        topic: str | None = None,
        key: bytes | None = None,
        value: bytes | None = b"text",
        headers: RawHeaders | None = None,
        extra: Sequence[tuple[str, str]] = (),
        timestamp_ms: int = 0,
    ) -> None:
        """Write letters as a worker does; their requests were at offsets 0, 1, ... of partition 2."""
        for offset in range(count):
            record = make_record(
                offset, topic=topic or self.pipeline.requests, partition=2, key=key, value=value, headers=headers
            )
            fault = Fault(record, read_request(record)[0], code, "it failed", "forward")
            self._letters.produce(
                self.pipeline.dead_letters, value, key,
                headers=[*dead_letters.headers(fault, {"group": "g"}), *extra], timestamp=timestamp_ms,
            )  # fmt: skip
        assert self._letters.flush(30) == 0

    def requests(self) -> list[Any]:
        """What is in the request topic."""
        reader = self.pipeline.reader(self.pipeline.requests)
        reader.read_to_end()
        reader.close()
        return reader.messages


@pytest.fixture
def operator(pipeline: Pipeline, tmp_path: Path) -> Operator:
    return Operator(pipeline, tmp_path)


def answers(pipeline: Pipeline, tmp_path: Path, count: int, name: str) -> list[Result | Failure]:
    """All replies, once a worker that runs until then has written so many."""
    reader = pipeline.reader()
    with WorkerProcess(tmp_path, pipeline.settings(), name) as worker:
        reader.wait_for_replies(count)
        assert worker.stop() == 0
    reader.close()
    return reader.replies()


def test_failed_requests_are_put_back_and_answered_under_their_first_ids(
    operator: Operator, pipeline: Pipeline, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    row = {"raise_unless": str(gate)}
    body = json.dumps({"inputs": [row]})
    pipeline.send(body, id="by header", headers={"mine": b"\x00\xff"}, partition=0)
    pipeline.send(json.dumps({"id": "by body", "inputs": [row]}), partition=1)
    pipeline.send(body, key=b"by key", partition=3)
    pipeline.send(body, partition=2)
    pipeline.send("{oops", id="never", partition=0)
    pipeline.flush()
    ids = {"by header", "by body", "by key", f"{pipeline.requests}-2-0"}
    assert all(isinstance(reply, Failure) for reply in answers(pipeline, tmp_path, 5, "failing"))
    before = {(message.partition(), message.offset()): message for message in operator.requests()}

    listed = operator.lines("list")
    assert {(line["request_id"], line["code"]) for line in listed} == {
        *((id_, "model_error") for id_ in ids), ("never", "invalid_request"),
    }  # fmt: skip
    assert {(line["source"]["partition"], line["source"]["offset"]) for line in listed} == before.keys()
    assert not any(line["redriven"] for line in listed)

    planned = operator.lines("redrive", "--code", "model_error", "--dry-run")
    assert {line["request_id"] for line in planned} == ids
    assert len(operator.requests()) == len(before), "a dry run writes nothing"

    moved = operator.lines("redrive", "--code", "model_error")
    after = {(message.partition(), message.offset()): message for message in operator.requests()}
    assert {line["request_id"] for line in moved} == ids
    for line in moved:
        first = before[line["source"]["partition"], line["source"]["offset"]]
        again = after[line["target"]["partition"], line["target"]["offset"]]
        assert again.partition() == first.partition()
        assert (again.key(), again.value()) == (first.key(), first.value())
        headers = first.headers() or []
        assert again.headers()[: len(headers)] == headers

    gate.touch()
    results = [reply for reply in answers(pipeline, tmp_path, 9, "mended") if isinstance(reply, Result)]
    assert Counter(reply.id for reply in results) == Counter(ids)
    assert operator.put_back("--code", "model_error") == []
    assert len(operator.requests()) == len(after), "a second run puts nothing back"
    assert {line["request_id"] for line in operator.lines("list") if line["redriven"]} == ids


def test_a_request_that_fails_again_comes_back_as_it_was_and_counts_its_lives(
    operator: Operator, pipeline: Pipeline, tmp_path: Path
) -> None:
    pipeline.send("{oops", headers={"mine": b"\x00\xff"}, partition=2)
    pipeline.flush()
    answers(pipeline, tmp_path, 1, "first")
    id_ = f"{pipeline.requests}-2-0"
    for life in (1, 2):
        (moved,) = operator.lines("redrive")
        assert moved["redrives"] == life - 1
        replies = answers(pipeline, tmp_path, 1 + life, f"life-{life}")
        assert Counter(reply.id for reply in replies) == {id_: 1 + life}
        assert operator.requests()[-1].headers() == [
            ("mine", b"\x00\xff"), ("request-id", id_.encode()), ("forebay-redriven", str(life).encode()),
        ]  # fmt: skip
    assert [line["redrives"] for line in operator.lines("list")] == [0, 1, 2]


def test_letters_of_every_code_stay_reachable_whatever_was_put_back_before(operator: Operator) -> None:
    for _ in range(3):
        operator.write(code=Code.MODEL_ERROR)
        operator.write(code=Code.TIMEOUT)
    assert operator.put_back("--code", "timeout") == [1, 3, 5]
    operator.write(code=Code.TIMEOUT)
    assert operator.put_back("--code", "model_error", "--limit", "2") == [0, 2]
    assert operator.put_back("--since", "5", "--until", "6") == []
    assert operator.put_back("--code", "timeout", "--code", "poison") == [6]
    assert operator.put_back() == [4]
    assert operator.put_back() == []
    assert len(operator.requests()) == 7


@pytest.mark.skipif(bundled_library() is None, reason="needs the librdkafka that comes inside the wheel")
def test_row_20_what_strangers_write_to_the_dead_letter_topic_is_passed_over(
    operator: Operator, pipeline: Pipeline
) -> None:
    operator.write(count=200)  # so many that Python has specialised its loops
    produce_raw(pipeline.bootstrap_servers, pipeline.dead_letters, 0, b"", key=b"strange", headers=[(b"\xff", b"1")])
    operator.write()
    assert operator.put_back() == [*range(200), 201]


def test_another_group_keeps_a_count_of_its_own(operator: Operator) -> None:
    operator.write(2)
    assert operator.put_back() == [0, 1]
    assert operator.put_back("--group", "another") == [0, 1]


def test_no_key_is_not_an_empty_one_nor_no_value(operator: Operator) -> None:
    headers = [("a", None), ("a", b""), ("a", b"\xff"), ("forebay-offset", b"9")]
    kinds = (None, b"", b"\xff\x00")
    for key, value in product(kinds, kinds):
        operator.write(key=key, value=value, headers=headers)
    assert len(operator.put_back()) == 9
    requests = operator.requests()
    assert [(request.key(), request.value()) for request in requests] == list(product(kinds, kinds))
    assert all(request.headers()[:4] == headers for request in requests)


def test_show_tells_why_a_letter_is_here_and_writes_its_bytes(operator: Operator) -> None:
    operator.write(key=b"k", value=b'{"a": 1}', headers=[("mine", b"\x00")])
    operator.write(value=b"\xff\x00\n\xfe")
    page = operator.run("show", "0", "0").stdout.decode()
    assert "code      model_error in forward, attempts 1\nmessage   it failed\nput back  no\nkey       k\n" in page
    assert "  mine: 0x00  (1 bytes)\n  forebay-topic: " in page
    assert page.endswith('value     8 bytes of text\n{"a": 1}\n')
    assert (
        "value     4 bytes, no text; --raw writes them\n0xff000afe\n" in operator.run("show", "0", "1").stdout.decode()
    )
    assert operator.run("show", "0", "1", "--raw").stdout == b"\xff\x00\n\xfe"
    operator.put_back("--limit", "1")
    assert "put back  yes" in operator.run("show", "0", "0").stdout.decode()


@pytest.mark.parametrize(
    ("place", "told"),
    [
        pytest.param(("0", "2"), "no letter 0:2; the partition holds 0 to before 2", id="beyond the end"),
        pytest.param(("1", "0"), "has no partition 1; it has 0 to 0", id="no such partition"),
    ],
)
def test_show_says_what_there_is_instead(operator: Operator, place: tuple[str, str], told: str) -> None:
    operator.write(2)
    ended = operator.run("show", *place)
    assert ended.returncode == 1
    assert told in ended.stderr.decode()


def test_letters_are_chosen_by_time(operator: Operator) -> None:
    for seconds in (10, 30, 20, 40):
        operator.write(timestamp_ms=1_700_000_000_000 + seconds * 1000)
    since, until = "2023-11-14T22:13:40Z", "2023-11-14T22:14:00Z"
    assert [line["offset"] for line in operator.lines("list", "--since", since)] == [1, 2, 3]
    assert [line["offset"] for line in operator.lines("list", "--until", until)] == [0, 1, 2]
    assert operator.lines("list", "--since", "1h") == []
    choice = ("--since", since, "--until", until)
    told = operator.run("redrive", "--dry-run", *choice).stderr.decode().splitlines()
    assert told[-1] == "2 would be put back; 1 not asked for", "it began at the time, not at the beginning"
    assert operator.put_back(*choice) == [1, 2]
    assert operator.put_back() == [0, 3]


def test_what_a_broker_refuses_is_told_and_waits(operator: Operator, pipeline: Pipeline) -> None:
    narrow = pipeline.topics.create("narrow", partitions=1, config={"max.message.bytes": "5000"})
    operator.write(value=b"small")
    operator.write(value=os.urandom(20_000))
    ended = operator.run("redrive", "--to", narrow)
    assert ended.returncode == 1
    assert "not delivered" in ended.stderr.decode()
    assert 1 in operator.put_back(), "into the topic it came from"
    assert operator.put_back() == []


def test_a_topic_that_is_not_there_is_named_and_nothing_is_put_back(operator: Operator) -> None:
    operator.write()
    ended = operator.run("redrive", "--to", "not-there")
    assert ended.returncode == 1
    assert "'not-there'" in ended.stderr.decode()
    assert operator.put_back() == [0]


def test_letters_of_another_workers_topic_wait_for_it_or_for_a_target(operator: Operator, pipeline: Pipeline) -> None:
    operator.write(topic="elsewhere")
    operator.write()
    ended = operator.run("redrive")
    assert ended.returncode == 0
    assert "1 put back; 1 of a topic not in topics.requests" in ended.stderr.decode()
    (moved,) = operator.lines("redrive", "--to", pipeline.requests)
    assert (moved["source"]["topic"], moved["target"]["topic"]) == ("elsewhere", pipeline.requests)


def test_a_letter_that_lost_its_value_is_told_and_not_put_back(operator: Operator) -> None:
    operator.write(value=None, extra=[("forebay-value-omitted", "5000")])
    ended = operator.run("redrive")
    assert ended.returncode == 0
    assert "0 put back; 1 without its value or headers" in ended.stderr.decode()
    assert operator.requests() == []


def test_a_past_deadline_is_warned_of_and_can_be_dropped(
    operator: Operator, pipeline: Pipeline, tmp_path: Path
) -> None:
    operator.write(2, headers=[("deadline-ms", b"1000")])
    ended = operator.run("redrive", "--limit", "1")
    assert "1 with a deadline that is past" in ended.stderr.decode()
    ended = operator.run("redrive", "--drop-deadline")
    assert "deadline" not in ended.stderr.decode()
    first, second = sorted(answers(pipeline, tmp_path, 2, "worker"), key=lambda reply: reply.id)
    assert isinstance(first, Failure)
    assert first.code is Code.EXPIRED
    assert isinstance(second, Result)


def test_letters_that_retention_deleted_are_passed_over(operator: Operator, pipeline: Pipeline) -> None:
    operator.write(5)
    admin: Any = AdminClient({"bootstrap.servers": pipeline.bootstrap_servers})
    for deleted in admin.delete_records([TopicPartition(pipeline.dead_letters, 0, 3)]).values():
        deleted.result(30)
    assert [line["offset"] for line in operator.lines("list")] == [3, 4]
    assert "the partition holds 3 to before 5" in operator.run("show", "0", "1").stderr.decode()
    assert operator.put_back("--limit", "1") == [3]
    assert operator.put_back() == [4]


@pytest.mark.parametrize(
    ("retention_ms", "warned"),
    [pytest.param("604800000", False, id="as long as"), pytest.param("-1", True, id="for ever")],
)
def test_letters_kept_longer_than_the_note_of_them_are_warned_of(
    operator: Operator, pipeline: Pipeline, retention_ms: str, warned: bool
) -> None:
    topic = pipeline.topics.create("kept", partitions=1, config={"retention.ms": retention_ms})
    ended = operator.run("redrive", "--set", f"topics.dead_letters={topic}", "--set", "kafka.fetch.max.bytes=1000000")
    assert ended.returncode == 0
    *warnings, summary = ended.stderr.decode().splitlines()
    assert summary == "0 put back"
    assert ["they would be put back again" in line for line in warnings] == [True] * warned


def test_two_runs_at_once_notice_each_other(operator: Operator, pipeline: Pipeline) -> None:
    operator.write(2)
    kafka: Mapping[str, Any] = {"bootstrap.servers": pipeline.bootstrap_servers, "group.id": pipeline.group}
    with DeadLetterTopic(kafka, pipeline.dead_letters, f"{pipeline.group}.dlq-redrive") as slow:
        progress = slow.progress(0)
        assert operator.put_back() == [0, 1]
        with pytest.raises(FatalError, match="another dlq redrive is at work"):
            slow.check_alone(0)
        with pytest.raises(FatalError, match="another dlq redrive is at work"):
            slow.commit(0, progress)


def test_a_terminal_gets_a_table(operator: Operator) -> None:
    operator.write(2)
    screen, terminal = pty.openpty()
    ended = subprocess.run(
        [sys.executable, "-m", "forebay_consumer", "dlq", "list", "--config", str(operator.config)],
        stdout=terminal, stdin=subprocess.DEVNULL, check=False, timeout=90,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    try:
        while some := os.read(screen, 65_536):
            shown += some
    except OSError:  # how Linux tells the end of a terminal
        pass
    os.close(screen)
    assert ended.returncode == 0
    assert b"request id" in shown
    assert f"{operator.pipeline.requests}-2@1".encode() in shown


def test_no_broker_gives_one_readable_line(operator: Operator) -> None:
    ended = operator.run("list", "--set", "kafka.bootstrap.servers=127.0.0.1:1")
    assert ended.returncode == 1
    [line] = ended.stderr.decode().splitlines()
    assert "127.0.0.1:1" in line
    assert "is the broker running" in line
    assert ended.stdout == b""


def test_what_a_worker_writes_has_springs_headers(operator: Operator, pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.send("{oops", partition=3)
    pipeline.flush()
    answers(pipeline, tmp_path, 1, "worker")
    (request,) = operator.requests()
    reader = pipeline.reader(pipeline.dead_letters)
    reader.read_to_end()
    told = last_values(reader.messages[0].headers())
    assert told["kafka_dlt-original-topic"].decode() == pipeline.requests
    assert told["kafka_dlt-original-partition"] == (3).to_bytes(4, "big")
    assert told["kafka_dlt-original-offset"] == bytes(8)
    assert told["kafka_dlt-original-timestamp"] == request.timestamp()[1].to_bytes(8, "big")
    assert told["kafka_dlt-original-timestamp-type"] == b"CreateTime"
    assert told["kafka_dlt-original-consumer-group"].decode() == pipeline.group
    assert told["kafka_dlt-exception-fqcn"] == b"forebay.invalid_request"
