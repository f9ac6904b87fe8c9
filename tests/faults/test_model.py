"""The model fails for one request, or for all of them; a letter is too large for its topic."""

import json
from pathlib import Path

from forebay_schemas import Code, Failure, Result
from forebay_schemas.headers import last_values
from support.checker import OnlineChecker
from support.pipeline import Pipeline
from support.worker import WorkerProcess, wait_until


def test_row_13_one_request_that_fails_leaves_the_others_their_answers(pipeline: Pipeline, tmp_path: Path) -> None:
    texts = {str(number): f"text {number}" for number in range(32)}
    texts["21"] = json.dumps({"inputs": [{"raise": True}]})
    pipeline.send_all(texts.items(), partition=0)
    with OnlineChecker(pipeline) as checker, WorkerProcess(tmp_path, pipeline.settings()) as worker:
        replies = pipeline.reader().wait_for(32)
        assert worker.stop() == 0
    assert checker.violations == []
    assert {reply.id: reply.code for reply in replies if isinstance(reply, Failure)} == {"21": Code.MODEL_ERROR}
    assert {reply.id for reply in replies if isinstance(reply, Result)} == texts.keys() - {"21"}
    assert len(worker.passes()) - 1 <= 2 * 5 + 1


def test_row_14_a_model_that_fails_for_everything_ends_the_worker_and_fills_no_dead_letters(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    repaired = tmp_path / "repaired"
    pipeline.send_all(
        (str(number), json.dumps({"inputs": [{"raise_unless": str(repaired), "n": number}]})) for number in range(300)
    )
    settings = pipeline.settings(retry={"breaker_window": 64}, batching={"max_batch_size": 16})
    with OnlineChecker(pipeline) as checker:
        with WorkerProcess(tmp_path, settings, "broken") as broken:
            assert broken.process.wait(60) == 1
        letters = pipeline.reader(pipeline.dead_letters)
        letters.read_to_end()
        assert len(letters.messages) < 64, "the window's, at most"
        repaired.touch()
        with WorkerProcess(tmp_path, settings, "repaired") as worker:
            reader = pipeline.reader()
            reader.wait_for(300)
            wait_until(lambda: pipeline.committed() == pipeline.ends(), "all is committed")
            assert worker.stop() == 0
    assert checker.violations == []
    reader.read_to_end()
    answered = {reply.id for reply in reader.replies() if isinstance(reply, Result)}
    assert len(answered) > 300 - 64


def test_row_17_a_dead_letter_too_large_even_without_its_value_still_says_where_it_was(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    pipeline.dead_letters = pipeline.topics.create("small", partitions=1, config={"max.message.bytes": "2000"})
    pipeline.send(b"{oops", id="large", headers={"mine": b"h" * 5000, "content-type": b"application/json"}, partition=0)
    pipeline.send("fine", id="good", partition=0)
    pipeline.flush()
    with WorkerProcess(tmp_path, pipeline.settings()) as worker:
        pipeline.reader().wait_for(2)
        wait_until(lambda: pipeline.committed() == pipeline.ends(), "nothing is held up")
        assert worker.stop() == 0
    letters = pipeline.reader(pipeline.dead_letters)
    letters.read_to_end()
    [letter] = letters.messages
    headers = last_values(letter.headers())
    assert letter.value() is None
    assert "mine" not in headers
    assert headers["forebay-code"] == b"invalid_request"
    assert headers["forebay-value-omitted"] == b"5"
    assert int(headers["forebay-offset"]) == 0
