"""The broker dies, stops, or is out of reach: the worker holds what it has, commits nothing of it, and goes on."""

import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.checker import OnlineChecker
from support.pipeline import Pipeline
from support.place import Place
from support.promise import assert_all_committed, assert_kept, numbered
from support.worker import WorkerProcess, wait_until

BATCH, PASS_S = 16, 0.05
# The group outlives the outage, and the client looks for the broker often: then nothing is run twice.
PATIENT = {"session.timeout.ms": 30_000, "reconnect.backoff.max.ms": 500}


def settings(pipeline: Pipeline, kafka: dict[str, Any], pass_s: float = PASS_S, **parts: Any) -> dict[str, Any]:
    return pipeline.settings(
        kafka=kafka,
        model={"options": {"pass_s": pass_s}},
        batching={"max_batch_size": BATCH, "linger_ms": 5},
        delivery={"commit_interval_ms": 50},
        **parts,
    )


def wait_unready(worker: WorkerProcess) -> None:
    wait_until(lambda: worker.get("/readyz")[0] == 503, "the worker is unready")


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_row_08_a_broker_killed_and_restarted_loses_nothing_and_repeats_nothing(
    place: Place, tmp_path: Path, protocol: str
) -> None:
    pipeline, texts = place.pipeline(), numbered(1000)
    pipeline.send_all(texts.items())
    with OnlineChecker(pipeline) as checker:
        with WorkerProcess(tmp_path, settings(pipeline, {**PATIENT, "group.protocol": protocol})) as worker:
            wait_until(lambda: len(worker.passes()) > 10, "it is in the middle of it")
            place.broker.kill()
            wait_unready(worker)
            assert worker.get("/livez")[0] == 200
            place.broker.start()
            reader = pipeline.reader()
            reader.wait_for(len(texts))
            assert_all_committed(pipeline)
            wait_until(lambda: worker.get("/readyz")[0] == 200, "the worker is ready again")
            assert worker.stop() == 0
    checker.assert_kept()
    assert_kept(reader, texts)


def test_row_09_a_broker_stopped_past_the_session_loses_nothing(place: Place, tmp_path: Path) -> None:
    pipeline, texts = place.pipeline(), numbered(600)
    pipeline.send_all(texts.items())
    kafka = {"session.timeout.ms": 3000, "reconnect.backoff.max.ms": 500, "socket.timeout.ms": 2000}
    with OnlineChecker(pipeline) as checker:
        # So much room that polling goes on, and the client can tell that its session is over.
        limits = {"max_in_flight": 800}
        with WorkerProcess(tmp_path, settings(pipeline, kafka, limits=limits)) as worker:
            wait_until(lambda: len(worker.passes()) > 4, "it is in the middle of it")
            place.broker.pause()
            wait_until(lambda: worker.metric("forebay_rebalances_total", kind="lost"), "the partitions are lost")
            wait_rest(worker)  # what it held of them is through
            before = len(worker.passes())
            place.broker.resume()
            reader = pipeline.reader()
            reader.wait_for(len(texts))
            assert_all_committed(pipeline)
            assert worker.stop() == 0
    checker.assert_kept()
    assert_kept(reader, texts, repeats=len(texts))
    again = [line["rows"] for line in worker.passes()[before:]]
    assert sum(again) > 4 * len(again), "nobody died, so nobody is suspect: not record by record"
    assert max(reader.sources().values()) <= 2, "the session was lost once"


def test_row_28_with_a_full_producer_queue_intake_stops_memory_stays_and_no_commit_runs_ahead(
    place: Place, tmp_path: Path
) -> None:
    pipeline, held, queue = place.pipeline(), 800, 10
    pad = "x" * 1000
    texts = {id_: f"{text} {pad}" for id_, text in numbered(2000).items()}
    pipeline.send_all(texts.items())
    kafka = {**PATIENT, "queue.buffering.max.messages": queue}
    with OnlineChecker(pipeline) as checker:
        with WorkerProcess(tmp_path, settings(pipeline, kafka, limits={"max_in_flight": held})) as worker:
            process = psutil.Process(worker.process.pid)
            wait_until(lambda: len(worker.passes()) > 10, "it is in the middle of it")
            place.proxy.cut()
            at_the_cut, before = rows_run(worker), process.memory_info().rss
            wait_until(lambda: rows_run(worker) > at_the_cut + queue, "more has been run than the queue takes")
            wait_unready(worker)
            wait_rest(worker)
            assert worker.get("/livez")[0] == 200
            assert worker.metric("forebay_in_flight_rows") <= held + BATCH, "it took no more than it may hold"
            assert process.memory_info().rss - before < 32 * 2**20
            place.proxy.heal()
            reader = pipeline.reader()
            reader.wait_for(len(texts))
            assert_all_committed(pipeline)
            assert worker.stop() == 0
    checker.assert_kept()
    assert_kept(reader, texts)


def rows_run(worker: WorkerProcess) -> int:
    return sum(line["rows"] for line in worker.passes())


def wait_rest(worker: WorkerProcess) -> None:
    """Block until no pass has begun for a good many times as long as one takes."""
    seen, since = rows_run(worker), time.monotonic()

    def rests() -> bool:
        nonlocal seen, since
        if (now := rows_run(worker)) != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > 20 * PASS_S

    wait_until(rests, "it rests")


def test_row_31_sigterm_while_the_broker_is_down_ends_in_time_and_commits_nothing_unanswered(
    place: Place, tmp_path: Path
) -> None:
    pipeline, texts = place.pipeline(), numbered(1000)
    pipeline.send_all(texts.items())
    # The session outlives the shutdown: a worker that has lost its partitions would have nothing left to answer, and
    # nothing would keep its client from closing.
    limited = settings(
        pipeline, {**PATIENT, "session.timeout.ms": 10_000}, limits={"shutdown_ms": 2000, "max_in_flight": 32}
    )
    with OnlineChecker(pipeline) as checker:
        with WorkerProcess(tmp_path, limited, "first") as first:
            wait_until(lambda: len(first.passes()) > 10, "it is in the middle of it")
            place.broker.kill()
            wait_unready(first)
            first.signal(signal.SIGTERM)
            assert first.process.wait(8) == 1, "it could not answer what it held"
        place.broker.start()
        with WorkerProcess(tmp_path, settings(pipeline, {}, pass_s=0), "second") as second:
            reader = pipeline.reader()
            reader.wait_for(len(texts))
            assert_all_committed(pipeline)
            assert second.stop() == 0
    checker.assert_kept()
    assert_kept(reader, texts, repeats=len(texts))
