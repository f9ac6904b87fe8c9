"""Forward passes that fail, fit badly, come too late or hang, on a real broker."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from forebay_schemas import Code, Failure, Result
from forebay_schemas.headers import last_values
from support.pipeline import Pipeline
from support.worker import WorkerProcess, wait_until


def blocked(gate: Path) -> str:
    """A request whose forward pass ends only when the gate is opened by `gate.touch()`."""
    return json.dumps({"inputs": [{"until": str(gate)}]})


def row(**script: Any) -> str:
    return json.dumps({"inputs": [script]})


def code(reply: Result | Failure) -> Code | None:
    return reply.code if isinstance(reply, Failure) else None


RETRY = {"attempts": 3, "backoff_ms": 10}


def test_003_4_failing_twice_is_a_result_and_failing_always_a_dead_letter_of_three_attempts(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    pipeline.send(row(transient=2), id="twice", partition=0)
    pipeline.send(row(transient=1000), id="always", partition=0)
    pipeline.send(row(**{"raise": True}), id="at once", partition=0)
    pipeline.flush()
    settings = pipeline.settings(retry=RETRY, batching={"max_batch_size": 1})
    with WorkerProcess(tmp_path, settings) as worker:
        replies = {reply.id: code(reply) for reply in pipeline.reader().wait_for(3)}
        assert worker.metric("forebay_retries_total") == 2 + 2
        assert worker.stop() == 0
    assert replies == {"twice": None, "always": Code.MODEL_ERROR, "at once": Code.MODEL_ERROR}
    letters = pipeline.reader(pipeline.dead_letters)
    letters.read_to_end()
    told = [last_values(letter.headers()) for letter in letters.messages]
    assert {headers["request-id"]: headers["forebay-attempts"] for headers in told} == {
        b"always": b"3",
        b"at once": b"1",
    }
    assert len(worker.passes()) - 1 == 3 + 3 + 1


def test_one_that_fails_always_leaves_its_batch_to_its_neighbours(pipeline: Pipeline, tmp_path: Path) -> None:
    for number in range(32):
        pipeline.send(row(transient=1000) if number == 9 else f"text {number}", id=str(number), partition=0)
    pipeline.flush()
    with WorkerProcess(tmp_path, pipeline.settings(retry=RETRY)) as worker:
        replies = pipeline.reader().wait_for(32)
        wait_until(worker.batches, "the batch is told of, which is after its replies are handed on")
        assert worker.batches() == [32]
        assert worker.stop() == 0
    assert {reply.id for reply in replies if code(reply)} == {"9"}
    assert len(worker.passes()) - 1 <= 2 + 2 * 5 + 1, "tried again, then bisected"


def test_a_retry_that_waits_does_not_keep_a_draining_worker(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.send(row(transient=2), id="twice")
    pipeline.flush()
    settings = pipeline.settings(retry={"attempts": 3, "backoff_ms": 3_600_000, "max_backoff_ms": 3_600_000})
    with WorkerProcess(tmp_path, settings) as worker:
        wait_until(lambda: worker.lines("pass_retried"), "the pass failed once")
        assert worker.stop() == 0
    (reply,) = pipeline.reader().wait_for(1)
    assert code(reply) is None


def test_a_batch_beyond_memory_is_halved_and_the_next_is_cut_before_it_fails(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    settings = pipeline.settings(
        model={"options": {"memory_rows": 8}}, batching={"linger_ms": 60_000, "adaptive_linger": False}
    )
    with WorkerProcess(tmp_path, settings) as worker:
        reader = pipeline.reader()
        for turn in range(2):
            pipeline.send_all([(f"{turn}-{number}", "text") for number in range(32)], partition=0)
            assert {code(reply) for reply in reader.wait_for(32 * (turn + 1))} == {None}
        assert worker.metric("forebay_oom_total") == 2
        assert worker.stop() == 0
    assert [line["rows"] for line in worker.passes()][1:] == [32, 16, *[8] * 8]


@pytest.mark.models
@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not keep RLIMIT_AS")
def test_a_process_short_of_real_memory_answers_all_that_fits_alone(pipeline: Pipeline, tmp_path: Path) -> None:
    # 16 of 32 rows would need 4 GiB of the 3 that are to be had; a row of 40 needs 10 GiB even alone.
    options = {"row_mib": 256, "spare_mib": 3 * 1024}
    settings = pipeline.settings(model={"class": "support.hungry:Hungry", "options": options})
    for number in range(64):
        pipeline.send(row(rows=40) if number == 40 else row(rows=1), id=str(number), partition=0)
    pipeline.flush()
    with WorkerProcess(tmp_path, {**settings, "batching": {"linger_ms": 1000, "adaptive_linger": False}}) as worker:
        replies = {reply.id: reply for reply in pipeline.reader().wait_for(64)}
        assert worker.metric("forebay_oom_total") >= 3
        assert worker.stop() == 0
    assert code(replies.pop("40")) is Code.OUT_OF_MEMORY
    assert {code(reply) for reply in replies.values()} == {None}
    assert max(reply.outputs[0] for reply in replies.values() if isinstance(reply, Result)) > 1


@pytest.mark.parametrize(
    ("verb", "limit"),
    [("hang", "forward_timeout_ms"), ("stick", "preprocess_timeout_ms"), ("until", "forward_timeout_ms")],
    ids=["a pass with the interpreter lock", "preparing with it", "a pass without it"],
)
def test_003_5_what_hangs_ends_the_process_and_the_group_goes_on(
    pipeline: Pipeline, tmp_path: Path, verb: str, limit: str
) -> None:
    gate = tmp_path / "gate"
    settings = pipeline.settings(limits={limit: 3000}, batching={"max_batch_size": 4})
    with WorkerProcess(tmp_path, settings, "first") as first:
        first.wait_serving()
        pipeline.send_all(((str(number), "text") for number in range(10)), partition=0)
        pipeline.reader().wait_for(10)
        pipeline.send_all([("hangs", row(**{verb: str(gate)}))], partition=0)
        pipeline.send_all(((f"after-{number}", "text") for number in range(10)), partition=0)
        assert first.process.wait(60) == 1
    said = first.log.read_text()
    assert "Timeout (0:00:0" in said
    assert 'support/scripted.py", line' in said, "the stacks tell where it hung"
    gate.touch()
    with WorkerProcess(tmp_path, settings, "second") as second:
        replies = pipeline.reader().wait_for(21)
        assert second.stop() == 0
    assert {code(reply) for reply in replies} == {None}
    assert pipeline.committed() == pipeline.ends()


def test_passes_within_the_limit_and_an_idle_worker_are_left_alone(pipeline: Pipeline, tmp_path: Path) -> None:
    settings = pipeline.settings(
        limits={"forward_timeout_ms": 3000},
        batching={"max_batch_size": 1},
        model={"options": {"pass_s": 0.3}, "instance_group": [{"count": 3, "devices": ["cpu"]}]},
    )
    with WorkerProcess(tmp_path, settings) as worker:
        pipeline.send_all((str(number), "text") for number in range(30))
        pipeline.reader().wait_for(30)
        idle_since = time.time()
        wait_until(lambda: time.time() > idle_since + 6.0, "idle for longer than a pass may take")
        pipeline.send_all([("more", "text")])
        pipeline.reader().wait_for(31)
        assert worker.stop() == 0


def test_001_12_what_expires_in_the_window_is_told_so_and_its_batch_goes_on_without_it(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with WorkerProcess(tmp_path, pipeline.settings(batching={"linger_ms": 0})) as worker:
        pipeline.send_all([("slow", blocked(gate))], partition=0)
        wait_until(lambda: len(worker.passes()) > 1, "the pass runs")
        deadline_ms = round(time.time() * 1000) + 3000
        for number in range(6):
            headers = {"deadline-ms": str(deadline_ms)} if number % 2 else {}
            pipeline.send(f"text {number}", id=str(number), headers=headers, partition=0)
        pipeline.flush()
        wait_until(lambda: worker.metric("forebay_in_flight_rows") == 7, "all wait behind it")
        wait_until(lambda: time.time() * 1000 > deadline_ms, "the deadline passes")
        gate.touch()
        replies = {reply.id: code(reply) for reply in pipeline.reader().wait_for(7)}
        assert worker.metric("forebay_requests_total", code="expired", status="error") == 3
        assert worker.stop() == 0
    assert {id_ for id_, found in replies.items() if found is Code.EXPIRED} == {"1", "3", "5"}
    assert set(replies.values()) == {None, Code.EXPIRED}
    assert [line["rows"] for line in worker.passes()][1:] == [1, 3], "no pass had an expired row"
    letters = pipeline.reader(pipeline.dead_letters)
    letters.read_to_end()
    assert letters.messages == [], "asking again is the client's choice"


def test_what_waited_in_the_topic_longer_than_its_time_to_live_is_expired(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.send_all((str(number), "old") for number in range(10))
    sent = time.time()
    wait_until(lambda: time.time() > sent + 2.0, "they grow old")
    with WorkerProcess(tmp_path, pipeline.settings(limits={"request_ttl_ms": 1500})) as worker:
        replies = pipeline.reader().wait_for(10)
        assert worker.stop() == 0
    assert {code(reply) for reply in replies} == {Code.EXPIRED}
    assert len(worker.passes()) == 1, "the warm-up's"
    assert pipeline.committed() == pipeline.ends()


@pytest.mark.parametrize(
    ("detail", "has", "lacks"),
    [
        ("none", "the model failed on this request", ["RuntimeError", "scripted"]),
        ("message", "(RuntimeError)", ["scripted failure", "Traceback"]),
        ("traceback", "scripted failure", []),
    ],
)
def test_001_11_the_reply_and_the_dead_letter_tell_as_much_as_is_configured(
    pipeline: Pipeline, tmp_path: Path, detail: str, has: str, lacks: list[str]
) -> None:
    pipeline.send(row(**{"raise": True}), id="bad")
    pipeline.flush()
    with WorkerProcess(tmp_path, pipeline.settings(model={"error_detail": detail})) as worker:
        (reply,) = pipeline.reader().wait_for(1)
        assert worker.stop() == 0
    assert isinstance(reply, Failure)
    letters = pipeline.reader(pipeline.dead_letters)
    letters.read_to_end()
    (letter,) = letters.messages
    for said in (reply.message, last_values(letter.headers())["forebay-message"].decode()):
        assert has in said
        assert [words for words in lacks if words in said] == []


def test_001_10_different_failures_have_different_codes_and_the_worker_lives(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    expected = {
        "no memory": Code.OUT_OF_MEMORY,
        "the model fails": Code.MODEL_ERROR,
        "a bad query": Code.INVALID_REQUEST,
        "too large": Code.TOO_LARGE,
        "too late": Code.EXPIRED,
        "another model": Code.UNSUPPORTED,
        "good": None,
    }
    pipeline.send(json.dumps({"inputs": list("abcd")}), id="no memory", partition=0)
    pipeline.send(row(**{"raise": True}), id="the model fails", partition=0)
    pipeline.send("{", id="a bad query", partition=0)
    pipeline.send("x" * 5000, id="too large", partition=0)
    pipeline.send("text", id="too late", headers={"deadline-ms": "1000"}, partition=0)
    pipeline.send("text", id="another model", headers={"model": "other"}, partition=0)
    pipeline.send("text", id="good", partition=0)
    pipeline.flush()
    settings = pipeline.settings(limits={"max_request_bytes": 4096}, model={"options": {"memory_rows": 3}})
    with WorkerProcess(tmp_path, settings) as worker:
        replies = pipeline.reader().wait_for(len(expected))
        assert worker.stop() == 0
    assert {reply.id: code(reply) for reply in replies} == expected


def test_a_request_above_the_limit_is_answered_under_its_key_without_being_read(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    body = json.dumps({"id": "in the body", "inputs": ["x" * 5000]})
    pipeline.send(body, key=b"key")
    pipeline.flush()
    with WorkerProcess(tmp_path, pipeline.settings(limits={"max_request_bytes": 4096})) as worker:
        (reply,) = pipeline.reader().wait_for(1)
        assert worker.stop() == 0
    assert (reply.id, code(reply)) == ("key", Code.TOO_LARGE)


def test_a_fatal_error_of_the_model_ends_the_worker_and_commits_nothing(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.send_all([("bad", row(fatal=True))], partition=0)
    with WorkerProcess(tmp_path, pipeline.settings()) as worker:
        assert worker.process.wait(60) == 1
    assert "scripted end" in worker.lines("worker_failed")[0]["error"]
    assert pipeline.committed()[0] <= 0
