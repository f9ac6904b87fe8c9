"""Which request each line and file becomes, as a worker would read it."""

import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from forebay_producer.encode import encode, request_id_of
from forebay_producer.sources import count, read
from forebay_schemas import Code, Content, read_request
from forebay_schemas.headers import RawHeaders

PNG = b"\x89PNG\r\n\x1a\n rest"


@dataclass(frozen=True)
class Record:
    value: bytes | None
    headers: RawHeaders | None
    topic: str = "requests"
    partition: int = 0
    offset: int = 0
    key: bytes | None = None


def understood(names: list[str]) -> list[tuple[str, str | None, Any]]:
    """Source, id and what the worker understands of each: its rows, or the code of its error."""
    told = []
    for request in read(names):
        options = dict(request.options)
        id_ = request_id_of(request.value, options.pop("request_id", None))
        body, content_type = encode(request.value, **options)
        _, content = read_request(Record(body, [("content-type", content_type.encode())]))
        told.append((request.source, id_, list(content.inputs) if isinstance(content, Content) else content.code))
    return told


def test_lines_of_jsonl(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_bytes(
        b'\xef\xbb\xbf{"id": "mine", "inputs": ["a", "b"]}\n\n"a text"\n  {"text": "c"}  \r\n{broken\n5\n\xff\n'
    )
    assert understood([str(file)]) == [
        (f"{file}:1", "mine", ["a", "b"]),
        (f"{file}:3", None, ["a text"]),
        (f"{file}:4", None, ["c"]),
        (f"{file}:5", None, Code.INVALID_REQUEST),
        (f"{file}:6", None, Code.INVALID_REQUEST),
        (f"{file}:7", None, Code.INVALID_REQUEST),
    ]
    assert count([str(file)]) == 6


def test_every_line_of_a_text_file_is_a_text(tmp_path: Path) -> None:
    file = tmp_path / "in.txt"
    file.write_bytes('{"not": "a body"}\n\n"quoted"\nünï\n'.encode() + b"\xff\n")
    assert understood([str(file)]) == [
        (f"{file}:1", None, ['{"not": "a body"}']),
        (f"{file}:3", None, ['"quoted"']),
        (f"{file}:4", None, ["ünï"]),
        (f"{file}:5", None, Code.INVALID_REQUEST),
    ]


def test_standard_input_has_bodies_and_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"inputs": ["a"]}\n"quoted"\nplain\n{typo\n')))
    assert understood(["-"]) == [
        ("-:1", None, ["a"]),
        ("-:2", None, ['"quoted"']),
        ("-:3", None, ["plain"]),
        ("-:4", None, Code.INVALID_REQUEST),
    ]
    assert count(["-"]) is None


def test_images_and_whole_json_files(tmp_path: Path) -> None:
    (tmp_path / "a.PNG").write_bytes(PNG)
    (tmp_path / "b.json").write_text('{\n  "inputs": ["a"]\n}\n')
    names = [str(tmp_path / "a.PNG"), str(tmp_path / "b.json")]
    assert understood(names) == [(names[0], None, [PNG]), (names[1], None, ["a"])]
    assert count(names) == 2


def test_a_json_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "body.json"
    file.write_bytes(b'\xef\xbb\xbf{"id": "mine", "inputs": ["a"]}')
    (request,) = read([str(file)])
    assert request.value == b'{"id": "mine", "inputs": ["a"]}'
    assert request.options["request_id"] == "mine"


def test_a_standard_input_that_is_closed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(OSError, match="standard input is closed"):
        list(read(["-"]))
