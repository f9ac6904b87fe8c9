"""A record of Kafka with every field defaulted, and short ways to read one."""

from dataclasses import dataclass
from typing import Any

import orjson

from forebay_schemas import Content, Envelope, RequestError, read_request
from forebay_schemas.headers import RawHeaders


@dataclass(frozen=True, slots=True)
class Wire:
    value: bytes | None = b"text"
    headers: RawHeaders | None = None
    key: bytes | None = None
    topic: str = "requests"
    partition: int = 3
    offset: int = 1207


def read(value: bytes | None = b"text", headers: RawHeaders | None = None, key: bytes | None = None) -> Envelope:
    return read_request(Wire(value, headers, key))[0]


def read_body(body: Any, headers: RawHeaders | None = None) -> tuple[Envelope, Content | RequestError]:
    return read_request(Wire(orjson.dumps(body), headers))


def content_of(value: bytes, headers: RawHeaders | None = None) -> Content:
    _, content = read_request(Wire(value, headers))
    assert isinstance(content, Content), content
    return content


def error_of(value: bytes | None, headers: RawHeaders | None = None) -> RequestError:
    _, error = read_request(Wire(value, headers))
    assert isinstance(error, RequestError), error
    return error
