"""Requests larger than the client fetches at once, and than the worker takes."""

import json
from pathlib import Path

import psutil
from confluent_kafka import Producer

from forebay_schemas import Code
from forebay_schemas.headers import last_values
from support.checker import OnlineChecker
from support.pipeline import Pipeline
from support.promise import assert_all_committed, assert_dead_letters, assert_kept
from support.worker import WorkerProcess, wait_until

MB = 2**20
FETCHED, TAKEN = 1000, 4 * MB


def test_row_16_a_request_larger_than_a_fetch_is_answered_and_one_larger_than_our_limit_is_refused_unread(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    roomy = {"max.message.bytes": str(32 * MB)}
    pipeline.requests = pipeline.topics.create("large", partitions=4, config=roomy)
    pipeline.dead_letters = pipeline.topics.create("large-dead", partitions=1, config=roomy)
    texts = {"large": "x" * (TAKEN - 100), **{f"small-{number}": f"text {number}" for number in range(20)}}
    # As JSON of many rows it would take some twenty times its bytes, if it were read.
    huge = json.dumps({"inputs": ["y"] * (6 * MB)}, separators=(",", ":"))
    errors = {f"huge-{number}": Code.TOO_LARGE for number in range(4)}
    settings = pipeline.settings(
        kafka={"max.partition.fetch.bytes": FETCHED, "message.max.bytes": 32 * MB},
        model={"class": "support.scripted:Brief"},
        limits={"max_request_bytes": TAKEN, "max_bytes_in_flight": 8 * MB},
    )
    with OnlineChecker(pipeline) as checker:
        with WorkerProcess(tmp_path, settings) as worker:
            worker.wait_serving()
            process = psutil.Process(worker.process.pid)
            before = process.memory_info().rss
            highest = 0
            producer = Producer({"bootstrap.servers": pipeline.bootstrap_servers, "message.max.bytes": 32 * MB})
            for number in range(4):
                producer.produce(pipeline.requests, huge, headers={"request-id": f"huge-{number}"}, partition=number)
            for number, (id_, text) in enumerate(texts.items()):
                producer.produce(pipeline.requests, text, headers={"request-id": id_}, partition=number % 4)
            assert producer.flush(60) == 0
            reader = pipeline.reader()

            def answered() -> bool:
                nonlocal highest
                highest = max(highest, process.memory_info().rss)
                reader.read(0.02)
                return len(reader.ids()) == len(texts) + len(errors)

            wait_until(answered, "all are answered")
            assert_all_committed(pipeline)
            assert worker.stop() == 0
    print(f"{before / MB:.0f} MB before, {highest / MB:.0f} MB at most")
    checker.assert_kept()
    assert_kept(reader, texts, errors=errors)
    assert_dead_letters(pipeline, errors)
    letters = pipeline.reader(pipeline.dead_letters)
    letters.read_to_end()
    assert {last_values(letter.headers())["forebay-stage"] for letter in letters.messages} == {b"decode"}
    assert all(letter.value() == huge.encode() for letter in letters.messages), "as it came"
    assert highest - before < 400 * MB
