"""What batches really form on a real broker. Times are read from replies; the wall tells what took no less."""

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Producer

from forebay_schemas import Code, Failure, Result
from support.pipeline import Pipeline
from support.scripted import digest
from support.worker import WorkerProcess, wait_until


def texts(count: int) -> Iterator[tuple[str, str]]:
    return ((str(number), f"text number {number}") for number in range(count))


@contextmanager
def served(pipeline: Pipeline, folder: Path, **batching: object) -> Iterator[WorkerProcess]:
    # All costs are alike here: what counts is how many there are. The rows of the sources are about a fixed wait.
    with WorkerProcess(folder, pipeline.settings(batching={"adaptive_linger": False, **batching})) as worker:
        yield worker


def batches_of(pipeline: Pipeline, folder: Path, count: int, **batching: object) -> list[int]:
    """Send `count` requests to one partition, then start a worker; the batches it ran."""
    pipeline.send_all(texts(count), partition=0)
    with served(pipeline, folder, **batching) as worker:
        pipeline.reader().wait_for(count)
        wait_until(lambda: sum(worker.batches()) == count, "every batch is logged")
        return worker.batches()


def test_000_2_single_requests_of_64_producers_are_batched_on_the_server(pipeline: Pipeline, tmp_path: Path) -> None:
    producers = [Producer({"bootstrap.servers": pipeline.bootstrap_servers}) for _ in range(64)]
    for number, producer in enumerate(producers):
        producer.produce(pipeline.requests, value=f"text {number}", key=str(number), partition=0)
    assert sum(producer.flush(30) for producer in producers) == 0
    with served(pipeline, tmp_path, max_batch_size=64) as worker:
        pipeline.reader().wait_for(64)
        wait_until(lambda: sum(worker.batches()) == 64, "every batch is logged")
        assert max(worker.batches()) > 1


def test_000_4_no_batch_exceeds_the_batch_size(pipeline: Pipeline, tmp_path: Path) -> None:
    assert max(batches_of(pipeline, tmp_path, 100, batch_size=7)) == 7


def test_000_5_a_lone_request_waits_for_the_linger(pipeline: Pipeline, tmp_path: Path) -> None:
    with served(pipeline, tmp_path, linger_ms=300) as worker:
        worker.wait_serving()
        sent = time.monotonic()
        pipeline.send_all(texts(1))
        (reply,) = pipeline.reader().wait_for(1)
        took_s = time.monotonic() - sent
        (batch,) = wait_until(lambda: worker.lines("batch_done"), "the batch is logged")
    assert isinstance(reply, Result)
    assert batch["trigger"] == "linger"
    assert took_s >= 0.3, "the clock starts at the poll, which comes after the sending"


def test_without_a_batch_size_one_is_found_before_the_first_request(pipeline: Pipeline, tmp_path: Path) -> None:
    with served(pipeline, tmp_path, max_batch_size=None) as worker:
        pipeline.send_all(texts(20))
        pipeline.reader().wait_for(20)
        (profiled,) = worker.lines("profiled")
        assert profiled["rows_per_s"]
        assert worker.metric("forebay_max_batch_size") == profiled["max_batch_size"]


@pytest.mark.parametrize(("waiting", "sizes"), [(5, [5]), (64, [64]), (100, [64, 36])])
def test_000_6_a_batch_is_the_lesser_of_what_waits_and_the_batch_size(
    pipeline: Pipeline, tmp_path: Path, waiting: int, sizes: list[int]
) -> None:
    assert batches_of(pipeline, tmp_path, waiting, max_batch_size=64) == sizes


def test_000_7_full_batches_follow_each_other_without_waiting(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.send_all(texts(64), partition=0)
    with served(pipeline, tmp_path, max_batch_size=16, linger_ms=60_000) as worker:
        pipeline.reader().wait_for(64)
        batches = wait_until(lambda: (found := worker.lines("batch_done"))[3:] and found, "four batches")
    assert [(batch["rows"], batch["trigger"]) for batch in batches] == [(16, "size")] * 4


def test_001_5_a_linger_of_one_millisecond_takes_what_arrived(pipeline: Pipeline, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with served(pipeline, tmp_path, linger_ms=1) as worker:
        pipeline.send(json.dumps({"inputs": [{"until": str(gate)}]}), id="first", partition=0)
        pipeline.flush()
        wait_until(lambda: len(worker.passes()) > 1, "the first is in its pass")
        pipeline.send_all(texts(10), partition=0)
        wait_until(lambda: worker.metric("forebay_in_flight_rows") == 11, "the others have arrived")
        gate.touch()
        pipeline.reader().wait_for(11)
        wait_until(lambda: sum(worker.batches()) == 11, "every batch is logged")
        assert worker.batches() == [1, 10]


def test_001_6_a_backlog_of_ten_thousand_never_makes_a_larger_batch(pipeline: Pipeline, tmp_path: Path) -> None:
    sizes = batches_of(pipeline, tmp_path, 10_000)
    assert max(sizes) == 32
    assert sum(sizes) == 10_000


def test_001_7_a_trickle_does_not_move_the_first_requests_deadline(pipeline: Pipeline, tmp_path: Path) -> None:
    with served(pipeline, tmp_path, linger_ms=1000) as worker:
        worker.wait_serving()
        reader = pipeline.reader()
        number = 0
        while not reader.messages:  # a request every 0.1 s until the first is answered
            pipeline.send_all([(str(number), f"text {number}")], partition=0)
            reader.read(0.1)
            number += 1
        first = next(reply for reply in reader.replies() if reply.id == "0")
    assert isinstance(first, Result)
    assert first.timing["linger_ms"] < 2 * 1000
    assert first.timing["batch_size"] > 1


def test_001_8_without_linger_a_request_goes_at_once(pipeline: Pipeline, tmp_path: Path) -> None:
    with served(pipeline, tmp_path, linger_ms=0) as worker:
        worker.wait_serving()
        pipeline.send_all(texts(1))
        (reply,) = pipeline.reader().wait_for(1)
        wait_until(worker.batches, "the batch is told of, which is after its replies are handed on")
        assert worker.batches() == [1]
        assert isinstance(reply, Result)
        assert reply.timing["linger_ms"] < 20, "the default"


def test_001_9_the_first_request_of_every_batch_is_answered(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.send_all(texts(100), partition=0)
    with served(pipeline, tmp_path, max_batch_size=10):
        reader = pipeline.reader()
        reader.wait_for(100)
    assert reader.ids() == {str(number): 1 for number in range(100)}


def test_002_14_requests_of_several_rows_are_split_back_in_order(pipeline: Pipeline, tmp_path: Path) -> None:
    asked = {f"r{count}": [f"{count}.{row}" for row in range(count)] for count in range(1, 8)}
    for id_, rows in asked.items():
        pipeline.send(json.dumps({"inputs": rows}), id=id_, partition=0)
    pipeline.flush()
    with served(pipeline, tmp_path) as worker:
        replies = pipeline.reader().wait_for(len(asked))
        wait_until(worker.batches, "the batch is logged")
        assert worker.batches() == [sum(range(1, 8))], "one forward pass"
    for reply in replies:
        assert isinstance(reply, Result)
        assert [output["digest"] for output in reply.outputs] == [digest(row) for row in asked[reply.id]]


def test_002_15_a_hundred_requests_make_ten_batches_of_ten(pipeline: Pipeline, tmp_path: Path) -> None:
    assert batches_of(pipeline, tmp_path, 100, max_batch_size=10, linger_ms=200) == [10] * 10


def test_002_16_two_more_make_a_last_batch_of_two(pipeline: Pipeline, tmp_path: Path) -> None:
    assert batches_of(pipeline, tmp_path, 102, max_batch_size=10, linger_ms=2000) == [*[10] * 10, 2]


def test_a_backlog_that_comes_in_by_pieces_makes_full_batches(pipeline: Pipeline, tmp_path: Path) -> None:
    """There is room for 14: four wait beside an idle instance, and have waited in the topic for an hour."""
    for id_, text in texts(102):
        pipeline.send(text, id=id_, partition=0, timestamp_ms=int((time.time() - 3600) * 1000))
    pipeline.flush()
    settings = pipeline.settings(batching={"max_batch_size": 10, "linger_ms": 30_000}, limits={"max_in_flight": 14})
    with WorkerProcess(tmp_path, settings) as worker:
        pipeline.reader().wait_for(102)
        wait_until(lambda: sum(worker.batches()) == 102, "every batch is logged")
        assert worker.batches() == [*[10] * 10, 2]


def test_a_backlog_of_which_no_full_batch_has_room_lingers_for_nothing(pipeline: Pipeline, tmp_path: Path) -> None:
    for number in range(20):
        an_hour_ago_ms = int((time.time() - 3600) * 1000)
        pipeline.send("x" * 400_000, id=str(number), partition=0, timestamp_ms=an_hour_ago_ms)
    pipeline.flush()
    limits = {"max_bytes_in_flight": 2**20, "max_request_bytes": 2**19}
    settings = pipeline.settings(batching={"max_batch_size": 10, "linger_ms": 60_000}, limits=limits)
    with WorkerProcess(tmp_path, settings) as worker:
        pipeline.reader().wait_for(20, within_s=40)  # one linger would be longer
        assert worker.stop() == 0
    assert max(worker.batches()) < 10


def test_suspects_of_a_backlog_go_one_by_one_and_none_lingers(pipeline: Pipeline, tmp_path: Path) -> None:
    for id_, text in texts(20):
        pipeline.send(text, id=id_, partition=0, timestamp_ms=int((time.time() - 3600) * 1000))
    pipeline.flush()
    pipeline.commit(0, 0, "fb1 open +20")  # as one that died would have left it
    settings = pipeline.settings(batching={"max_batch_size": 10, "linger_ms": 60_000})
    with WorkerProcess(tmp_path, settings) as worker:
        pipeline.reader().wait_for(20)
        assert worker.stop() == 0
    assert worker.batches() == [1] * 20


def test_002_17_the_last_two_wait_the_whole_delay(pipeline: Pipeline, tmp_path: Path) -> None:
    with served(pipeline, tmp_path, max_batch_size=10, linger_ms=2000) as worker:
        worker.wait_serving()
        pipeline.send_all(texts(12), partition=0)
        replies = pipeline.reader().wait_for(12)
        wait_until(lambda: worker.batches() == [10, 2], "ten, then two")
    last = [reply for reply in replies if isinstance(reply, Result) and reply.timing["batch_size"] == 2]
    assert max(reply.timing["linger_ms"] for reply in last) >= 1950


def test_002_18_answers_do_not_depend_on_the_batch(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.send_all(texts(200))
    with served(pipeline, tmp_path, max_batch_size=32):
        replies = pipeline.reader().wait_for(200)
    assert len(replies) == 200
    for reply in replies:
        assert isinstance(reply, Result)
        assert reply.outputs[0]["digest"] == digest(f"text number {reply.id}")


def test_002_19_requests_of_one_to_six_rows_merge_to_at_most_ten(pipeline: Pipeline, tmp_path: Path) -> None:
    chance = random.Random(19)
    counts = {str(number): chance.randint(1, 6) for number in range(60)}
    for id_, count in counts.items():
        pipeline.send(json.dumps({"inputs": [f"{id_}.{row}" for row in range(count)]}), id=id_, partition=0)
    pipeline.flush()
    with served(pipeline, tmp_path, max_batch_size=10) as worker:
        replies = pipeline.reader().wait_for(60)
        batches = wait_until(
            lambda: sum(batch["requests"] for batch in worker.lines("batch_done")) == 60 and worker.lines("batch_done"),
            "every batch is logged",
        )
    assert all(batch["rows"] <= 10 for batch in batches)
    assert len({batch["requests"] for batch in batches}) > 1, "the number of requests varies"
    assert {reply.id: len(reply.outputs) for reply in replies if isinstance(reply, Result)} == counts


def test_004_1_ten_rows_are_one_pass_and_not_ten(pipeline: Pipeline, tmp_path: Path) -> None:
    assert batches_of(pipeline, tmp_path, 10, max_batch_size=10) == [10]


def test_004_3_a_backlog_of_100_goes_in_batches_of_32(pipeline: Pipeline, tmp_path: Path) -> None:
    assert batches_of(pipeline, tmp_path, 100, max_batch_size=32) == [32, 32, 32, 4]


def test_001_12_with_too_many_waiting_the_oldest_are_rejected_and_the_rest_is_served(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    pipeline.send_all(texts(60), partition=0)
    with WorkerProcess(tmp_path, pipeline.settings(limits={"max_backlog": 19})) as worker:
        replies = {int(reply.id): reply for reply in pipeline.reader().wait_for(60)}
        assert worker.stop() == 0
    rejected = {number for number, reply in replies.items() if isinstance(reply, Failure)}
    assert {reply.code for reply in replies.values() if isinstance(reply, Failure)} == {Code.REJECTED}
    assert rejected == set(range(40))
    assert pipeline.committed() == pipeline.ends()
    letters = pipeline.reader(pipeline.dead_letters)
    letters.read_to_end()
    assert letters.messages == [], "asking again is the client's choice"
