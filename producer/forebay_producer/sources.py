"""From files to requests: JSONL, text and images. Bytes travel as they are; what is wrong with one the worker says."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any, Final

import orjson

from forebay_producer.bulk import Request
from forebay_schemas.request import JSON, TEXT

STDIN: Final = "-"
IMAGE_SUFFIXES: Final = frozenset([".jpg", ".jpeg", ".png", ".webp", ".bmp"])
JSONL_SUFFIXES: Final = frozenset([".jsonl", ".ndjson"])
_BOM: Final = b"\xef\xbb\xbf"


def read(files: Iterable[str]) -> Iterator[Request]:
    """The requests of files, in order, as they are read; `source` is `file:line`, or the file for an image.

    Images go by their suffix; `.json` is one JSON body. In JSONL a line is a JSON body, or a JSON string as a text. On
    standard input a line that starts with `{` is a JSON body; every other one, and all of any other file, is a text.
    Empty lines are left out.

    Raises:
        OSError: a file cannot be read.
    """
    for name in files:
        suffix = Path(name).suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            yield image(name)
            continue
        if suffix == ".json":
            yield _of_json(Path(name).read_bytes().removeprefix(_BOM), name)
            continue
        with _opened(name) as lines:
            for number, line in _lines(lines):
                source = f"{name}:{number}"
                if suffix in JSONL_SUFFIXES or (name == STDIN and line.startswith(b"{")):
                    yield _of_json(line, source)
                else:
                    yield Request(line, source, {"content_type": TEXT})


def count(files: Iterable[str]) -> int | None:
    """How many requests `read` will give; None with standard input, which ends when it ends, or an unreadable file."""
    try:
        return _count(files)
    except OSError:  # `read` says why, when it comes to it
        return None


def _count(files: Iterable[str]) -> int | None:
    total = 0
    for name in files:
        if name == STDIN:
            return None
        if Path(name).suffix.lower() in {*IMAGE_SUFFIXES, ".json"}:
            total += 1
            continue
        with _opened(name) as lines:
            total += sum(1 for _ in _lines(lines))
    return total


def image(name: str) -> Request:
    """One image file.

    Raises:
        OSError: it cannot be read.
    """
    return Request(Path(name).read_bytes(), name)


def _opened(name: str) -> Any:
    if name != STDIN:
        return Path(name).open("rb")
    if sys.stdin is None:
        raise OSError("standard input is closed")
    return nullcontext(sys.stdin.buffer)


def _lines(lines: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(lines, start=1):
        if stripped := (line.removeprefix(_BOM) if number == 1 else line).strip():
            yield number, stripped


def _of_json(line: bytes, source: str) -> Request:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        value = None
    if isinstance(value, str):
        return Request(value, source)
    options = {"content_type": JSON}
    if isinstance(value, dict) and isinstance(value.get("id"), str):
        options["request_id"] = value["id"]
    return Request(line, source, options)  # what is no JSON object is answered so, and no other line suffers
