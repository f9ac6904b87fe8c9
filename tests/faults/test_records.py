"""Records of every odd kind: each ends in an answer of its own, and its neighbours are untouched."""

import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from forebay_schemas import Code, Failure, Result
from forebay_schemas.headers import last_values
from support.checker import OnlineChecker
from support.pipeline import Pipeline
from support.promise import assert_all_committed, assert_dead_letters, assert_kept, numbered
from support.raw_producer import bundled_library, produce_raw
from support.scripted import digest
from support.worker import WorkerProcess


def test_row_18_requests_with_the_same_id_are_both_answered_and_never_swapped(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    texts: dict[tuple[int, int], str] = {}
    for number in range(pipeline.partitions * 8):
        partition, offset = number % pipeline.partitions, number // pipeline.partitions
        texts[partition, offset] = f"text of {partition}, {offset}"
        pipeline.send(texts[partition, offset], id="twin" if offset % 2 else f"own-{number}", partition=partition)
    pipeline.flush()
    with WorkerProcess(tmp_path, pipeline.settings(model={"options": {"pass_s": 0.05}})) as worker:
        assert_all_committed(pipeline)
        assert worker.stop() == 0
    reader = pipeline.reader()
    reader.read_to_end()
    assert reader.sources() == dict.fromkeys(texts, 1)
    assert reader.ids()["twin"] == len(texts) // 2
    for message, reply in zip(reader.messages, reader.replies(), strict=True):
        assert isinstance(reply, Result)
        headers = last_values(message.headers())
        source = int(headers["source-partition"]), int(headers["source-offset"])
        assert reply.outputs[0]["digest"] == digest(texts[source])


def test_row_19_a_tombstone_and_an_empty_value_are_told_apart_and_neighbours_are_answered(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    texts = numbered(8)
    for number, (id_, text) in enumerate(texts.items()):
        pipeline.send(text, id=id_, partition=0)
        if number == 3:
            pipeline.send(None, id="tombstone", partition=0)
            pipeline.send(b"", id="empty", partition=0)
    pipeline.flush()
    with OnlineChecker(pipeline) as checker, WorkerProcess(tmp_path, pipeline.settings()) as worker:
        reader = pipeline.reader()
        reader.wait_for(len(texts) + 2)
        assert_all_committed(pipeline)
        assert worker.stop() == 0
    checker.assert_kept()
    errors = {"tombstone": Code.INVALID_REQUEST, "empty": Code.INVALID_REQUEST}
    assert_kept(reader, texts, errors=errors)
    assert_dead_letters(pipeline, errors)
    told = {reply.id: reply.message for reply in reader.replies() if isinstance(reply, Failure)}
    assert told["tombstone"] != told["empty"]
    letters = pipeline.reader(pipeline.dead_letters)
    letters.read_to_end()
    values = {last_values(letter.headers())["request-id"]: letter.value() for letter in letters.messages}
    assert values == {b"tombstone": None, b"empty": b""}


HEADERS: dict[str, list[tuple[str, bytes | None]]] = {
    "none": [],
    "no value": [("mine", None)],
    "not utf-8": [("mine", b"\xff\xfe")],
    "empty name": [("", b"mine")],
    "repeated": [("mine", b"1"), ("mine", b"2")],
    "long": [("m" * 1000, b"v" * 10_000)],
    "many": [(f"mine-{number}", b"v") for number in range(200)],
}


def test_row_20_headers_of_every_kind_reach_no_neighbour_and_none_is_needed(pipeline: Pipeline, tmp_path: Path) -> None:
    producer = Producer({"bootstrap.servers": pipeline.bootstrap_servers})
    texts: dict[str, Any] = {}
    for name, headers in HEADERS.items():
        texts[name] = f"with headers: {name}"
        producer.produce(pipeline.requests, texts[name], key=name, headers=headers or None, partition=0)
    assert producer.flush(30) == 0
    with OnlineChecker(pipeline) as checker, WorkerProcess(tmp_path, pipeline.settings()) as worker:
        reader = pipeline.reader()
        reader.wait_for(len(texts))
        assert_all_committed(pipeline)
        assert worker.stop() == 0
    checker.assert_kept()
    assert_kept(reader, texts)


@pytest.mark.skipif(bundled_library() is None, reason="needs the librdkafka that comes inside the wheel")
def test_row_20_a_header_name_that_is_not_utf8_is_an_error_of_its_own(pipeline: Pipeline, tmp_path: Path) -> None:
    texts = numbered(600)  # so many that Python has specialised its loops by then
    sent = list(texts.items())
    pipeline.send_all(sent[:300], partition=0)
    produce_raw(
        pipeline.bootstrap_servers,
        pipeline.requests,
        0,
        b"a good text",
        key=b"bad name",
        headers=[(b"good", b"1"), (b"\xff\xfe", b"2"), (b"none", None)],
    )
    pipeline.send_all(sent[300:], partition=0)
    with OnlineChecker(pipeline) as checker, WorkerProcess(tmp_path, pipeline.settings()) as worker:
        reader = pipeline.reader()
        reader.wait_for(len(texts) + 1)
        assert_all_committed(pipeline)
        assert worker.stop() == 0
    checker.assert_kept()
    assert_kept(reader, texts, errors={"bad name": Code.INVALID_REQUEST})
    letters = pipeline.reader(pipeline.dead_letters)
    letters.read_to_end()
    (letter,) = letters.messages
    assert (letter.key(), letter.value()) == (b"bad name", b"a good text")


def test_row_30_aborted_requests_are_never_run_and_markers_hold_no_commit_back(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    texts = {}
    producer = Producer({"bootstrap.servers": pipeline.bootstrap_servers, "transactional.id": pipeline.group})
    producer.init_transactions(30)
    for turn in range(12):
        producer.begin_transaction()
        kept = turn % 3 != 1
        for id_, text in numbered(10, f"turn-{turn}").items():
            producer.produce(pipeline.requests, text, headers={"request-id": id_}, partition=turn % pipeline.partitions)
            if kept:
                texts[id_] = text
        producer.flush(30)  # an aborted batch is in the log, too
        if kept:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)
    asked = pipeline.reader(pipeline.requests)
    asked.read_to_end()
    visible = {(message.partition(), message.offset()) for message in asked.messages}
    assert sum(pipeline.ends().values()) > len(texts) + 12, "the log holds markers and aborted batches"
    with OnlineChecker(pipeline, visible) as checker:
        with WorkerProcess(tmp_path, pipeline.settings(delivery={"commit_interval_ms": 20})) as worker:
            reader = pipeline.reader()
            reader.wait_for(len(texts))
            assert_all_committed(pipeline)
            assert worker.stop() == 0
    checker.assert_kept()
    assert_kept(reader, texts)
    assert reader.sources().keys() == visible


def test_row_32_a_request_whose_deadline_has_passed_is_expired_without_a_pass(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    past, future = str(int(time.time() * 1000) - 1), str(int(time.time() * 1000) + 600_000)
    texts = numbered(10)
    for number, (id_, text) in enumerate(texts.items()):
        pipeline.send(text, id=id_, headers={"deadline-ms": future}, partition=0)
        pipeline.send(
            "{oops" if number == 9 else "late", id=f"late-{number}", headers={"deadline-ms": past}, partition=0
        )
    pipeline.flush()
    with OnlineChecker(pipeline) as checker, WorkerProcess(tmp_path, pipeline.settings()) as worker:
        reader = pipeline.reader()
        reader.wait_for(2 * len(texts))
        assert_all_committed(pipeline)
        assert worker.stop() == 0
    checker.assert_kept()
    errors = {f"late-{number}": Code.EXPIRED for number in range(9)} | {"late-9": Code.INVALID_REQUEST}
    assert_kept(reader, texts, errors=errors)
    assert_dead_letters(pipeline, {"late-9": Code.INVALID_REQUEST})
    warm_up, *passes = (line["rows"] for line in worker.passes())
    assert warm_up == 1
    assert sum(passes) == len(texts), "what nobody waits for is not run"
