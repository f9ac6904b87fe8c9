"""kill -9 of a worker, at any moment: every request is answered, few are answered twice, no commit runs ahead."""

import random
from pathlib import Path
from typing import Any

import pytest

from support.checker import OnlineChecker
from support.pipeline import Pipeline
from support.promise import assert_all_committed, assert_kept, numbered
from support.scripted import digest
from support.worker import WorkerProcess, wait_until

REQUESTS = 400
BATCH = 16
LATER = 4 * BATCH
"""Requests that the dead worker never saw, however far it came."""
FEW, MORE, SEEDS = 5, 10, 20
PASS_S = 0.02


def _settings(pipeline: Pipeline, pass_s: float = 0.0) -> dict[str, object]:
    return pipeline.settings(
        model={"options": {"pass_s": pass_s}},
        batching={"max_batch_size": BATCH, "linger_ms": 5},
        delivery={"commit_interval_ms": 50},
        # What the dead worker may have held is run one by one: little of it, so that the survivor makes batches, too.
        limits={"max_in_flight": 2 * BATCH},
    )


def _seeds() -> list[Any]:
    """The first in `make test`, more in `make test-all`, all in `make test-faults`."""
    marks = [[], [pytest.mark.slow], [pytest.mark.long]]
    return [pytest.param(seed, marks=marks[(seed >= FEW) + (seed >= MORE)]) for seed in range(SEEDS)]


@pytest.mark.parametrize("seed", _seeds())
def test_row_01_and_004_6_a_worker_killed_in_mid_batch_loses_nothing(
    pipeline: Pipeline, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    texts = {f"{seed}-{number}": f"text {number} of seed {seed}" for number in range(REQUESTS + LATER)}
    kill_after = chance.randrange(1, REQUESTS // BATCH)
    requests = list(texts.items())
    pipeline.send_all(requests[:REQUESTS])
    victim = WorkerProcess(tmp_path, _settings(pipeline, PASS_S), "victim")
    survivor = WorkerProcess(tmp_path, _settings(pipeline), "survivor")
    with OnlineChecker(pipeline) as checker:
        with victim:
            wait_until(lambda: len(victim.passes()) > kill_after, f"{kill_after} passes")
            victim.kill()
        before = pipeline.reader()
        before.read_to_end()
        committed = {partition: max(0, offset) for partition, offset in pipeline.committed().items()}
        answered_by_victim = before.sources()
        before.close()
        with survivor:
            survivor.wait_serving()  # only what is there by then can have been with the dead worker
            pipeline.send_all(requests[REQUESTS:])
            reader = pipeline.reader()
            replies = reader.wait_for(len(texts))
            wait_until(lambda: pipeline.committed() == pipeline.ends(), "all is committed")
            assert survivor.stop() == 0
        assert max(survivor.batches()) > 1
        reader.read_to_end()
    assert checker.violations == []
    assert checker.looks > 0
    assert {reply.id for reply in replies} == texts.keys()
    for reply in reader.replies():
        assert reply.outputs[0]["digest"] == digest(texts[reply.id])  # type: ignore[union-attr]
    # What the dead worker had answered and no accepted commit covered is answered again, and nothing else.
    repeated = {source for source, times in reader.sources().items() if times > 1}
    uncovered = {source for source in answered_by_victim if source[1] >= committed[source[0]]}
    assert repeated <= uncovered
    assert max(reader.sources().values()) <= 2
    assert sum(times - 1 for times in reader.sources().values()) <= len(uncovered)


def test_row_02_a_worker_killed_between_answer_and_commit_repeats_each_answer_at_most_once(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    texts = numbered(64)
    settings = pipeline.settings(
        batching={"max_batch_size": BATCH, "linger_ms": 5}, delivery={"commit_interval_ms": 60_000}
    )
    with OnlineChecker(pipeline) as checker:
        with WorkerProcess(tmp_path, settings, "victim") as victim:
            victim.wait_serving()
            pipeline.send_all(texts.items())
            before = pipeline.reader()
            before.wait_for(len(texts))
            committed = pipeline.committed()
            victim.kill()
        assert all(offset < end for offset, end in zip(committed.values(), pipeline.ends().values(), strict=True))
        with WorkerProcess(tmp_path, _settings(pipeline), "survivor") as survivor:
            assert_all_committed(pipeline)
            assert survivor.stop() == 0
        reader = pipeline.reader()
        reader.read_to_end()
    checker.assert_kept()
    assert_kept(reader, texts, repeats=len(texts))
    assert max(reader.sources().values()) <= 2
