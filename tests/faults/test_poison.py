"""A record that kills the process: at most three deaths, then it is answered as poison, and no other record is."""

import random
from pathlib import Path

import pytest

from forebay_schemas import Code, Failure, Result
from support.checker import OnlineChecker
from support.pipeline import Pipeline
from support.scripted import digest
from support.worker import WorkerProcess, wait_until

REQUESTS = 120
# Every death costs a session, and nobody else is in the group.
CLOCKS = {"session.timeout.ms": 1500, "heartbeat.interval.ms": 300}


def _settings(pipeline: Pipeline) -> dict[str, object]:
    return pipeline.settings(
        kafka=CLOCKS,
        batching={"max_batch_size": 8, "linger_ms": 5, "lookahead": 4},
        delivery={"commit_interval_ms": 50},
    )


def _send(pipeline: Pipeline, seed: int) -> tuple[dict[str, str], str]:
    """Texts over all partitions, and one request among them that ends the process; its id."""
    chance = random.Random(seed)
    texts = {f"{seed}-{number}": f"text {number} of seed {seed}" for number in range(REQUESTS)}
    poison = f"{seed}-{chance.randrange(REQUESTS)}"
    pipeline.send_all((id_, '{"inputs": [{"exit": 9}]}' if id_ == poison else text) for id_, text in texts.items())
    return texts, poison


def _wait_for_the_end(pipeline: Pipeline, worker: WorkerProcess, passes: int) -> None:
    """Until the worker dies, has run so many passes, or has committed everything."""

    def ended() -> bool:
        dead = worker.process.poll() is not None
        return dead or len(worker.passes()) > passes or pipeline.committed() == pipeline.ends()

    wait_until(ended, "it dies, or is to be killed, or all is committed")


def _check(pipeline: Pipeline, texts: dict[str, str], poison: str) -> None:
    reader = pipeline.reader()
    reader.read_to_end()
    for reply in reader.replies():
        if reply.id == poison:
            assert isinstance(reply, Failure)
            assert reply.code is Code.POISON
        else:
            assert isinstance(reply, Result), f"{reply.id} is innocent: {reply}"
            assert reply.outputs[0]["digest"] == digest(texts[reply.id])
    assert reader.ids().keys() == texts.keys()
    letters = pipeline.reader(pipeline.dead_letters)
    letters.read_to_end()
    assert {dict(letter.headers() or [])["forebay-code"] for letter in letters.messages} == {b"poison"}


@pytest.mark.parametrize("others", [False, True], ids=["one worker again and again", "each life another worker"])
def test_row_15_a_record_that_kills_costs_three_deaths(pipeline: Pipeline, tmp_path: Path, others: bool) -> None:
    texts, poison = _send(pipeline, seed=int(others))
    deaths = 0
    with OnlineChecker(pipeline) as checker:
        while True:
            name = f"life-{deaths}" if others else "worker"
            with WorkerProcess(tmp_path, _settings(pipeline), name) as worker:
                wait_until(
                    lambda: worker.process.poll() is not None or pipeline.committed() == pipeline.ends(),
                    "it dies, or all is committed",
                )
                if worker.process.poll() is None:
                    assert worker.stop() == 0
                    break
                deaths += 1
                assert deaths <= 3, "found in three deaths"
    assert deaths > 0
    assert checker.violations == []
    _check(pipeline, texts, poison)


def test_row_15_an_outside_killer_makes_no_innocent_poison(pipeline: Pipeline, tmp_path: Path) -> None:
    chance = random.Random(3)
    texts, poison = _send(pipeline, seed=3)
    kills = 0
    with OnlineChecker(pipeline) as checker:
        while pipeline.committed() != pipeline.ends():
            with WorkerProcess(tmp_path, _settings(pipeline)) as worker:
                enough = len(worker.passes()) + chance.randrange(3, 25) if kills < 4 else REQUESTS**2
                _wait_for_the_end(pipeline, worker, enough)
                if worker.process.poll() is None and kills < 4:
                    worker.kill()
                    kills += 1
    assert checker.violations == []
    assert kills > 0
    _check(pipeline, texts, poison)
