"""Topics that are missing, appear late, or grow."""

import uuid
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions

from forebay_local.topics import create_topics, delete_topics
from forebay_schemas.headers import last_values
from support.checker import OnlineChecker
from support.pipeline import Pipeline
from support.promise import assert_all_committed, assert_kept, numbered
from support.worker import WorkerProcess, wait_until

# The client looks for changes of the topics this often; the worker's default is 30 s.
LOOKS_OFTEN = {"topic.metadata.refresh.interval.ms": 500}


def test_row_21_a_reply_topic_that_is_missing_delays_nobody_else_and_holds_up_no_partition(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    missing = f"missing-{uuid.uuid4().hex[:12]}"
    texts = numbered(20)
    for number, (id_, text) in enumerate(texts.items()):
        pipeline.send(text, id=id_, partition=0)
        if number == 10:
            pipeline.send("nowhere to go", id="lost", headers={"reply-topic": missing}, partition=0)
    pipeline.flush()
    settings = pipeline.settings(topics={"replies": [pipeline.replies, "^missing-.*"]})
    with WorkerProcess(tmp_path, settings) as worker:
        reader = pipeline.reader()
        reader.wait_for(len(texts) + 1)
        wait_until(lambda: pipeline.committed() == pipeline.ends(), "nothing is held up", 20)
        assert set(reader.ids()) == {*texts, "lost"}
        letters = pipeline.reader(pipeline.dead_letters)
        letters.read_to_end()
        (letter,) = letters.messages
        told = last_values(letter.headers())
        # Before any pass: a reply that finds no topic holds its partition up for some seconds.
        assert (told["request-id"], told["forebay-stage"]) == (b"lost", b"decode")
        create_topics(pipeline.bootstrap_servers, {missing: 1})
        appeared = pipeline.reader(missing)

        def reached() -> int:
            # That the topic is missing is believed for a moment longer.
            pipeline.send("there now", id="found", headers={"reply-topic": missing}, partition=0)
            pipeline.flush()
            return appeared.read(0.5)

        wait_until(reached, "a reply on the new topic")
        assert worker.stop() == 0
    assert set(appeared.ids()) == {"found"}


@pytest.mark.parametrize("mode", ["at-least-once", "exactly-once"])
def test_row_21_a_reply_topic_that_its_client_has_deleted_holds_up_nobody(
    pipeline: Pipeline, tmp_path: Path, mode: str
) -> None:
    """For a minute it is believed to be there."""
    own = f"own-{uuid.uuid4().hex[:12]}"
    create_topics(pipeline.bootstrap_servers, {own: 1})
    settings = pipeline.settings(topics={"replies": [pipeline.replies, "^own-.*"]}, delivery={"mode": mode})
    with WorkerProcess(tmp_path, settings) as worker:
        pipeline.send("first", id="first", headers={"reply-topic": own}, partition=0)
        pipeline.flush()
        pipeline.reader(own).wait_for(1)
        delete_topics(pipeline.bootstrap_servers, [own])
        pipeline.send("late", id="late", headers={"reply-topic": own}, partition=0)
        texts = numbered(20)
        for id_, text in texts.items():
            pipeline.send(text, id=id_, partition=0)
        pipeline.flush()
        reader = pipeline.reader()
        reader.wait_for(len(texts) + 1)
        wait_until(lambda: pipeline.committed() == pipeline.ends(), "nothing is held up", 60)
        assert worker.stop() == 0
    assert set(reader.ids()) == {*texts, "late"}
    letters = pipeline.reader(pipeline.dead_letters)
    letters.read_to_end()
    (letter,) = letters.messages
    told = last_values(letter.headers())
    assert (told["request-id"], told["forebay-stage"]) == (b"late", b"publish")
    assert told["forebay-message"].endswith(b"is not there; leave it out for '" + pipeline.replies.encode() + b"'")


@pytest.mark.parametrize("key", ["replies", "dead_letters"])
def test_row_21_a_worker_whose_own_topics_are_missing_says_so_and_takes_nothing_in(
    pipeline: Pipeline, tmp_path: Path, key: str
) -> None:
    late = f"late-{uuid.uuid4().hex[:12]}"
    texts = numbered(20)
    pipeline.send_all(texts.items())
    settings = pipeline.settings(topics={key: [late] if key == "replies" else late})
    with WorkerProcess(tmp_path, settings) as worker:
        wait_until(lambda: worker.lines("topics_missing"), "it says so")
        (told,) = worker.lines("topics_missing")
        assert told["topics"] == {f"topics.{key}": late}
        assert worker.get("/livez")[0] == 200
        assert worker.get("/readyz")[0] == 503
        with pytest.raises(AssertionError, match="it joins"):
            wait_until(lambda: worker.lines("assigned") or pipeline.members(), "it joins", 3)
        create_topics(pipeline.bootstrap_servers, {late: 1})
        pipeline.reader(late if key == "replies" else pipeline.replies).wait_for(len(texts))
        assert_all_committed(pipeline)
        assert worker.stop() == 0


def test_row_21_a_worker_that_waits_for_its_topics_can_be_stopped(pipeline: Pipeline, tmp_path: Path) -> None:
    settings = pipeline.settings(topics={"dead_letters": f"never-{uuid.uuid4().hex[:12]}"})
    with WorkerProcess(tmp_path, settings) as worker:
        wait_until(lambda: worker.lines("topics_missing"), "it says so")
        assert worker.stop() == 0


def test_row_24_a_request_topic_that_appears_after_the_start_is_served_from_its_beginning(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    pipeline.requests = f"late-{uuid.uuid4().hex[:12]}"
    with WorkerProcess(tmp_path, pipeline.settings(kafka=LOOKS_OFTEN)) as worker:
        wait_until(lambda: worker.get("/startupz")[0] == 200 and worker.lines("kafka_error"), "it has looked")
        assert worker.get("/livez")[0] == 200
        assert worker.get("/readyz")[0] == 503
        create_topics(pipeline.bootstrap_servers, {pipeline.requests: pipeline.partitions})
        texts = numbered(100)
        pipeline.send_all(texts.items())
        with OnlineChecker(pipeline) as checker:
            reader = pipeline.reader()
            reader.wait_for(len(texts))
            assert_all_committed(pipeline)
            assert worker.get("/readyz")[0] == 200
            assert worker.stop() == 0
    checker.assert_kept()
    assert_kept(reader, texts)


def test_row_24_a_request_topic_that_is_deleted_holds_up_no_other(pipeline: Pipeline, tmp_path: Path) -> None:
    """What it answered of it can never be committed; and a broker tells one such partition as all of a commit."""
    gone = f"gone-{uuid.uuid4().hex[:12]}"
    create_topics(pipeline.bootstrap_servers, {gone: 1})
    settings = pipeline.settings(
        topics={"requests": [pipeline.requests, gone]},
        delivery={"commit_interval_ms": 3000, "max_uncommitted": 100},
        kafka={"topic.metadata.refresh.interval.ms": 300_000},  # else the client soon gives it back
    )
    with WorkerProcess(tmp_path, settings) as worker:
        reader = pipeline.reader()
        kept, pipeline.requests = pipeline.requests, gone
        pipeline.send("of no use", id="gone", partition=0)
        pipeline.flush()
        reader.wait_for(1)
        pipeline.requests = kept
        delete_topics(pipeline.bootstrap_servers, [gone])
        texts = numbered(400)
        pipeline.send_all(texts.items())
        reader.wait_for(len(texts) + 1)
        assert_all_committed(pipeline)
        assert worker.lines("commit_refused")
    assert set(reader.ids()) == {*texts, "gone"}


@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_row_27_partitions_added_while_running_are_served_from_their_beginning(
    pipeline: Pipeline, tmp_path: Path, start: str
) -> None:
    settings = pipeline.settings(kafka=LOOKS_OFTEN, delivery={"start": start})
    with WorkerProcess(tmp_path, settings, "one") as one, WorkerProcess(tmp_path, settings, "two") as two:
        one.wait_serving()
        two.wait_serving()
        texts = numbered(100, "before")
        pipeline.send_all(texts.items())
        add_partitions(pipeline, 8)
        pipeline.connect()  # a client that knows the new partitions
        more = numbered(200, "after")
        pipeline.send_all(more.items())
        with OnlineChecker(pipeline) as checker:
            reader = pipeline.reader()
            reader.wait_for(len(texts) + len(more))
            assert_all_committed(pipeline)
            assert one.stop() == 0
            assert two.stop() == 0
    checker.assert_kept()
    assert_kept(reader, texts | more)
    assert {partition for partition, _ in reader.sources()} == set(range(8))


def add_partitions(pipeline: Pipeline, count: int) -> None:
    admin: Any = AdminClient({"bootstrap.servers": pipeline.bootstrap_servers})
    (added,) = admin.create_partitions([NewPartitions(pipeline.requests, count)]).values()
    added.result(30)

    def led() -> bool:
        known = admin.list_topics(pipeline.requests, timeout=30).topics[pipeline.requests].partitions
        return len(known) == count and all(partition.leader >= 0 for partition in known.values())

    wait_until(led, "every partition has a leader")
    pipeline.partitions = count
