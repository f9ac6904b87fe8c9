"""Workers that stall, and whom the group takes for dead or does not: the late results of one harm nobody."""

import json
import signal
from pathlib import Path

import pytest

from support.checker import OnlineChecker
from support.pipeline import Pipeline
from support.promise import assert_all_committed, assert_kept, numbered
from support.worker import WorkerProcess, wait_until

BATCH, HELD = 8, 32


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_row_04_a_worker_that_wakes_after_its_session_commits_nothing_of_its_successor(
    pipeline: Pipeline, tmp_path: Path, protocol: str
) -> None:
    texts = numbered(400)
    settings = pipeline.settings(
        kafka={"group.protocol": protocol},
        model={"options": {"pass_s": 0.05}},
        batching={"max_batch_size": BATCH, "linger_ms": 5},
        delivery={"commit_interval_ms": 50},
        limits={"max_in_flight": HELD},
    )
    reader = pipeline.reader()
    with OnlineChecker(pipeline) as checker:
        with (
            WorkerProcess(tmp_path, settings, "zombie") as zombie,
            WorkerProcess(tmp_path, settings, "successor") as successor,
        ):
            zombie.wait_serving()
            successor.wait_serving()
            wait_until(lambda: pipeline.members() == 2, "both share the partitions")
            pipeline.send_all(texts.items())
            wait_until(lambda: len(zombie.passes()) > 3 and len(successor.passes()) > 3, "both work")
            zombie.signal(signal.SIGSTOP)
            reader.wait_for(len(texts))  # the successor has taken over and answered the zombie's, too
            assert_all_committed(pipeline)
            once = set(reader.sources())
            zombie.signal(signal.SIGCONT)
            more = numbered(100, "afterwards")
            pipeline.send_all(more.items())
            reader.wait_for(len(texts) + len(more))
            wait_until(lambda: zombie.metric("forebay_in_flight_rows") == 0, "the zombie is done with what it held")
            assert_all_committed(pipeline)
            assert zombie.stop() == 0
            assert successor.stop() == 0
    checker.assert_kept()
    # What the zombie held when it was stopped, and what it had answered but no accepted commit covered.
    assert_kept(reader, texts | more, repeats=4 * HELD)
    assert max(reader.sources().values()) <= 2
    assert {source for source, times in reader.sources().items() if times > 1} <= once


def test_row_05_a_pass_that_outlasts_max_poll_interval_keeps_its_partition_and_is_answered_once(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    settings = pipeline.settings(
        kafka={"max.poll.interval.ms": 3500, "session.timeout.ms": 3000},
        batching={"max_batch_size": 1},
        limits={"max_in_flight": 1},
    )
    slow = {"sleep_s": 5}  # the thing under test: half as long again as the group's patience
    texts = numbered(40)
    with OnlineChecker(pipeline) as checker:
        with (
            WorkerProcess(tmp_path, settings, "one") as one,
            WorkerProcess(tmp_path, settings, "two") as two,
        ):
            one.wait_serving()
            two.wait_serving()
            pipeline.send(json.dumps({"inputs": [slow]}), id="slow", partition=0)
            pipeline.send_all(texts.items())
            reader = pipeline.reader()
            reader.wait_for(len(texts) + 1)
            assert_all_committed(pipeline)
            assert one.metric("forebay_rebalances_total", kind="lost") == 0
            assert two.metric("forebay_rebalances_total", kind="lost") == 0
            assert one.stop() == 0
            assert two.stop() == 0
    checker.assert_kept()
    assert_kept(reader, {**texts, "slow": slow})
