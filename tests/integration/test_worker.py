"""One worker with the scripted model on a real broker: answers, errors, dead letters, health, shutdown."""

import json
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from forebay_producer import Client
from forebay_schemas import Code, Failure, Result
from forebay_schemas.headers import last_values
from support.pipeline import Pipeline
from support.scripted import digest
from support.worker import WorkerProcess, wait_until


def blocked(gate: Path) -> str:
    """A request whose forward pass ends only when the gate is opened by `gate.touch()`."""
    return json.dumps({"inputs": [{"until": str(gate)}]})


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_001_3_each_request_gets_its_own_answer(pipeline: Pipeline, tmp_path: Path, protocol: str) -> None:
    texts = {f"id-{number}": f"text number {number}" for number in range(1000)}
    with WorkerProcess(tmp_path, pipeline.settings(kafka={"group.protocol": protocol})) as worker:
        pipeline.send_all(texts.items())
        reader = pipeline.reader()
        replies = reader.wait_for(1000)
        assert worker.stop() == 0
    assert len(replies) == 1000
    for reply in replies:
        assert isinstance(reply, Result), reply
        assert reply.outputs == [{"text": texts[reply.id], "digest": digest(texts[reply.id])}]
    assert pipeline.committed() == pipeline.ends()


def test_one_bad_record_in_a_batch_of_32_gives_31_results_and_one_error(pipeline: Pipeline, tmp_path: Path) -> None:
    for number in range(32):
        pipeline.send(
            '{"inputs": [{"raise": true}]}' if number == 17 else f"text {number}", id=str(number), partition=0
        )
    pipeline.flush()
    with WorkerProcess(tmp_path, pipeline.settings()) as worker:
        replies = pipeline.reader().wait_for(32)
        wait_until(worker.batches, "the batch is logged")
        assert worker.batches() == [32]
        assert worker.stop() == 0
    failures = [reply for reply in replies if isinstance(reply, Failure)]
    assert [(failure.id, failure.code) for failure in failures] == [("17", Code.MODEL_ERROR)]
    assert len(replies) == 32
    assert len(worker.passes()) - 1 <= 2 * 5 + 1, "bisected, not run one by one"


BAD: dict[str, tuple[bytes | None, dict[str, bytes], Code]] = {
    "not utf-8": (b"\xff\xfe\xfd", {"content-type": b"text/plain"}, Code.INVALID_REQUEST),
    "no value": (None, {}, Code.INVALID_REQUEST),
    "broken json": (b"{oops", {}, Code.INVALID_REQUEST),
    "unknown content type": (b"<a/>", {"content-type": b"application/xml"}, Code.UNSUPPORTED),
    "wrong shape": (b'{"inputs": []}', {}, Code.INVALID_REQUEST),
    "other model": (b"text", {"model": b"nobody"}, Code.UNSUPPORTED),
    "refused by the model": (b'{"inputs": [{"refuse": "bad image"}]}', {}, Code.INVALID_REQUEST),
    "too many rows": (json.dumps({"inputs": ["a"] * 33}).encode(), {}, Code.TOO_LARGE),
    "too many bytes": (b"a" * 5000, {}, Code.TOO_LARGE),
    "one output missing": (b'{"inputs": [{"length": 1}]}', {}, Code.MODEL_ERROR),
    "reply topic not allowed": (b"text", {"reply-topic": b"__consumer_offsets"}, Code.INVALID_REQUEST),
}


def test_row_12_and_004_8_a_bad_record_gets_its_error_and_its_dead_letter_and_the_worker_lives(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    for name, (value, headers, _) in BAD.items():
        pipeline.send(value, id=name, key=b"k", headers={**headers, "mine": b"\x00\xff"})
    pipeline.send("good", id="good")
    pipeline.flush()
    with WorkerProcess(tmp_path, pipeline.settings(limits={"max_request_bytes": 4096})) as worker:
        replies = {reply.id: reply for reply in pipeline.reader().wait_for(len(BAD) + 1)}
        assert worker.stop() == 0
    assert isinstance(replies.pop("good"), Result)
    assert {id_: reply.code for id_, reply in replies.items() if isinstance(reply, Failure)} == {
        name: code for name, (_, _, code) in BAD.items()
    }
    letters = pipeline.reader(pipeline.dead_letters)
    letters.read_to_end()
    found = {last_values(letter.headers())["request-id"].decode(): letter for letter in letters.messages}
    assert found.keys() == BAD.keys()
    for name, (value, headers, code) in BAD.items():
        told = last_values(found[name].headers())
        assert (found[name].value(), found[name].key()) == (value, b"k")
        assert {key: told[key] for key in (*headers, "mine")} == {**headers, "mine": b"\x00\xff"}
        assert told["forebay-code"].decode() == code
        assert told["forebay-topic"].decode() == pipeline.requests
    assert pipeline.committed() == pipeline.ends()


def test_row_22_a_reply_topic_that_is_not_allowed_is_refused_before_any_pass(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    pipeline.send("refused", id="refused", headers={"reply-topic": pipeline.requests}, partition=0)
    pipeline.send("good", id="good", partition=0)
    pipeline.flush()
    with WorkerProcess(tmp_path, pipeline.settings()) as worker:
        replies = {reply.id: reply for reply in pipeline.reader().wait_for(2)}
        assert worker.stop() == 0
    assert isinstance(replies["good"], Result)
    assert isinstance(refused := replies["refused"], Failure)
    assert refused.code is Code.INVALID_REQUEST
    assert [line["rows"] for line in worker.passes()] == [1, 1], "the warm-up's, and that of the good one"
    assert sum(pipeline.ends().values()) == 2, "nothing was written where the request wanted it"


def test_002_14_a_wrong_number_of_outputs_names_expected_and_got(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.send(json.dumps({"inputs": ["a", "b", {"length": 1}]}), id="short")
    pipeline.flush()
    with WorkerProcess(tmp_path, pipeline.settings()):
        (reply,) = pipeline.reader().wait_for(1)
    assert isinstance(reply, Failure)
    assert "2 outputs for 3 rows" in reply.message


def test_a_request_without_key_id_or_headers_is_answered_under_its_coordinates(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    pipeline.send("just a line, as the console producer sends it", partition=2)
    pipeline.flush()
    with WorkerProcess(tmp_path, pipeline.settings()):
        (reply,) = pipeline.reader().wait_for(1)
    assert reply.id == f"{pipeline.requests}-2-0"


def test_springs_headers_are_understood_and_echoed_byte_for_byte(pipeline: Pipeline, tmp_path: Path) -> None:
    correlation = bytes(range(240, 256))
    other = pipeline.topics.create("other", partitions=3)
    pipeline.send(
        "hello",
        id="spring",
        headers={
            "kafka_correlationId": correlation,
            "kafka_replyTopic": other,
            "kafka_replyPartition": (2).to_bytes(4, "big"),
        },
    )
    pipeline.flush()
    with WorkerProcess(tmp_path, pipeline.settings(topics={"replies": [pipeline.replies, "^other-.*"]})):
        reader = pipeline.reader(other)
        reader.wait_for(1)
    (message,) = reader.messages
    assert message.partition() == 2
    assert last_values(message.headers())["kafka_correlationId"] == correlation


def test_a_v2_request_gets_a_v2_reply(pipeline: Pipeline, tmp_path: Path) -> None:
    tensor = {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]}
    pipeline.send(json.dumps({"id": "v2", "inputs": [tensor]}))
    pipeline.send(json.dumps({"id": "v2-bad", "inputs": [{**tensor, "shape": [3]}]}))
    pipeline.flush()
    with WorkerProcess(tmp_path, pipeline.settings()):
        reader = pipeline.reader()
        reader.wait_for(2)
    bodies = {message.key().decode(): json.loads(message.value()) for message in reader.messages}
    assert bodies["v2"]["outputs"][0]["shape"] == [2]
    assert bodies["v2-bad"]["error"].startswith("invalid_request: ")


def test_001_13_while_a_pass_runs_a_bad_request_is_answered_and_the_port_answers(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with WorkerProcess(tmp_path, pipeline.settings()) as worker:
        pipeline.send(blocked(gate), id="slow")
        pipeline.flush()
        wait_until(lambda: len(worker.passes()) > 1, "the pass runs")
        pipeline.send("{oops", id="bad")
        pipeline.flush()
        reader = pipeline.reader()
        reader.wait_for(1)
        assert reader.ids() == {"bad": 1}
        assert worker.get("/livez")[0] == 200
        assert worker.get("/readyz")[0] == 200
        assert worker.metric("forebay_requests_total", code="invalid_request", status="error") == 1
        gate.touch()
        reader.wait_for(2)
        assert worker.stop() == 0


def test_polling_goes_on_while_a_pass_outlasts_the_groups_patience(pipeline: Pipeline, tmp_path: Path) -> None:
    kafka = {"max.poll.interval.ms": 4000, "session.timeout.ms": 3000}
    settings = pipeline.settings(kafka=kafka, batching={"max_batch_size": 1}, limits={"max_in_flight": 1})
    pipeline.send('{"inputs": [{"sleep_s": 7}]}', id="long", partition=0)
    pipeline.send("after it", id="next", partition=0)
    pipeline.flush()
    with WorkerProcess(tmp_path, settings) as worker:
        reader = pipeline.reader()
        reader.wait_for(2)
        assert worker.stop() == 0
    assert worker.lines("lost") == []
    assert set(reader.ids().values()) == {1}


def test_000_3_and_004_2_sending_does_not_wait_for_the_model_or_the_worker(pipeline: Pipeline, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    kafka = {"bootstrap.servers": pipeline.bootstrap_servers}
    with (
        WorkerProcess(tmp_path, pipeline.settings()) as worker,
        Client(kafka=kafka, requests=pipeline.requests, replies=pipeline.replies, timeout_s=60) as client,
    ):
        futures = [client.submit({"inputs": [{"until": str(gate)}]})]
        wait_until(lambda: len(worker.passes()) > 1, "the pass runs")
        futures += [client.submit("while the model is busy") for _ in range(200)]
        wait_until(lambda: sum(pipeline.ends().values()) == 201, "the topic has them")
        worker.signal(signal.SIGSTOP)
        futures += [client.submit("while the worker is stopped") for _ in range(200)]
        wait_until(lambda: sum(pipeline.ends().values()) == 401, "the topic has them")
        assert not any(future.done() for future in futures), "all are sent, none is answered"
        worker.signal(signal.SIGCONT)
        gate.touch()
        assert all(future.result().outputs for future in futures)


def test_001_1_and_001_2_the_model_is_loaded_once_and_runs_one_pass_at_a_time(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    with WorkerProcess(tmp_path, pipeline.settings()) as worker:
        pipeline.send_all((str(number), f"text {number}") for number in range(1000))
        pipeline.reader().wait_for(1000)
        assert worker.metric("forebay_model_loads_total") == 1
        assert worker.stop() == 0
    assert len(worker.loads()) == 1
    assert {line["running"] for line in worker.passes()} == {1}


def test_002_8_every_instance_is_warmed_up_with_every_sample_before_the_group_is_joined(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    (tmp_path / "sample.txt").write_text("from a file")
    model = {
        "instance_group": [{"count": 2, "devices": ["cpu"]}],
        "warmup": {"samples": ["one", {"inline": 2}], "files": [str(tmp_path / "sample.txt")], "batch_sizes": [1, 4]},
    }
    with WorkerProcess(tmp_path, pipeline.settings(model=model)) as worker:
        worker.wait_serving()
        assert worker.metric("forebay_warmup_passes_total") == 2 * 3 * 2
        assert worker.metric("forebay_instances") == 2
        actions = [line.get("action") for line in worker.lines()]
        assert max(place for place, action in enumerate(actions) if action == "warmed_up") < actions.index("serving")
        assert worker.stop() == 0
    assert sorted(line["rows"] for line in worker.passes()) == [1] * 6 + [4] * 6


def test_every_instance_is_warmed_up_with_the_samples_of_its_own_loaded_model(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    model = {"instance_group": [{"count": 3, "devices": ["cpu"]}], "options": {"load_s": 0.5}}
    with WorkerProcess(tmp_path, pipeline.settings(model=model)) as worker:
        worker.wait_serving()
        assert [line["samples"] for line in worker.lines("warmed_up")] == [1, 1, 1]


def test_a_sample_that_fails_in_the_warm_up_ends_the_worker_before_it_joins(pipeline: Pipeline, tmp_path: Path) -> None:
    model = {"warmup": {"samples": [{"raise": True}]}}
    with WorkerProcess(tmp_path, pipeline.settings(model=model)) as worker:
        assert worker.process.wait(60) == 1
    assert worker.lines("assigned") == []


def test_003_1_preprocess_forward_and_postprocess_are_each_timed(pipeline: Pipeline, tmp_path: Path) -> None:
    with WorkerProcess(tmp_path, pipeline.settings()) as worker:
        pipeline.send_all([("a", "text")])
        (reply,) = pipeline.reader().wait_for(1)
        hooks = [f"forebay_{hook}_seconds_count" for hook in ("preprocess", "forward", "postprocess", "publish")]
        wait_until(lambda: all(worker.metric(hook) >= 1 for hook in hooks), "every hook is timed")
    assert isinstance(reply, Result)
    assert {"queue_ms", "preprocess_ms", "linger_ms", "forward_ms", "batch_size"} <= reply.timing.keys()


def test_probes_tell_loading_from_serving_from_draining(pipeline: Pipeline, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with WorkerProcess(tmp_path, pipeline.settings(model={"options": {"load_s": 3.0}})) as worker:
        assert worker.get("/startupz")[0] == 503
        assert worker.get("/readyz")[0] == 503
        assert worker.get("/livez")[0] == 200
        worker.wait_serving()
        wait_until(lambda: worker.get("/readyz")[0] == 200, "ready")
        assert worker.get("/startupz")[0] == 200
        pipeline.send_all([("slow", blocked(gate))])
        wait_until(lambda: len(worker.passes()) > 1, "the pass runs")
        worker.signal(signal.SIGTERM)
        wait_until(lambda: worker.get("/readyz") == (503, "draining\n"), "unready while draining")
        gate.touch()
        assert worker.process.wait(60) == 0


def test_a_worker_that_is_asked_to_end_while_it_loads_does_so_at_once(pipeline: Pipeline, tmp_path: Path) -> None:
    """It holds nothing; a load of minutes is no reason to be killed, or to end as if something had failed."""
    with WorkerProcess(tmp_path, pipeline.settings(model={"options": {"load_s": 3600.0}})) as worker:
        wait_until(lambda: worker.lines("listening"), "it is up, and loads")
        worker.signal(signal.SIGTERM)
        assert worker.process.wait(25) == 0, "before limits.shutdown_ms"


def test_row_31_sigterm_answers_and_commits_what_is_held(pipeline: Pipeline, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with WorkerProcess(tmp_path, pipeline.settings(batching={"max_batch_size": 4})) as worker:
        worker.wait_serving()
        pipeline.send_all([("slow", blocked(gate)), *((str(number), "behind it") for number in range(20))], partition=0)
        wait_until(lambda: worker.metric("forebay_in_flight_rows") >= 15, "records are held")
        worker.signal(signal.SIGTERM)
        wait_until(lambda: worker.lines("draining"), "it drains")
        gate.touch()
        assert worker.process.wait(60) == 0
    reader = pipeline.reader()
    reader.read_to_end()
    committed = pipeline.committed()[0]
    assert sorted(reader.sources()) == [(0, offset) for offset in range(committed)], "answered and committed agree"
    assert committed >= 15
    assert set(reader.ids().values()) == {1}


def test_row_31_a_second_sigterm_ends_at_once_and_commits_nothing_unanswered(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with WorkerProcess(tmp_path, pipeline.settings()) as worker:
        pipeline.send_all([("slow", blocked(gate))], partition=0)
        wait_until(lambda: len(worker.passes()) > 1, "the pass runs")
        worker.signal(signal.SIGTERM)
        wait_until(lambda: worker.lines("draining"), "it drains")
        worker.signal(signal.SIGTERM)
        assert worker.process.wait(60) == 130
    assert pipeline.committed()[0] <= 0


def test_row_31_the_time_to_drain_is_bounded(pipeline: Pipeline, tmp_path: Path) -> None:
    with WorkerProcess(tmp_path, pipeline.settings(limits={"shutdown_ms": 500})) as worker:
        pipeline.send_all([("slow", blocked(tmp_path / "never"))], partition=0)
        wait_until(lambda: len(worker.passes()) > 1, "the pass runs")
        assert worker.stop() == 1
    assert pipeline.committed()[0] <= 0


def start_settings(pipeline: Pipeline, start: str) -> dict[str, Any]:
    return pipeline.settings(delivery={"start": start})


def test_start_earliest_answers_what_waited_before_the_group_existed(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.send_all((str(number), "waiting") for number in range(100))
    with WorkerProcess(tmp_path, start_settings(pipeline, "earliest")):
        pipeline.reader().wait_for(100)


def test_start_latest_begins_at_the_end_and_stays_there_over_a_restart(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.send_all(((str(number), "too early") for number in range(20)), partition=0)
    settings = start_settings(pipeline, "latest")
    with WorkerProcess(tmp_path, settings, "first") as worker:
        worker.wait_serving()
        wait_until(lambda: pipeline.committed()[0] == 20, "the start is committed")
        worker.kill()
    pipeline.send_all([("between", "while nobody runs")], partition=0)
    with WorkerProcess(tmp_path, settings, "second"):
        replies = pipeline.reader().wait_for(1)
    assert [reply.id for reply in replies] == ["between"]


def test_start_fail_refuses_a_group_without_offsets(pipeline: Pipeline, tmp_path: Path) -> None:
    with WorkerProcess(tmp_path, start_settings(pipeline, "fail")) as worker:
        assert worker.process.wait(60) == 1
    assert "delivery.start" in worker.lines("worker_failed")[0]["error"]


def test_a_bad_configuration_is_told_in_one_glance_and_exits_with_two(pipeline: Pipeline, tmp_path: Path) -> None:
    with WorkerProcess(tmp_path, pipeline.settings(batching={"max_batch": 3})) as worker:
        assert worker.process.wait(60) == 2
    assert "batching.max_batch" in worker.log.read_text()


def test_004_5_an_idle_worker_uses_less_than_two_percent_of_a_core(pipeline: Pipeline, tmp_path: Path) -> None:
    with WorkerProcess(tmp_path, pipeline.settings()) as worker:
        worker.wait_serving()
        pipeline.send_all([("a", "text")])
        pipeline.reader().wait_for(1)
        process = psutil.Process(worker.process.pid)
        before = process.cpu_times()
        seconds = 5.0
        with pytest.raises(psutil.TimeoutExpired):
            process.wait(seconds)
        after = process.cpu_times()
    used = after.user + after.system - before.user - before.system
    assert used / seconds < 0.02


def test_row_17_a_reply_too_large_for_its_topic_becomes_a_small_error_and_its_neighbours_arrive(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    narrow = pipeline.topics.create("narrow", partitions=1, config={"max.message.bytes": "50000"})
    for number in range(8):
        pipeline.send("large " * 10_000 if number == 3 else f"text {number}", id=str(number), partition=0)
    pipeline.flush()
    with WorkerProcess(tmp_path, pipeline.settings(topics={"replies": [narrow]})) as worker:
        replies = {reply.id: reply for reply in pipeline.reader(narrow).wait_for(8)}
        assert worker.stop() == 0
    large = replies.pop("3")
    assert isinstance(large, Failure)
    assert large.code is Code.TOO_LARGE
    assert all(isinstance(reply, Result) for reply in replies.values())
    assert pipeline.committed()[0] == 8
