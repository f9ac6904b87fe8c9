"""The client against a real worker on a real broker."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay_producer import BrokerUnavailable, Client, ClientClosed, ReplyTimeout, Request, RequestFailed, submit_all
from forebay_schemas import Code, Result
from support.pipeline import Pipeline
from support.scripted import digest
from support.worker import WorkerProcess


@pytest.fixture
def serving(pipeline: Pipeline, tmp_path: Path) -> Iterator[Pipeline]:
    with WorkerProcess(tmp_path, pipeline.settings()) as worker:
        worker.wait_serving()
        yield pipeline


def client_of(pipeline: Pipeline, timeout_s: float = 30.0) -> Client:
    kafka = {"bootstrap.servers": pipeline.bootstrap_servers}
    return Client(kafka=kafka, requests=pipeline.requests, replies=pipeline.replies, timeout_s=timeout_s)


def test_001_3_two_clients_on_one_reply_topic_each_get_their_own_answers(serving: Pipeline) -> None:
    with client_of(serving) as one, client_of(serving) as other:
        texts = [f"text {number}" for number in range(500)]
        futures = [(client.submit(f"{name} {text}"), f"{name} {text}") for text in texts
                   for name, client in (("one", one), ("other", other))]  # fmt: skip
        for future, text in futures:
            assert future.result().outputs == [{"text": text, "digest": digest(text)}]


def test_004_4_the_reply_carries_the_id_that_the_client_chose_as_its_key(serving: Pipeline) -> None:
    with client_of(serving) as client:
        assert client.request("hello", request_id="my-own-id").id == "my-own-id"
    reader = serving.reader()
    reader.wait_for(1)
    assert [message.key() for message in reader.messages] == [b"my-own-id"]


def test_an_error_reply_raises_with_its_code(serving: Pipeline) -> None:
    with client_of(serving) as client, pytest.raises(RequestFailed, match="no thanks") as raised:
        client.request({"inputs": [{"refuse": "no thanks"}]})
    assert raised.value.code is Code.INVALID_REQUEST


def test_004_7_without_a_worker_the_wait_ends_with_a_typed_error(pipeline: Pipeline) -> None:
    with client_of(pipeline, timeout_s=0.3) as client, pytest.raises(ReplyTimeout):
        client.request("anybody there?")


def test_closing_ends_what_still_waits(pipeline: Pipeline) -> None:
    client = client_of(pipeline)
    client.open()
    future = client.submit("never answered")
    client.close()
    with pytest.raises(ClientClosed):
        future.result(0)
    with pytest.raises(ClientClosed):
        client.submit("too late")


def test_a_missing_topic_is_named(pipeline: Pipeline) -> None:
    client = Client(kafka={"bootstrap.servers": pipeline.bootstrap_servers}, requests="not-there", replies="nor-this")
    with pytest.raises(BrokerUnavailable, match="not-there"):
        client.open()


def test_a_bulk_answers_every_request_though_some_fail(serving: Pipeline) -> None:
    requests = [
        Request({"inputs": [{"refuse": "bad"}]} if number % 10 == 0 else f"text {number}", str(number))
        for number in range(300)
    ]
    with client_of(serving) as client:
        outcomes = {request.source: outcome for request, outcome in submit_all(client, requests, in_flight=50)}
    assert outcomes.keys() == {request.source for request in requests}
    for source, outcome in outcomes.items():
        assert isinstance(outcome, RequestFailed if int(source) % 10 == 0 else Result)


def _cli(pipeline: Pipeline, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    topics = ["-b", pipeline.bootstrap_servers, "--requests", pipeline.requests, "--replies", pipeline.replies]
    command = [sys.executable, "-m", "forebay_producer", arguments[0], *topics, *arguments[1:]]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)


def test_ask_prints_an_answer_a_line(serving: Pipeline) -> None:
    told = _cli(serving, "ask", "first", "second")
    assert told.returncode == 0, told.stderr
    assert [line.split()[0] for line in told.stdout.splitlines()] == ["first", "second"]
    assert digest("first") in told.stdout


def test_submit_reads_jsonl_text_and_standard_input_and_writes_jsonl(serving: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "requests.jsonl").write_text('{"id": "a", "inputs": ["one"]}\n"two"\n{broken\n')
    (tmp_path / "lines.txt").write_text("three\n\nfour\n")
    told = _cli(serving, "submit", str(tmp_path / "requests.jsonl"), str(tmp_path / "lines.txt"), "-", stdin="five\n")
    answers = [json.loads(line) for line in told.stdout.splitlines()]
    texts = sorted(answer["outputs"][0]["text"] for answer in answers if "outputs" in answer)
    assert texts == ["five", "four", "one", "three", "two", "{broken"]
    assert {"a"} <= {answer["id"] for answer in answers}
    assert told.returncode == 0, told.stderr
    assert "6 answered" in told.stderr


def test_a_failed_request_makes_the_exit_code_one(serving: Pipeline) -> None:
    told = _cli(serving, "submit", "-", stdin='{"inputs": [{"refuse": "bad"}]}\nfine\n')
    assert told.returncode == 1
    assert len(told.stdout.splitlines()) == 2


def test_no_broker_gives_one_readable_line() -> None:
    command = [sys.executable, "-m", "forebay_producer", "ask", "-b", "127.0.0.1:1", "anybody?"]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert told.returncode == 2
    assert told.stderr.splitlines() == [line for line in told.stderr.splitlines() if "127.0.0.1:1" in line]
    assert len(told.stderr.splitlines()) == 1
