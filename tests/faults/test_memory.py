"""A long lag of large records: the worker's memory is bounded by its settings, not by the lag."""

from pathlib import Path

import psutil
import pytest

from support.pipeline import Pipeline
from support.promise import assert_all_committed
from support.worker import WorkerProcess, wait_until

MB = 2**20


@pytest.mark.parametrize("count", [400, pytest.param(4000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_row_35_memory_is_bounded_whatever_the_lag_of_large_records(
    pipeline: Pipeline, tmp_path: Path, count: int
) -> None:
    sizes: dict[str, int] = {}
    for number in range(count):
        text = f"{number} ".ljust(990_000, "x")
        sizes[str(number)] = len(text)
        pipeline.send(text, id=str(number))
        if number % 50 == 0:
            pipeline.flush()
    pipeline.flush()
    budget = 32 * MB
    settings = pipeline.settings(
        model={"class": "support.scripted:Measured", "options": {"pass_s": 0.1}},
        batching={"max_batch_size": 8, "linger_ms": 5},
        limits={"max_bytes_in_flight": budget},
    )
    with WorkerProcess(tmp_path, settings) as worker:
        process = psutil.Process(worker.process.pid)
        worker.wait_serving()
        before = process.memory_info().rss
        highest = 0
        reader = pipeline.reader()

        def answered() -> bool:
            nonlocal highest
            highest = max(highest, process.memory_info().rss)
            reader.read(0.02)
            return len(reader.ids()) == count

        wait_until(answered, f"{count} are answered", 600)
        assert_all_committed(pipeline)
        assert worker.stop() == 0
    print(f"{before / MB:.0f} MB before, {highest / MB:.0f} MB at most")
    assert all(reply.outputs == [sizes[reply.id]] for reply in reader.replies())  # type: ignore[union-attr]
    assert len(reader.sources()) == count
    # The requests inside are held as bytes, as text, and as the client's message; ahead of them the client fetches
    # half the budget for each of the partitions.
    assert highest - before < 3 * budget + pipeline.partitions * budget / 2
