"""The network between worker and broker fails in every way that a proxy can: nothing is lost, nothing is repeated."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from support.checker import OnlineChecker
from support.pipeline import QUIET, Pipeline, end_offsets
from support.place import Place
from support.promise import assert_all_committed, assert_kept, numbered
from support.proxy import Proxy
from support.worker import WorkerProcess, wait_until

BATCH, HELD = 16, 64
# The group outlives the fault: then the client's own retries are all that could repeat a reply.
PATIENT = {"session.timeout.ms": 30_000, "reconnect.backoff.max.ms": 500}


def settings(pipeline: Pipeline, kafka: dict[str, Any]) -> dict[str, Any]:
    return pipeline.settings(
        kafka=kafka,
        model={"options": {"pass_s": 0.03}},
        batching={"max_batch_size": BATCH, "linger_ms": 5},
        delivery={"commit_interval_ms": 50},
        limits={"max_in_flight": HELD},
    )


Fault = Callable[[Proxy, WorkerProcess, Pipeline], None]


def written(pipeline: Pipeline) -> int:
    return sum(end_offsets(pipeline.bootstrap_servers, pipeline.replies, 2).values())


def go_on(pipeline: Pipeline, count: int) -> None:
    """Block until `count` more replies are written."""
    enough = written(pipeline) + count
    wait_until(lambda: written(pipeline) >= enough, "replies go on")


def stalled(worker: WorkerProcess) -> None:
    """Block until it holds all it may, all of it run and none of it confirmed."""
    wait_until(lambda: worker.metric("forebay_in_flight_rows") >= HELD, "it holds all it may")
    done, quiet = sum(worker.batches()), 0

    def rests() -> bool:
        """Over so many looks, 25 ms apart at least, that ten passes would have ended."""
        nonlocal done, quiet
        before, done = done, sum(worker.batches())
        quiet = quiet + 1 if before == done else 0
        return quiet >= 15 and worker.metric("forebay_in_flight_rows") >= HELD

    wait_until(rests, "nothing moves")


def cut(proxy: Proxy, worker: WorkerProcess, pipeline: Pipeline) -> None:
    proxy.cut()
    wait_until(lambda: worker.get("/readyz")[0] == 503, "the worker has noticed")


def black_hole(proxy: Proxy, worker: WorkerProcess, pipeline: Pipeline) -> None:
    lost = proxy.lost["requests"]  # of earlier tests
    proxy.black_hole()
    wait_until(lambda: proxy.lost["requests"] > lost, "replies were swallowed")
    stalled(worker)


def lost_answers(proxy: Proxy, worker: WorkerProcess, pipeline: Pipeline) -> None:
    before, lost = written(pipeline), proxy.lost["answers"]
    proxy.lose_answers()
    wait_until(lambda: proxy.lost["answers"] > lost and written(pipeline) > before, "replies are there, unconfirmed")
    stalled(worker)


def resets(proxy: Proxy, worker: WorkerProcess, pipeline: Pipeline) -> None:
    for _ in range(5):
        proxy.reset()
        go_on(pipeline, BATCH)


def latency(proxy: Proxy, worker: WorkerProcess, pipeline: Pipeline) -> None:
    proxy.delay(0.3)
    go_on(pipeline, 2 * HELD)


@pytest.mark.parametrize("fault", [cut, black_hole, lost_answers, resets, latency], ids=lambda fault: fault.__name__)
def test_row_10_a_network_fault_within_the_session_loses_nothing_and_repeats_nothing(
    place: Place, tmp_path: Path, fault: Fault
) -> None:
    pipeline, texts = place.pipeline(), numbered(1000)
    pipeline.send_all(texts.items())
    with OnlineChecker(pipeline) as checker:
        with WorkerProcess(tmp_path, settings(pipeline, PATIENT)) as worker:
            wait_until(lambda: written(pipeline) > 5 * BATCH, "it is in the middle of it")
            fault(place.proxy, worker, pipeline)
            place.proxy.heal()
            reader = pipeline.reader()
            reader.wait_for(len(texts))
            assert_all_committed(pipeline)
            assert worker.stop() == 0
    checker.assert_kept()
    assert_kept(reader, texts)


def test_row_10_a_worker_cut_off_past_its_session_repeats_only_what_no_commit_covered(
    place: Place, tmp_path: Path
) -> None:
    pipeline, texts = place.pipeline(), numbered(1000)
    pipeline.send_all(texts.items())
    kafka = {"reconnect.backoff.max.ms": 500, "session.timeout.ms": 3000}
    with OnlineChecker(pipeline) as checker:
        with WorkerProcess(tmp_path, settings(pipeline, kafka)) as worker:
            wait_until(lambda: written(pipeline) > 5 * BATCH, "it is in the middle of it")
            unheard = written(pipeline)
            place.proxy.lose_answers()  # its replies arrive, and it never learns so
            wait_until(lambda: written(pipeline) > unheard and pipeline.members(), "the broker still counts it")
            place.proxy.black_hole()
            wait_until(lambda: pipeline.members() == 0, "the broker has given it up")
            committed = {partition: max(0, offset) for partition, offset in pipeline.committed().items()}
            before = pipeline.reader()
            before.read_to_end()
            uncovered = {source for source in before.sources() if source[1] >= committed[source[0]]}
            before.close()
            place.proxy.heal()
            reader = pipeline.reader()
            reader.wait_for(len(texts))
            assert_all_committed(pipeline)
            assert worker.stop() == 0
    checker.assert_kept()
    assert_kept(reader, texts, repeats=len(uncovered) + HELD)


@pytest.mark.parametrize("idempotent", [False, True], ids=["plain", "idempotent"])
def test_row_10_lost_answers_make_a_plain_producer_repeat_and_an_idempotent_one_not(
    place: Place, idempotent: bool
) -> None:
    """The test of the test: the fault is real, and the promise rests on idempotence."""
    topic = place.pipeline().replies
    made = {"bootstrap.servers": place.proxy.bootstrap_servers, "enable.idempotence": idempotent, "acks": "all"}
    producer = Producer({**QUIET, **made, "reconnect.backoff.max.ms": 500})
    producer.produce(topic, b"first", partition=0)
    assert producer.flush(30) == 0, "it is connected, and has its id"
    place.proxy.lose_answers()
    for number in range(100):
        producer.produce(topic, str(number).encode(), partition=0)
    producer.poll(0)
    servers = place.broker.bootstrap_servers
    wait_until(lambda: end_offsets(servers, topic, 1)[0] > 1, "they are in the log, unconfirmed")
    place.proxy.heal()
    assert producer.flush(60) == 0
    repeated = end_offsets(servers, topic, 1)[0] - 101
    assert repeated == 0 if idempotent else repeated > 0
