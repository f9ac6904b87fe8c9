"""`forebay-producer` as a user runs it, against a real worker on a real broker."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from support.pipeline import Pipeline
from support.scripted import digest
from support.worker import WorkerProcess


@pytest.fixture
def serving(pipeline: Pipeline, tmp_path: Path) -> Iterator[Pipeline]:
    with WorkerProcess(tmp_path, pipeline.settings()) as worker:
        worker.wait_serving()
        yield pipeline


def run(
    *arguments: str, stdin: bytes = b"", variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Output and errors as text; standard input is closed after `stdin`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FOREBAY_")}
    told = subprocess.run(
        [sys.executable, "-m", "forebay_producer", *arguments],
        input=stdin, capture_output=True, check=False, timeout=90, env={**environment, **(variables or {})},
    )  # fmt: skip
    return subprocess.CompletedProcess(told.args, told.returncode, told.stdout.decode(), told.stderr.decode())


def to(pipeline: Pipeline) -> list[str]:
    return ["-b", pipeline.bootstrap_servers, "--requests", pipeline.requests, "--replies", pipeline.replies]


def test_ask_prints_a_line_an_answer_in_the_order_of_the_questions(serving: Pipeline) -> None:
    told = run("ask", *to(serving), "first", "second")
    assert (told.returncode, told.stderr) == (0, "")
    assert [line.split()[0] for line in told.stdout.splitlines()] == ["first", "second"]
    assert digest("first") in told.stdout.splitlines()[0]


def test_ask_prints_json_lines(serving: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "no-image.png").write_text("not an image")
    told = run("ask", "--json", *to(serving), "first", "--image", str(tmp_path / "no-image.png"))
    first, second = map(json.loads, told.stdout.splitlines())
    assert first["outputs"] == [{"text": "first", "digest": digest("first")}]
    assert (first["source"], len(first["id"])) == ("first", 32)
    assert second["error"]["code"] == "BadRequest"
    assert told.returncode == 1


def test_submit_reads_all_kinds_of_files_and_writes_jsonl(serving: Pipeline, tmp_path: Path) -> None:
    jsonl, text = tmp_path / "requests.jsonl", tmp_path / "lines.txt"
    jsonl.write_text('{"id": "a", "inputs": ["one"]}\n"two"\n{broken\n{"inputs": [{"refuse": "no thanks"}]}\n')
    text.write_text("three\n\n{four\n")
    told = run("submit", *to(serving), str(jsonl), str(text), "-", stdin=b'five\n{"text": "six"}\n')
    answers = {answer["source"]: answer for answer in map(json.loads, told.stdout.splitlines())}
    assert {source: answer["outputs"][0]["text"] for source, answer in answers.items() if "outputs" in answer} == {
        f"{jsonl}:1": "one", f"{jsonl}:2": "two", f"{text}:1": "three", f"{text}:3": "{four",
        "-:1": "five", "-:2": "six",
    }  # fmt: skip
    assert answers[f"{jsonl}:1"]["id"] == "a"
    assert answers[f"{jsonl}:3"]["error"]["code"] == "invalid_request"
    assert answers[f"{jsonl}:4"]["error"] == {"code": "invalid_request", "message": "no thanks"}
    assert told.returncode == 1
    assert "8 sent, 6 answered, 2 failed" in told.stderr.splitlines()[-1]


def test_what_cannot_be_read_ends_with_two_and_the_others_are_answered(serving: Pipeline, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("one\ntwo\n")
    told = run("submit", *to(serving), str(lines), "/proc/self/mem")  # a file that opens, and cannot be read from there
    assert told.returncode == 2, told.stderr
    assert {json.loads(line)["source"] for line in told.stdout.splitlines()} == {f"{lines}:1", f"{lines}:2"}
    assert "Input/output error; what comes after it was not read" in told.stderr
    assert "Traceback" not in told.stderr


def test_submit_where_all_goes_well_ends_with_zero(serving: Pipeline) -> None:
    lines = "".join(f"text {number}\n" for number in range(200))
    told = run("submit", *to(serving), "--in-flight", "20", "-", stdin=lines.encode())
    answers = map(json.loads, told.stdout.splitlines())
    assert {answer["outputs"][0]["text"] for answer in answers} == set(lines.splitlines())
    assert told.returncode == 0, told.stderr
    assert told.stderr.splitlines()[-1].startswith("200 sent, 200 answered, 0 failed")


def test_without_a_worker_every_request_is_told_as_late(pipeline: Pipeline) -> None:
    told = run("submit", *to(pipeline), "--timeout", "0.5", "-", stdin=b'{"id": "mine", "text": "a"}\nb\n')
    answers = [json.loads(line) for line in told.stdout.splitlines()]
    assert {answer["source"]: answer["error"]["code"] for answer in answers} == {
        "-:1": "ReplyTimeout",
        "-:2": "ReplyTimeout",
    }
    assert "mine" in {answer["id"] for answer in answers}
    assert told.returncode == 1


def test_settings_come_from_the_environment_a_file_and_options(serving: Pipeline, tmp_path: Path) -> None:
    file = tmp_path / "client.yaml"
    file.write_text(f"requests: {serving.requests}\nreplies: {serving.replies}\n")
    servers = {"FOREBAY_KAFKA__BOOTSTRAP_SERVERS": serving.bootstrap_servers}
    told = run("ask", "--config", str(file), "--set", "kafka.compression.type=lz4", "hello", variables=servers)
    assert (told.returncode, told.stderr) == (0, "")
    assert digest("hello") in told.stdout


def test_a_terminal_gets_a_progress_bar(serving: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("one\ntwo\n")
    screen, terminal = pty.openpty()
    answers = subprocess.run(
        [sys.executable, "-m", "forebay_producer", "submit", *to(serving), str(tmp_path / "lines.txt")],
        stdout=subprocess.PIPE, stderr=terminal, stdin=subprocess.DEVNULL, check=False, timeout=90,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    try:
        while some := os.read(screen, 65_536):
            shown += some
    except OSError:  # how Linux tells the end of a terminal
        pass
    os.close(screen)
    assert answers.returncode == 0, shown
    assert len(answers.stdout.splitlines()) == 2
    assert b"2 sent, 2 answered, 0 failed" in shown


@pytest.mark.parametrize("command", [["ask", "anybody?"], ["submit", "-"]])
def test_no_broker_gives_one_readable_line(command: list[str]) -> None:
    told = run(*command, "-b", "127.0.0.1:1", stdin=b"anybody?\n")
    assert told.returncode == 2
    [line] = told.stderr.splitlines()
    assert "127.0.0.1:1" in line
    assert "is it running" in line
    assert told.stdout == ""


def test_a_missing_topic_gives_one_readable_line(pipeline: Pipeline) -> None:
    told = run("ask", "-b", pipeline.bootstrap_servers, "--requests", "not-there", "anybody?")
    assert told.returncode == 2
    [line] = told.stderr.splitlines()
    assert "not-there" in line
    assert "create it" in line


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(["ask"], "at least one text", id="nothing to ask"),
        pytest.param(["submit"], "Missing argument", id="nothing to submit"),
        pytest.param(["submit", "nowhere.txt"], "no file at nowhere.txt", id="no such file"),
        pytest.param(["ask", "--set", "linger=5", "a"], "expected kafka.key=value", id="an override of nothing"),
        pytest.param(["ask", "--set", "kafka.acks=0", "a"], "acks='0': allowed is all", id="a promise"),
        pytest.param(["ask", "--set", "kafka.nonsense=0", "a"], "nonsense", id="an unknown key"),
        pytest.param(["ask", "--timeout", "0", "a"], "timeout_s=0", id="no timeout"),
        pytest.param(["ask", "--config", "nowhere.yaml", "a"], "no configuration file at nowhere.yaml", id="no config"),
    ],
)
def test_wrong_usage_ends_with_two_and_says_why(arguments: list[str], told: str) -> None:
    ended = run(*arguments, variables={"COLUMNS": "200"})
    assert ended.returncode == 2
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr
