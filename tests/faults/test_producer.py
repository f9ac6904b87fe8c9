"""The replies' producer has a fatal error, which librdkafka makes when it can no longer keep its own promise."""

import json
from pathlib import Path

import pytest

from support.checker import OnlineChecker
from support.place import Place
from support.promise import assert_all_committed, assert_kept, numbered
from support.raw_producer import bundled_library
from support.worker import WorkerProcess, wait_until

BATCH, HELD = 8, 64

pytestmark = pytest.mark.skipif(bundled_library() is None, reason="the wheel brings no librdkafka of its own")


def test_row_29_a_producer_that_ends_is_replaced_and_nothing_is_lost(place: Place, tmp_path: Path) -> None:
    pipeline, gate = place.pipeline(), tmp_path / "gate"
    texts: dict[str, object] = dict(numbered(30))
    texts["end"] = {"until": str(gate), "end_producers": str(tmp_path / "never")}
    more = numbered(100, "later")
    # Replies are cut off while the pass waits, so that much is unconfirmed when the producer ends.
    kafka = {"session.timeout.ms": 30_000, "reconnect.backoff.max.ms": 500}
    batching, limits = {"max_batch_size": BATCH, "linger_ms": 5}, {"max_in_flight": HELD}
    settings = pipeline.settings(kafka=kafka, model={"options": {"pass_s": 0.2}}, batching=batching, limits=limits)
    with OnlineChecker(pipeline) as checker:
        with WorkerProcess(tmp_path, settings) as worker:
            worker.wait_serving()
            for id_, text in texts.items():
                pipeline.send(text if isinstance(text, str) else json.dumps({"inputs": [text]}), id=id_, partition=0)
            pipeline.flush()
            wait_until(lambda: len(worker.passes()) > 1, "it works")
            place.proxy.cut()
            wait_until(lambda: sum(line["rows"] for line in worker.passes()[1:]) >= len(texts), "the last pass waits")
            gate.touch()
            (told,) = wait_until(lambda: worker.lines("producer_rebuilt"), "there is a new producer")
            place.proxy.heal()
            pipeline.send_all(more.items())
            reader = pipeline.reader()
            reader.wait_for(len(texts) + len(more))
            assert_all_committed(pipeline)
            assert worker.metric("forebay_producer_rebuilds_total") == 1
            assert worker.stop() == 0
    assert told["again"] > 0, "the new one was given something"
    checker.assert_kept()
    assert_kept(reader, {**texts, **more}, repeats=HELD)


def test_row_29_producers_that_end_again_and_again_end_the_worker_and_its_successor_answers_all(
    place: Place, tmp_path: Path
) -> None:
    pipeline, repaired = place.pipeline(), tmp_path / "repaired"
    texts: dict[str, object] = {f"end-{n}": {"end_producers": str(repaired), "n": n} for n in range(40)}
    for id_, text in texts.items():
        pipeline.send(json.dumps({"inputs": [text]}), id=id_, partition=0)
    pipeline.flush()
    broken = pipeline.settings(batching={"max_batch_size": 1}, model={"options": {"pass_s": 0.1}})
    with OnlineChecker(pipeline) as checker:
        with WorkerProcess(tmp_path, broken, "broken") as worker:
            assert worker.process.wait(60) == 1
        (told,) = worker.lines("worker_failed")
        assert "the producer cannot go on" in told["error"]
        assert "restart the worker" in told["error"]
        repaired.touch()
        with WorkerProcess(tmp_path, pipeline.settings(), "successor"):
            reader = pipeline.reader()
            reader.wait_for(len(texts))
            assert_all_committed(pipeline)
    checker.assert_kept()
    assert_kept(reader, texts, repeats=len(texts))
