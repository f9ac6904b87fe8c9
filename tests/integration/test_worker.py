"""One worker, the scripted model, a real broker."""

from pathlib import Path

from forebay_schemas import Failure, Result
from support.pipeline import Pipeline
from support.scripted import digest
from support.worker import WorkerProcess


def test_001_3_each_request_gets_its_own_answer(pipeline: Pipeline, tmp_path: Path) -> None:
    texts = {f"id-{number}": f"text number {number}" for number in range(1000)}
    with WorkerProcess(tmp_path, pipeline.settings()) as worker:
        pipeline.send_all(texts.items())
        reader = pipeline.reader()
        replies = reader.wait_for(1000)
        assert worker.stop() == 0
    assert len(replies) == 1000
    for reply in replies:
        assert isinstance(reply, Result), reply
        assert reply.outputs == [{"text": texts[reply.id], "digest": digest(texts[reply.id])}]
    assert pipeline.committed() == pipeline.ends()


def test_000_one_bad_record_among_32_gives_31_results_and_one_error(pipeline: Pipeline, tmp_path: Path) -> None:
    for number in range(32):
        value = '{"inputs": [{"raise": true}]}' if number == 17 else f"text {number}"
        pipeline.send(value, id=str(number), partition=0)
    pipeline.flush()
    with WorkerProcess(tmp_path, pipeline.settings()):
        reader = pipeline.reader()
        replies = reader.wait_for(32)
    failures = [reply for reply in replies if isinstance(reply, Failure)]
    assert len(replies) == 32
    assert [failure.id for failure in failures] == ["17"]
