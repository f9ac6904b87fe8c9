"""The log does not have what the group's offset says: nothing is skipped in silence, and nothing committed."""

from pathlib import Path

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from support.pipeline import Pipeline
from support.worker import WorkerProcess

STOPS_WITHIN_S = 60


def commit(pipeline: Pipeline, offset: int) -> None:
    asker = Consumer(
        {"bootstrap.servers": pipeline.bootstrap_servers, "group.id": pipeline.group, "enable.auto.commit": False}
    )
    asker.commit(offsets=[TopicPartition(pipeline.requests, 0, offset)], asynchronous=False)
    asker.close()


def test_row_25_a_log_truncated_past_the_committed_offset_stops_the_worker_and_is_not_jumped(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    pipeline.send_all(((str(number), f"text {number}") for number in range(50)), partition=0)
    commit(pipeline, 10)
    admin = AdminClient({"bootstrap.servers": pipeline.bootstrap_servers})
    for future in admin.delete_records([TopicPartition(pipeline.requests, 0, 30)]).values():
        future.result(30)
    with WorkerProcess(tmp_path, pipeline.settings()) as worker:
        assert worker.process.wait(STOPS_WITHIN_S) == 1
        [last] = worker.lines("worker_failed")
        assert "--reset-offsets" in last["error"]
    assert pipeline.committed()[0] == 10, "the gap is the operator's to judge"
    commit(pipeline, 30)
    with WorkerProcess(tmp_path, pipeline.settings(), "after") as worker:
        replies = pipeline.reader().wait_for(20)
        assert worker.stop() == 0
    assert {reply.id for reply in replies} == {str(number) for number in range(30, 50)}


def test_row_26_an_offset_past_the_end_of_the_log_stops_the_worker_and_nothing_is_replayed(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    pipeline.send_all(((str(number), f"text {number}") for number in range(5)), partition=0)
    commit(pipeline, 40)
    with WorkerProcess(tmp_path, pipeline.settings()) as worker:
        assert worker.process.wait(STOPS_WITHIN_S) == 1
        [last] = worker.lines("worker_failed")
        assert "--reset-offsets" in last["error"]
    assert pipeline.committed()[0] == 40
    reader = pipeline.reader()
    reader.read_to_end()
    assert reader.messages == []
