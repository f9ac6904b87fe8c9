"""Workers come and go under load: nothing is lost, and nothing is answered twice when they go gracefully."""

import json
import re
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from confluent_kafka import OFFSET_INVALID

from support.checker import OnlineChecker
from support.pipeline import Pipeline
from support.promise import assert_all_committed, assert_kept, numbered
from support.worker import WorkerProcess, wait_until


def slow(pipeline: Pipeline, protocol: str) -> dict[str, object]:
    return pipeline.settings(
        kafka={"group.protocol": protocol},
        model={"options": {"pass_s": 0.05}},
        batching={"max_batch_size": 8, "linger_ms": 5},
    )


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_second_worker_joins_and_leaves_under_load(pipeline: Pipeline, tmp_path: Path, protocol: str) -> None:
    first = WorkerProcess(tmp_path, slow(pipeline, protocol), "first")
    second = WorkerProcess(tmp_path, slow(pipeline, protocol), "second")
    sent = 0

    def load(count: int) -> None:
        nonlocal sent
        pipeline.send_all((str(sent + number), f"text {sent + number}") for number in range(count))
        sent += count

    with OnlineChecker(pipeline) as checker, first:
        first.wait_serving()
        load(1000)
        with second:
            second.wait_serving()
            load(500)
            wait_until(lambda: len(second.passes()) > 5, "the second shares the work")
            assert second.stop() == 0
        wait_until(lambda: len(first.lines("assigned")) > 1, "the first takes over again")
        load(200)
        reader = pipeline.reader()
        reader.wait_for(sent)
        wait_until(lambda: pipeline.committed() == pipeline.ends(), "all is committed")
        assert first.stop() == 0
        reader.read_to_end()
    assert checker.violations == []
    assert reader.ids() == {str(number): 1 for number in range(sent)}


def test_000_9_a_burst_waits_as_lag_and_two_workers_share_it(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.send_all((str(number), f"text {number}") for number in range(2000))
    assert sum(pipeline.ends().values()) == 2000
    assert pipeline.committed() == dict.fromkeys(range(pipeline.partitions), OFFSET_INVALID), "all of it is lag"
    with (
        WorkerProcess(tmp_path, slow(pipeline, "classic"), "one") as one,
        WorkerProcess(tmp_path, slow(pipeline, "classic"), "two") as two,
    ):
        reader = pipeline.reader()
        reader.wait_for(2000)
        wait_until(lambda: pipeline.committed() == pipeline.ends(), "the lag is 0")
        assert one.stop() == 0
        assert two.stop() == 0
        reader.read_to_end()
    assert reader.ids() == {str(number): 1 for number in range(2000)}
    assert min(sum(one.batches()), sum(two.batches())) > 200, "both worked"


INSTANCES = 4  # as many as partitions: each is in a pass when the second worker joins


def wait_passes(worker: WorkerProcess, count: int) -> None:
    wait_until(lambda: len(worker.passes()) >= count, f"{worker.name} has begun {count} passes")


def silent_s(worker: WorkerProcess) -> float:
    """How long its polling loop has not turned."""
    found = re.search(r"([\d.]+) s ago", worker.get("/livez")[1])
    assert found is not None
    return float(found.group(1))


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_row_06_a_second_worker_that_joins_mid_batch_repeats_nothing(
    pipeline: Pipeline, tmp_path: Path, protocol: str
) -> None:
    gates = [tmp_path / f"gate-{number}" for number in range(pipeline.partitions)]
    blocked = {f"blocked-{number}": {"until": str(gate)} for number, gate in enumerate(gates)}
    texts = numbered(200)
    settings = pipeline.settings(
        kafka={"group.protocol": protocol},
        model={"options": {"pass_s": 0.02}, "instance_group": [{"count": INSTANCES}]},
        batching={"max_batch_size": 4, "linger_ms": 0},
        delivery={"drain_ms": 30_000},
        limits={"max_in_flight": 1000},  # with room left it polls, and hears at once of the second worker
    )
    with OnlineChecker(pipeline) as checker:
        with WorkerProcess(tmp_path, settings, "first") as first:
            first.wait_serving()
            for number, (id_, row) in enumerate(blocked.items()):
                pipeline.send(json.dumps({"inputs": [row]}), id=id_, partition=number)
                pipeline.flush()
                wait_passes(first, INSTANCES + 1 + number)
            pipeline.send_all(texts.items())
            wait_until(lambda: first.metric("forebay_in_flight_rows") >= 50, "more waits behind the passes")
            with WorkerProcess(tmp_path, settings, "second") as second:
                wait_until(lambda: silent_s(first) > 0.3, "the first waits for its passes, asked to give partitions up")
                for gate in gates:
                    gate.touch()
                second.wait_serving()
                reader = pipeline.reader()
                reader.wait_for(len(texts) + len(blocked))
                assert_all_committed(pipeline)
                assert len(second.passes()) > INSTANCES, "it ran what the first had not started"
                assert second.stop() == 0
            assert first.stop() == 0
    checker.assert_kept()
    assert_kept(reader, texts | blocked)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_row_07_workers_from_one_to_four_to_one_under_load_lose_and_repeat_nothing(
    pipeline: Pipeline, tmp_path: Path, protocol: str
) -> None:
    workers = [WorkerProcess(tmp_path, slow(pipeline, protocol), name) for name in ("one", "two", "three", "four")]
    texts: dict[str, str] = {}
    enough = threading.Event()

    def load() -> None:
        while not enough.wait(0.05):
            some = numbered(10, f"round-{len(texts)}")
            pipeline.send_all(some.items())
            texts.update(some)

    with OnlineChecker(pipeline) as checker, ExitStack() as running:
        loading = threading.Thread(target=load)
        loading.start()
        try:
            for worker in workers:
                running.enter_context(worker)
                worker.wait_serving()
                wait_passes(worker, 6)
            for worker in workers[1:]:
                assert worker.stop() == 0
            wait_until(lambda: workers[0].metric("forebay_assigned_partitions") == pipeline.partitions, "one has all")
        finally:
            enough.set()
            loading.join()
        reader = pipeline.reader()
        reader.wait_for(len(texts))
        assert_all_committed(pipeline)
        assert workers[0].stop() == 0
    checker.assert_kept()
    assert_kept(reader, texts)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_of_two_workers_with_one_group_instance_id_one_ends_naming_it_and_nothing_is_lost(
    pipeline: Pipeline, tmp_path: Path, protocol: str
) -> None:
    """The classic group fences the older, that of KIP-848 refuses the younger."""
    texts = numbered(400)
    kafka = {"group.protocol": protocol, "group.instance.id": "the-same"}
    settings = pipeline.settings(
        kafka=kafka, model={"options": {"pass_s": 0.05}}, batching={"max_batch_size": 8, "linger_ms": 5}
    )
    pipeline.send_all(texts.items())
    with OnlineChecker(pipeline) as checker:
        with WorkerProcess(tmp_path, settings, "older") as older:
            wait_until(lambda: len(older.passes()) > 3, "it works")
            with WorkerProcess(tmp_path, settings, "younger") as younger:
                both = (older, younger)
                wait_until(lambda: any(worker.process.poll() is not None for worker in both), "one ends")
                ended, left = both if older.process.poll() is not None else both[::-1]
                assert ended.process.wait() == 1
                (told,) = ended.lines("worker_failed")
                assert "give every worker its own group.instance.id" in told["error"]
                reader = pipeline.reader()
                reader.wait_for(len(texts))
                assert_all_committed(pipeline)
                assert left.stop() == 0
    checker.assert_kept()
    assert_kept(reader, texts, repeats=len(texts))
