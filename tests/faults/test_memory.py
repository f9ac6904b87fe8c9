"""A long lag, of large records or of many: the worker's memory is bounded by its settings, not by the lag."""

from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Producer

from support.pipeline import QUIET, Pipeline, end_offsets
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


def test_row_35_after_a_death_no_more_is_held_than_there_is_room_for(pipeline: Pipeline, tmp_path: Path) -> None:
    """All that the dead one may have seen is suspect, and runs one by one; the rest of it waits in the topic."""
    count, size, budget = 200, 400_000, 4 * MB
    for number in range(count):
        pipeline.send(f"{number} ".ljust(size, "x"), id=str(number))
    pipeline.flush()
    settings = pipeline.settings(
        kafka={"session.timeout.ms": 1500, "heartbeat.interval.ms": 300},
        model={"class": "support.scripted:Measured", "options": {"pass_s": 0.02}},
        batching={"max_batch_size": 8, "linger_ms": 5},
        limits={"max_bytes_in_flight": budget},
    )
    reader = pipeline.reader()
    with WorkerProcess(tmp_path, settings, "first") as first:
        reader.wait_for(20)
        first.kill()
    held: list[float] = []
    with WorkerProcess(tmp_path, settings, "second") as second:
        second.wait_serving()

        def answered() -> bool:
            held.append(second.metric("forebay_in_flight_bytes"))
            reader.read(0.02)
            return len(reader.ids()) == count

        wait_until(answered, f"{count} are answered", 120)
        assert_all_committed(pipeline)
        assert second.stop() == 0
    assert max(held) > 0
    # A poll ends with the record that fills the room; one more is looked at where the next trial is not held.
    assert max(held) < budget + 3 * size


def fill(pipeline: Pipeline, count: int) -> None:
    """Write `count` small records in no time: nothing is remembered of them, and nothing waits for the broker."""
    bulk = {"linger.ms": 50, "compression.type": "lz4"}  # so dense that a fetch holds a great many
    producer: Any = Producer({**QUIET, **bulk, "bootstrap.servers": pipeline.bootstrap_servers})
    for number in range(count):
        while True:
            try:
                producer.produce(pipeline.requests, b"number %d" % number, partition=number % pipeline.partitions)
                break
            except BufferError:
                producer.poll(0.01)
    assert producer.flush(60) == 0
    assert sum(pipeline.ends().values()) == count


def memory(process: psutil.Process) -> tuple[int, int]:
    """Resident now, and at most so far, in bytes: /proc names both in kB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    named = dict(line.split(":", 1) for line in status.splitlines())
    return int(named["VmRSS"].split()[0]) * 1024, int(named["VmHWM"].split()[0]) * 1024


def serve_lag(pipeline: Pipeline, folder: Path, count: int, budget: int, until: int = 0) -> int:
    """Serve a lag of `count` small records until so few are left, and look all the while; the most memory it had."""
    settings = pipeline.settings(
        kafka={"compression.type": "lz4"},
        model={"class": "support.scripted:Measured"},
        batching={"max_batch_size": 1024, "linger_ms": 5},
        limits={"max_bytes_in_flight": budget},
    )
    fill(pipeline, count)
    with WorkerProcess(folder, settings, f"lag-{count}") as worker:
        wait_until(lambda: worker.get("/readyz")[0] == 200 and "forebay_lag{" in worker.get("/metrics")[1], "it serves")
        process = psutil.Process(worker.process.pid)
        looks, told_at = 0, count

        def answered() -> bool:
            nonlocal looks, told_at
            ready, page = worker.get("/readyz")[0], worker.get("/metrics")
            assert (ready, page[0]) == (200, 200), "both answer all the while"
            assert "forebay_lag{" in page[1]
            looks += 1
            lag = count - sum(end_offsets(pipeline.bootstrap_servers, pipeline.replies, 2).values())
            if lag <= told_at:
                now, most = memory(process)
                print(f"lag {lag:9,}: {now / MB:.0f} MB, {most / MB:.0f} MB at most; looked {looks} times")
                told_at -= 250_000
            return lag <= until

        wait_until(answered, f"{count - until} are answered", 600)
        if not until:
            assert_all_committed(pipeline)
        _, most = memory(process)
        assert worker.stop() == 0
    assert until or sum(end_offsets(pipeline.bootstrap_servers, pipeline.replies, 2).values()) == count, "none twice"
    return most


@pytest.mark.parametrize(
    "until", [pytest.param(1_500_000, marks=pytest.mark.slow), pytest.param(0, marks=pytest.mark.long)]
)
@pytest.mark.timeout(900)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_row_35_memory_is_as_flat_with_a_lag_of_two_million_small_records_as_with_a_hundred_thousand(
    pipeline: Pipeline, tmp_path: Path, until: int
) -> None:
    budget = 16 * MB
    other = Pipeline(pipeline.bootstrap_servers, pipeline.topics)
    # More than may be inside and ahead together: 8 batches, and 10,000 records of each partition.
    few = serve_lag(other, tmp_path, 100_000, budget)
    many = serve_lag(pipeline, tmp_path, 2_000_000, budget, until)
    print(
        f"{few / MB:.0f} MB at most with a short lag, {many / MB:.0f} MB with a long one; budget {budget / MB:.0f} MB"
    )
    # Of what is ahead there is never less than one fetch of each partition, and how much comes out of its compressed
    # batches is the writer's doing.
    assert many - few < 3 * budget
