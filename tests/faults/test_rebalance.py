"""Workers come and go under load: nothing is lost, and nothing is answered twice when they go gracefully."""

from pathlib import Path

import pytest

from support.checker import OnlineChecker
from support.pipeline import Pipeline
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
            wait_until(lambda: len(second.passes()) > 5, "the second shares the work")
            load(500)
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
    with (
        WorkerProcess(tmp_path, slow(pipeline, "classic"), "one") as one,
        WorkerProcess(tmp_path, slow(pipeline, "classic"), "two") as two,
    ):
        one.wait_serving()
        two.wait_serving()
        pipeline.send_all((str(number), f"text {number}") for number in range(2000))
        reader = pipeline.reader()
        reader.wait_for(2000)
        wait_until(lambda: pipeline.committed() == pipeline.ends(), "the lag is 0")
        assert one.stop() == 0
        assert two.stop() == 0
        reader.read_to_end()
    assert reader.ids() == {str(number): 1 for number in range(2000)}
    assert min(sum(one.batches()), sum(two.batches())) > 200, "both worked"
