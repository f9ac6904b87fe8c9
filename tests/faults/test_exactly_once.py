"""Exactly-once: whatever fails, who reads committed replies sees one answer to every request, and no partial step."""

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from forebay_schemas import Code
from support.checker import OnlineChecker
from support.pipeline import Pipeline
from support.place import Place
from support.promise import assert_all_committed, assert_dead_letters, assert_kept, numbered
from support.proxy import Proxy
from support.worker import WorkerProcess, wait_until

BATCH = 16
TIMEOUT_MS = 4000
CUTS = 3


def _settings(pipeline: Pipeline, **parts: Any) -> dict[str, Any]:
    return pipeline.settings(
        kafka={"transaction.timeout.ms": TIMEOUT_MS, "reconnect.backoff.max.ms": 500, **parts.pop("kafka", {})},
        model={"options": {"pass_s": 0.02, **parts.pop("options", {})}},
        batching={"max_batch_size": BATCH, "linger_ms": 5},
        delivery={"mode": "exactly-once", **parts.pop("delivery", {})},
        **parts,
    )


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_every_request_is_answered_once_and_its_offset_goes_with_the_answer(
    pipeline: Pipeline, tmp_path: Path, protocol: str
) -> None:
    texts = numbered(2000)
    pipeline.send_all(texts.items())
    settings = _settings(pipeline, kafka={"group.protocol": protocol})
    with OnlineChecker(pipeline) as checker, WorkerProcess(tmp_path, settings) as worker:
        reader = pipeline.reader()
        reader.wait_for(len(texts))
        assert_all_committed(pipeline)
        assert worker.stop() == 0
    checker.assert_kept()
    assert_kept(reader, texts)


def test_a_burst_on_one_partition_of_many_waits_for_no_linger(pipeline: Pipeline, tmp_path: Path) -> None:
    """Few of each partition are let in at once, fewer than a batch: the others come only behind the first answers."""
    wide = pipeline.topics.create("wide", partitions=12)
    settings = _settings(pipeline, topics={"requests": [wide]})
    settings["batching"] |= {"linger_ms": 60_000}
    with WorkerProcess(tmp_path, settings) as worker:
        worker.wait_serving()
        producer = Producer({"bootstrap.servers": pipeline.bootstrap_servers})
        for number in range(40):
            producer.produce(wide, json.dumps({"id": str(number), "inputs": ["text"]}), partition=3)
        assert producer.flush(30) == 0
        pipeline.reader().wait_for(40, within_s=40)  # one linger would be longer


@pytest.mark.parametrize("seed", range(5))
def test_row_03_a_worker_killed_at_any_moment_leaves_no_answer_behind_that_is_given_again(
    pipeline: Pipeline, tmp_path: Path, seed: int
) -> None:
    texts = numbered(400)
    pipeline.send_all(texts.items())
    after = random.Random(seed).randrange(1, 20)
    settings = _settings(pipeline)
    with OnlineChecker(pipeline) as checker:
        with WorkerProcess(tmp_path, settings, "victim") as victim:
            wait_until(lambda: len(victim.passes()) > after, f"{after} passes")
            victim.kill()
        with WorkerProcess(tmp_path, settings, "survivor") as survivor:
            reader = pipeline.reader()
            reader.wait_for(len(texts))
            assert_all_committed(pipeline)
            assert survivor.stop() == 0
    checker.assert_kept()
    assert_kept(reader, texts)


def test_row_03_a_worker_killed_with_its_transaction_open_shows_nothing_of_it_and_its_successor_answers(
    place: Place, tmp_path: Path
) -> None:
    pipeline, texts = place.pipeline(), numbered(400)
    settings = _settings(pipeline, delivery={"transactional_id": f"{pipeline.group}-pod-0"})
    with OnlineChecker(pipeline) as checker:
        with WorkerProcess(tmp_path, settings, "victim") as victim:
            victim.wait_serving()
            wait_until(
                lambda: victim.metric("forebay_commits_total", result="accepted"), "it has opened its partitions"
            )
            pipeline.send_all(texts.items())
            stop_in_transaction(victim, pipeline)
            victim.kill()
        with WorkerProcess(tmp_path, settings, "successor") as successor:
            reader = pipeline.reader()
            reader.wait_for(len(texts))
            assert_all_committed(pipeline)
            assert successor.stop() == 0
    checker.assert_kept()
    assert_kept(reader, texts)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_row_04_a_worker_that_wakes_after_its_session_shows_nothing_of_what_it_held(
    pipeline: Pipeline, tmp_path: Path, protocol: str
) -> None:
    texts, more = numbered(1200), numbered(100, "afterwards")  # enough for both, though one comes a second later
    settings = _settings(
        pipeline, kafka={"group.protocol": protocol}, options={"pass_s": 0.05}, limits={"max_in_flight": 64}
    )
    pipeline.send_all(texts.items())
    reader = pipeline.reader()
    with OnlineChecker(pipeline) as checker:
        with (
            WorkerProcess(tmp_path, settings, "zombie") as zombie,
            WorkerProcess(tmp_path, settings, "successor") as successor,
        ):
            wait_until(lambda: len(zombie.passes()) > 3 and len(successor.passes()) > 3, "both work")
            zombie.signal(signal.SIGSTOP)
            reader.wait_for(len(texts))
            assert_all_committed(pipeline)
            zombie.signal(signal.SIGCONT)
            pipeline.send_all(more.items())
            reader.wait_for(len(texts) + len(more))
            assert_all_committed(pipeline)
            assert successor.stop() == 0
            wait_until(lambda: zombie.process.poll() is not None or not zombie.metric("forebay_in_flight_rows"), "done")
            assert zombie.process.poll() is not None or zombie.stop() == 0
    checker.assert_kept()
    assert_kept(reader, texts | more)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_row_07_workers_that_join_and_leave_repeat_nothing(pipeline: Pipeline, tmp_path: Path, protocol: str) -> None:
    settings = _settings(pipeline, kafka={"group.protocol": protocol})
    texts = numbered(1500)
    parts = [dict(list(texts.items())[start : start + 500]) for start in (0, 500, 1000)]
    with OnlineChecker(pipeline) as checker, WorkerProcess(tmp_path, settings, "first") as first:
        first.wait_serving()
        pipeline.send_all(parts[0].items())
        with WorkerProcess(tmp_path, settings, "second") as second:
            second.wait_serving()
            pipeline.send_all(parts[1].items())
            wait_until(lambda: len(second.passes()) > 5, "the second shares the work")
            assert second.stop() == 0
        pipeline.send_all(parts[2].items())
        reader = pipeline.reader()
        reader.wait_for(len(texts))
        assert_all_committed(pipeline)
        assert first.stop() == 0
    checker.assert_kept()
    assert_kept(reader, texts)
    # What is handed over was not left by a process that died: nothing is run record by record.
    assert len(second.batches()) < sum(second.batches()) / 4


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_row_08_a_broker_killed_and_restarted_repeats_nothing(place: Place, tmp_path: Path, protocol: str) -> None:
    pipeline, texts = place.pipeline(), numbered(1000)
    pipeline.send_all(texts.items())
    kafka = {"session.timeout.ms": 30_000, "group.protocol": protocol}
    with OnlineChecker(pipeline) as checker:
        with WorkerProcess(tmp_path, _settings(pipeline, kafka=kafka)) as worker:
            wait_until(lambda: len(worker.passes()) > 10, "it is in the middle of it")
            place.broker.kill()
            wait_until(lambda: worker.get("/readyz")[0] == 503, "the worker is unready")
            place.broker.start()
            reader = pipeline.reader()
            reader.wait_for(len(texts))
            assert_all_committed(pipeline)
            assert worker.stop() == 0
    checker.assert_kept()
    assert_kept(reader, texts)


def test_row_09_a_broker_away_for_longer_than_a_transaction_may_take_repeats_nothing(
    place: Place, tmp_path: Path
) -> None:
    pipeline, texts = place.pipeline(), numbered(600)
    pipeline.send_all(texts.items())
    kafka = {"session.timeout.ms": 30_000, "socket.timeout.ms": 2000, "transaction.timeout.ms": 2000}
    with OnlineChecker(pipeline) as checker:
        with WorkerProcess(tmp_path, _settings(pipeline, kafka=kafka)) as worker:
            wait_until(lambda: len(worker.passes()) > 10, "it is in the middle of it")
            stop_in_transaction(worker, pipeline)
            place.proxy.black_hole()
            worker.signal(signal.SIGCONT)
            wait_until(lambda: not in_transaction(pipeline), "the broker has ended its transaction")
            place.proxy.heal()
            reader = pipeline.reader()
            reader.wait_for(len(texts))
            assert worker.lines("producer_ended")
            assert_all_committed(pipeline)
            assert worker.stop() == 0
    checker.assert_kept()
    assert_kept(reader, texts)


def in_transaction(pipeline: Pipeline) -> bool:
    """Whether anything was written to the replies that is neither committed nor aborted yet."""
    ends = []
    for level in ("read_committed", "read_uncommitted"):
        asker: Any = Consumer(
            {"bootstrap.servers": pipeline.bootstrap_servers, "group.id": "unused", "isolation.level": level}
        )
        known = asker.list_topics(pipeline.replies, timeout=10).topics[pipeline.replies].partitions
        places = [TopicPartition(pipeline.replies, partition) for partition in known]
        ends.append(sum(asker.get_watermark_offsets(place, timeout=10)[1] for place in places))
        asker.close()
    return bool(ends[0] < ends[1])


def stop_in_transaction(worker: WorkerProcess, pipeline: Pipeline) -> None:
    """SIGSTOP, at a moment at which a transaction of its is open."""

    def stopped() -> bool:
        worker.signal(signal.SIGSTOP)
        if in_transaction(pipeline):
            return True
        worker.signal(signal.SIGCONT)
        return False

    wait_until(stopped, "it has a transaction open")


def _lose_an_answer(proxy: Proxy, worker: WorkerProcess) -> None:
    """Between broker and worker, and with it the connection, while it works."""
    passes, lost = len(worker.passes()), proxy.lost["answers"]
    wait_until(lambda: len(worker.passes()) > passes + 5, "it is in the middle of it")
    proxy.lose_answers()
    wait_until(lambda: proxy.lost["answers"] > lost, "an answer was lost")
    proxy.heal()


def test_row_10_answers_of_the_broker_lost_in_transactions_lose_and_repeat_nothing(
    place: Place, tmp_path: Path
) -> None:
    pipeline, texts = place.pipeline(), numbered(1000)
    pipeline.send_all(texts.items())
    kafka = {"session.timeout.ms": 30_000, "transaction.timeout.ms": 60_000}
    with OnlineChecker(pipeline) as checker:
        with WorkerProcess(tmp_path, _settings(pipeline, kafka=kafka)) as worker:
            for _ in range(CUTS):
                _lose_an_answer(place.proxy, worker)
            reader = pipeline.reader()
            reader.wait_for(len(texts))
            assert_all_committed(pipeline)
            assert worker.stop() == 0
    checker.assert_kept()
    assert_kept(reader, texts)


def test_row_15_a_record_that_kills_the_process_is_found_and_nothing_is_repeated(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    texts = numbered(60)
    for id_, text in texts.items():
        pipeline.send(text, id=id_)
        if id_ == "text-40":
            pipeline.send('{"inputs": [{"exit": 9}]}', id="killer")
    pipeline.flush()
    deaths = 0
    settings = _settings(pipeline, kafka={"transaction.timeout.ms": 1000})
    with OnlineChecker(pipeline) as checker:
        while True:
            with WorkerProcess(tmp_path, settings) as worker:
                over = wait_until(
                    lambda: worker.process.poll() is not None or pipeline.committed() == pipeline.ends(), "its end"
                )
                assert over
                if worker.process.poll() is None:
                    assert worker.stop() == 0
                    break
            deaths += 1
            assert deaths <= 3
    checker.assert_kept()
    assert deaths > 0
    reader = pipeline.reader()
    assert_kept(reader, texts, errors={"killer": Code.POISON})
    assert_dead_letters(pipeline, {"killer": Code.POISON})


@pytest.mark.parametrize("where", ["client", "topic"])
def test_row_17_a_reply_too_large_is_an_error_of_its_own_and_neighbours_are_answered_once(
    pipeline: Pipeline, tmp_path: Path, where: str
) -> None:
    if where == "topic":
        pipeline.replies = pipeline.topics.create("small", partitions=2, config={"max.message.bytes": "20000"})
    texts = numbered(60)
    for id_, text in texts.items():
        pipeline.send(text, id=id_)
        if id_ in ("text-20", "text-40"):
            pipeline.send(json.dumps({"inputs": [{"huge": 30_000}]}), id=f"huge-{id_}")
    # What is to be echoed is too large for any reply, the error too.
    pipeline.send("small", id="echo", headers={"correlation-id": b"c" * 30_000, "traceparent": "t"})
    pipeline.flush()
    kafka = {"message.max.bytes": 20_000} if where == "client" else {}
    with OnlineChecker(pipeline) as checker, WorkerProcess(tmp_path, _settings(pipeline, kafka=kafka)) as worker:
        reader = pipeline.reader()
        reader.wait_for(len(texts) + 3)
        assert_all_committed(pipeline)
        assert worker.stop() == 0
    checker.assert_kept()
    huge = {"huge-text-20": Code.TOO_LARGE, "huge-text-40": Code.TOO_LARGE, "echo": Code.TOO_LARGE}
    assert_kept(reader, texts, errors=huge)
    assert_dead_letters(pipeline, huge)


def test_an_error_and_its_dead_letter_are_in_one_step_with_the_offset(pipeline: Pipeline, tmp_path: Path) -> None:
    texts = numbered(60)
    for id_, text in texts.items():
        pipeline.send(text, id=id_)
        if id_ == "text-30":
            pipeline.send(json.dumps({"inputs": [{"raise": True}]}), id="bad")
            pipeline.send("nowhere", id="astray", headers={"reply-partition": "77"})
    pipeline.flush()
    with OnlineChecker(pipeline) as checker, WorkerProcess(tmp_path, _settings(pipeline)) as worker:
        reader = pipeline.reader()
        reader.wait_for(len(texts) + 2)
        assert_all_committed(pipeline)
        assert worker.stop() == 0
    checker.assert_kept()
    assert_kept(reader, texts | {"astray": "nowhere"}, errors={"bad": Code.MODEL_ERROR})
    assert_dead_letters(pipeline, {"bad": Code.MODEL_ERROR})


def test_of_two_workers_with_the_same_transactional_id_one_ends_and_nothing_is_repeated(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    texts = numbered(600)
    settings = _settings(pipeline, delivery={"transactional_id": f"{pipeline.group}-pod-0"})
    with OnlineChecker(pipeline) as checker:
        with (
            WorkerProcess(tmp_path, settings, "first") as first,
            WorkerProcess(tmp_path, settings, "second") as second,
        ):
            pipeline.send_all(texts.items())
            both = (first, second)
            (fenced,) = wait_until(lambda: [one for one in both if one.process.poll() is not None], "one is fenced")
            assert fenced.process.returncode == 1
            assert "delivery.transactional_id" in fenced.log.read_text()
            reader = pipeline.reader()
            reader.wait_for(len(texts))
            assert_all_committed(pipeline)
            (left,) = {*both} - {fenced}
            assert left.stop() == 0
    checker.assert_kept()
    assert_kept(reader, texts)


def told_beside(pipeline: Pipeline, partition: int) -> str:
    """What stands beside the committed offset."""
    asker: Any = Consumer({"bootstrap.servers": pipeline.bootstrap_servers, "group.id": pipeline.group})
    try:
        (found,) = asker.committed([TopicPartition(pipeline.requests, partition)], timeout=30)
        return found.metadata or ""
    finally:
        asker.close()


def test_what_an_at_least_once_worker_answered_beyond_its_offset_is_not_answered_again(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    gate, texts = tmp_path / "gate", numbered(40)
    pipeline.send(json.dumps({"inputs": [{"until": str(gate)}]}), id="held", partition=0)
    pipeline.flush()
    before = _settings(pipeline, delivery={"mode": "at-least-once", "commit_interval_ms": 1})
    before["model"]["instance_group"] = [{"count": 2}]
    with OnlineChecker(pipeline) as checker:
        with WorkerProcess(tmp_path, before, "before") as first:
            wait_until(lambda: len(first.passes()) > 2, "the record is held")
            pipeline.send_all(texts.items(), partition=0)
            reader = pipeline.reader()
            reader.wait_for(len(texts))
            wait_until(lambda: f"done 1-{len(texts) + 1}" in told_beside(pipeline, 0), "it is told beside the offset")
            first.kill()
        gate.touch()
        with WorkerProcess(tmp_path, _settings(pipeline), "after") as after:
            reader.wait_for(len(texts) + 1)
            assert_all_committed(pipeline)
            assert after.stop() == 0
    checker.assert_kept()
    assert_kept(reader, texts | {"held": {"until": str(gate)}})
