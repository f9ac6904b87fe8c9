"""Delivery mode `queue`: a share group, more workers than partitions, no offsets."""

import signal
from pathlib import Path

import pytest
from confluent_kafka import Consumer

from forebay_local.broker import Broker
from forebay_schemas import Code
from support.broker import Topics
from support.pipeline import Pipeline
from support.promise import assert_dead_letters, assert_kept, numbered
from support.queue import BATCH, group_settings, queue_settings, send_in_batches, set_group, told
from support.worker import WorkerProcess, wait_until


@pytest.fixture
def single(broker: Broker, topics: Topics) -> Pipeline:
    """Of one partition."""
    return Pipeline(broker.bootstrap_servers, topics, partitions=1)


def test_a_bound_on_what_is_uncommitted_holds_up_no_poll(single: Pipeline, tmp_path: Path) -> None:
    texts = numbered(20 * BATCH)
    send_in_batches(single, texts)
    settings = queue_settings(single, pass_s=0.02)
    settings["delivery"]["max_uncommitted"] = 1
    with WorkerProcess(tmp_path, settings) as worker:
        reader = single.reader()
        reader.wait_for(len(texts))
        assert told(worker, "released") == 0
        assert worker.stop() == 0
    assert_kept(reader, texts)


def test_two_workers_share_one_partition_evenly(single: Pipeline, tmp_path: Path) -> None:
    texts = numbered(1600)
    settings = queue_settings(single, pass_s=0.02)
    with WorkerProcess(tmp_path, settings, "one") as one, WorkerProcess(tmp_path, settings, "two") as two:
        one.wait_serving()
        two.wait_serving()
        send_in_batches(single, texts)
        reader = single.reader()
        reader.wait_for(len(texts))
        shares = [sum(worker.batches()) for worker in (one, two)]
        assert one.stop() == 0
        assert two.stop() == 0
    assert_kept(reader, texts)
    assert min(shares) > 0.4 * len(texts), f"{shares} are no even shares"
    assert max(one.batches()) == BATCH


def test_a_new_group_begins_at_the_first_request_and_reads_no_aborted_one(single: Pipeline, tmp_path: Path) -> None:
    texts = numbered(20)
    single.send_all(texts.items())
    with WorkerProcess(tmp_path, queue_settings(single)) as worker:
        reader = single.reader()
        reader.wait_for(len(texts))
        assert worker.stop() == 0
    assert_kept(reader, texts)
    found = group_settings(single.bootstrap_servers, single.group)
    assert found["share.auto.offset.reset"] == "earliest"
    assert found["share.isolation.level"] == "read_committed"
    assert found["share.record.lock.duration.ms"] == "60000"
    assert found["share.delivery.count.limit"] == "10"


def test_what_an_operator_has_set_for_the_group_stays(single: Pipeline, tmp_path: Path) -> None:
    chosen = {"share.record.lock.duration.ms": "20000", "share.delivery.count.limit": "7"}
    set_group(single.bootstrap_servers, single.group, chosen)
    with WorkerProcess(tmp_path, queue_settings(single)) as worker:
        worker.wait_serving()
        (line,) = worker.lines("share_group")
        assert (line["lock_s"], line["limit"]) == (20, 7)
    assert chosen.items() <= group_settings(single.bootstrap_servers, single.group).items()


def test_a_lock_that_the_broker_does_not_allow_ends_the_worker_and_names_the_remedy(
    single: Pipeline, tmp_path: Path
) -> None:
    with WorkerProcess(tmp_path, queue_settings(single, queue={"lock_ms": 3_000_000})) as worker:
        wait_until(lambda: worker.process.poll() is not None, "it ends")
        (line,) = worker.lines("worker_failed")
    assert worker.process.returncode == 1
    assert "delivery.queue" in line["error"]
    assert "group.share.*" in line["error"]


def test_a_group_of_another_kind_ends_the_worker_and_names_the_remedy(single: Pipeline, tmp_path: Path) -> None:
    other = Consumer({"bootstrap.servers": single.bootstrap_servers, "group.id": single.group})
    other.subscribe([single.requests])
    wait_until(lambda: other.poll(0.1) is None and other.assignment(), "it has joined")
    with WorkerProcess(tmp_path, queue_settings(single)) as worker:
        wait_until(lambda: worker.process.poll() is not None, "it ends")
        (line,) = worker.lines("worker_failed")
    other.close()
    assert worker.process.returncode == 1
    assert "a kafka.group.id of its own" in line["error"]


def test_a_poll_larger_than_a_batch_is_answered_whole(single: Pipeline, tmp_path: Path) -> None:
    texts = numbered(500)
    single.send_all(texts.items(), partition=0)  # in one batch of the producer, or a few
    settings = queue_settings(single)
    with WorkerProcess(tmp_path, settings) as worker:
        reader = single.reader()
        reader.wait_for(len(texts))
        wait_until(lambda: told(worker, "answered") == len(texts), "all is acknowledged")
        assert worker.stop() == 0
    assert_kept(reader, texts)


def test_probes_and_metrics_answer(single: Pipeline, tmp_path: Path) -> None:
    texts = numbered(40)
    with WorkerProcess(tmp_path, queue_settings(single)) as worker:
        worker.wait_serving()
        wait_until(lambda: worker.get("/readyz")[0] == 200, "ready")
        single.send_all(texts.items())
        reader = single.reader()
        reader.wait_for(len(texts))
        wait_until(lambda: told(worker, "answered") == len(texts), "all is acknowledged")
        assert worker.get("/livez")[0] == 200
        wait_until(lambda: worker.metric("forebay_assigned_partitions") == 1, "the partition is shown")
        labels = {"topic": single.requests, "partition": "0"}
        wait_until(lambda: "forebay_lag{" in worker.get("/metrics")[1], "the lag is shown")
        wait_until(lambda: worker.metric("forebay_lag", **labels) == 0, "no lag")
        wait_until(lambda: worker.metric("forebay_uncommitted_records") == 0, "nothing is held")
        assert worker.metric("forebay_requests_total", code="", status="ok") == len(texts)
        assert worker.metric("forebay_redelivered_total") == 0
    reader.close()


def test_a_bad_request_gets_its_error_and_its_dead_letter_and_is_accepted(single: Pipeline, tmp_path: Path) -> None:
    with WorkerProcess(tmp_path, queue_settings(single)) as worker:
        single.send(b"\xff\xfe", id="bad")
        single.send("fine", id="good")
        single.flush()
        reader = single.reader()
        reader.wait_for(2)
        wait_until(lambda: told(worker, "answered") == 2, "both are accepted")
        assert worker.stop() == 0
    assert_kept(reader, {"good": "fine"}, errors={"bad": Code.INVALID_REQUEST})
    assert_dead_letters(single, {"bad": Code.INVALID_REQUEST})


def test_a_worker_that_is_to_stop_answers_what_it_runs_and_releases_the_rest(single: Pipeline, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    texts = numbered(6 * BATCH)
    held = f'{{"inputs": [{{"until": "{gate}"}}]}}'
    with WorkerProcess(tmp_path, queue_settings(single), "first") as first:
        first.wait_serving()
        single.send_all([("held", held)])
        wait_until(lambda: len(first.passes()) == 2, "it runs it")  # after the warm-up's
        send_in_batches(single, texts)
        wait_until(lambda: first.metric("forebay_in_flight_rows") > 1, "it holds more")
        first.signal(signal.SIGTERM)
        wait_until(lambda: told(first, "released") > 0, "what is not started is released")
        assert first.process.poll() is None
        with WorkerProcess(tmp_path, queue_settings(single), "second") as second:
            reader = single.reader()
            reader.wait_for(len(texts))
            assert "held" not in reader.ids(), "nobody else was given what is run"
            gate.touch()
            assert first.process.wait(60) == 0
            reader.wait_for(len(texts) + 1)
            assert second.stop() == 0
    assert_kept(reader, {**texts, "held": {"until": str(gate)}})
