"""What a Python value becomes on the wire, and that the worker's side reads it back."""

import math
import uuid
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import orjson
import pytest

from forebay_producer import BadRequest
from forebay_producer.encode import Value, checked_headers, encode, request_id_of
from forebay_schemas import Content, read_request
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


@pytest.mark.parametrize(
    ("value", "parameters", "rows"),
    [
        pytest.param("a text", None, ["a text"], id="text"),
        pytest.param('{"not": "json"', None, ['{"not": "json"'], id="text that looks like JSON"),
        pytest.param(PNG, None, [PNG], id="image"),
        pytest.param(bytearray(PNG), None, [PNG], id="image in a bytearray"),
        pytest.param("a text", {"top_k": 2}, ["a text"], id="text with parameters"),
        pytest.param(PNG, {"top_k": 2}, [PNG], id="image with parameters"),
        pytest.param(["a", "b"], None, ["a", "b"], id="several texts"),
        pytest.param(("a", "b"), None, ["a", "b"], id="several texts in a tuple"),
        pytest.param([PNG, PNG], None, [PNG, PNG], id="several images"),
        pytest.param([[1, 2.5], {"x": 1}], None, [[1, 2.5], {"x": 1}], id="rows of a model of one's own"),
        pytest.param({"inputs": ["a"], "id": "mine"}, None, ["a"], id="a JSON body"),
        pytest.param(
            MappingProxyType({"text": "a"}), MappingProxyType({"k": 1}), ["a"], id="mappings that are no dict"
        ),
        pytest.param({"text": "a"}, {"top_k": 1}, ["a"], id="a JSON body with parameters"),
    ],
)
def test_the_worker_reads_what_the_client_wrote(
    value: Value, parameters: dict[str, Any] | None, rows: list[Any]
) -> None:
    body, content_type = encode(value, parameters)
    _, content = read_request(Record(body, [("content-type", content_type.encode())]))
    assert isinstance(content, Content), content
    assert list(content.inputs) == rows
    assert dict(content.parameters) == (parameters or {})


@pytest.mark.parametrize("value", [pytest.param("ünï", id="text"), pytest.param("ünï".encode(), id="bytes")])
def test_a_value_with_a_content_type_travels_as_it_is(value: str | bytes) -> None:
    assert encode(value, content_type="application/json") == ("ünï".encode(), "application/json")


@pytest.mark.parametrize(
    ("value", "parameters", "content_type", "told"),
    [
        pytest.param(b"plain bytes", None, None, "encoded image", id="bytes of no image"),
        pytest.param([b"plain bytes"], None, None, "encoded image", id="a row of no image"),
        pytest.param("\ud800", None, None, "surrogate", id="half a surrogate pair"),
        pytest.param(["\ud800"], None, None, "UTF-8", id="half a surrogate pair in a row"),
        pytest.param({"inputs": [b"raw"]}, None, None, "bytes", id="bytes in a JSON body"),
        pytest.param([object()], None, None, "serializable", id="a row that JSON cannot hold"),
        pytest.param(5, None, None, "a int cannot be sent", id="a number"),
        pytest.param("a", {"top_k": object()}, None, "serializable", id="parameters that JSON cannot hold"),
        pytest.param("a", {"top_k": 1}, "text/plain", "parameters", id="parameters beside a content type"),
        pytest.param(["a"], None, "text/plain", "str or bytes", id="rows with a content type"),
        pytest.param("a", ["top_k"], None, "parameters: expected a mapping, got a list", id="parameters in a list"),
        pytest.param("a", None, 5, "content_type: expected a str, got a int", id="a number for a content type"),
        pytest.param(
            [[1.0, None], [float("nan")]], None, None, r"value\['inputs'\]\[1\]\[0\]: JSON has no NaN", id="no number"
        ),
        pytest.param("a", {"x": -math.inf}, None, r"value\['parameters'\]\['x'\]: JSON", id="without an end"),
    ],
)
def test_what_cannot_be_sent_is_told(value: Any, parameters: Any, content_type: str | None, told: str) -> None:
    with pytest.raises(BadRequest, match=told):
        encode(value, parameters, content_type)


@pytest.mark.parametrize(
    ("value", "given", "expected"),
    [
        pytest.param("a", "mine", "mine", id="given"),
        pytest.param({"id": "body", "inputs": ["a"]}, None, "body", id="of the body"),
        pytest.param({"id": "body", "inputs": ["a"]}, "mine", "mine", id="given, over that of the body"),
        pytest.param({"id": 7, "inputs": ["a"]}, None, None, id="a number is for the worker to judge"),
        pytest.param("a", None, None, id="none"),
        pytest.param("a", "x" * 256, "x" * 256, id="the longest"),
    ],
)
def test_whose_request_id_counts(value: Value, given: str | None, expected: str | None) -> None:
    assert request_id_of(value, given) == expected


@pytest.mark.parametrize("id_", ["", "a\nb", "ü" * 129, "\ud800"])
def test_a_request_id_that_no_worker_takes_is_refused(id_: str) -> None:
    with pytest.raises(BadRequest, match="256 bytes"):
        request_id_of("a", id_)
    with pytest.raises(BadRequest, match="256 bytes"):
        request_id_of({"id": id_}, None)


@pytest.mark.parametrize("given", [7, uuid.UUID(int=7), b"bytes"])
def test_a_request_id_that_is_no_text_is_refused_and_not_replaced(given: Any) -> None:
    with pytest.raises(BadRequest, match="expected a str, got a"):
        request_id_of({"id": "good", "text": "x"}, given)


@pytest.mark.parametrize(
    ("value", "content_type", "expected"),
    [
        pytest.param('{"id": "order-7", "text": "x"}', "application/json", "order-7", id="text"),
        pytest.param(b'{"id": "order-7"}', "Application/JSON; charset=utf-8", "order-7", id="bytes"),
        pytest.param('{"id": "order-7"}', "text/plain", None, id="a text that looks like it"),
        pytest.param('{"id": "order-7"}', None, None, id="a text"),
        pytest.param("{broken", "application/json", None, id="broken"),
        pytest.param('["id"]', "application/json", None, id="no object"),
        pytest.param(b'\xef\xbb\xbf{"id": "a"}', "application/json", "a", id="after a byte order mark"),
        pytest.param(bytearray(b'{"id": "a"}'), "application/json", "a", id="in a bytearray"),
    ],
)
def test_the_id_of_a_body_that_is_written_already_counts(
    value: Value, content_type: str | None, expected: str | None
) -> None:
    assert request_id_of(value, None, content_type) == expected
    assert request_id_of(value, "mine", content_type) == "mine"


def test_parameters_join_those_of_the_body_and_come_before_them() -> None:
    body, _ = encode({"text": "a", "parameters": {"top_k": 1, "x": 1}}, {"x": 2})
    assert orjson.loads(body) == {"text": "a", "parameters": {"top_k": 1, "x": 2}}


def test_nothing_in_the_place_of_a_number_is_sent_as_such() -> None:
    assert encode([[None, 1.5]]) == (b'{"inputs":[[null,1.5]]}', "application/json")


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        pytest.param([("a", "b")], "headers: expected a mapping of names to str or bytes, got a list", id="a list"),
        pytest.param({"": "b"}, "headers: name ''", id="no name"),
        pytest.param({"a\0": "b"}, "without a zero byte", id="a zero byte"),
        pytest.param({"x\ud800": "b"}, "of UTF-8", id="half a surrogate pair"),
        pytest.param({b"a": "b"}, "name b'a'", id="a name of bytes"),
        pytest.param({"a": 5}, "'a': expected a str or bytes, got a int", id="a number"),
        pytest.param({"a": None}, "'a': expected a str or bytes, got a NoneType", id="nothing"),
    ],
)
def test_headers_that_cannot_be_sent_are_told(headers: Any, told: str) -> None:
    with pytest.raises(BadRequest, match=told):
        checked_headers(headers)


def test_headers_go_as_they_are() -> None:
    given: dict[str, str | bytes] = {"a": "b", "ünï": b"\xff"}
    assert checked_headers(given) == given
    assert checked_headers(None) == {}
