"""What holds of every record whatsoever, and that the decoder and the JSON Schema are one contract."""

import base64
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson
from hypothesis import assume, event, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from forebay_schemas import Content, RequestError, error_body, headers, read_envelope, read_request
from forebay_schemas.documents import request_schema
from forebay_schemas.headers import RawHeaders
from unit.schemas.wire import Wire, read_body

HEADERS = [value for name, value in vars(headers).items() if name.isupper() and isinstance(value, str)]
DATATYPES = ["BOOL", "UINT8", "INT64", "FP32", "BYTES"]


def ecma_pattern(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[ValidationError]:
    """`$` in a JSON Schema is the end of the text; in Python also before a last line break."""
    if isinstance(instance, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


VALIDATOR = extend(Draft202012Validator, {"pattern": ecma_pattern})(request_schema())  # type: ignore[no-untyped-call]

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
BASE64 = st.binary(max_size=7).map(lambda raw: base64.b64encode(raw).decode()) | st.text("AQgw=/+-\n", max_size=9)
SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | TEXTS
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(TEXTS | st.sampled_from(["text", "image", "name", "data"]), inner, max_size=3)
    ),
    max_leaves=6,
)
ROWS = TEXTS | st.fixed_dictionaries({"text": TEXTS}) | st.fixed_dictionaries({"image": BASE64}) | ANYTHING
ELEMENTS: dict[str, st.SearchStrategy[Any]] = {
    "BOOL": st.booleans(),
    "UINT8": st.integers(0, 255),
    "INT64": st.integers(-9, 9),
    "FP32": st.integers(-9, 9) | st.floats(-9, 9),
    "BYTES": TEXTS | BASE64,
}


def nested(flat: list[Any], shape: list[int]) -> list[Any]:
    for size in reversed(shape[1:]):
        flat = [flat[start : start + size] for start in range(0, len(flat), size)]
    return flat


@st.composite
def tensors(draw: st.DrawFn, rows: int) -> dict[str, Any]:
    datatype = draw(st.sampled_from(DATATYPES))
    shape = [rows, *draw(st.lists(st.integers(1, 2), max_size=2))]
    count = math.prod(shape)
    flat = draw(st.lists(ELEMENTS[datatype], min_size=count, max_size=count))
    tensor = {
        "name": draw(st.sampled_from(["x", "y", "z"])),
        "shape": shape,
        "datatype": datatype,
        "data": nested(flat, shape) if draw(st.booleans()) else flat,
    }
    if draw(st.booleans()):
        content_type = draw(st.sampled_from(["base64", "pillow_image", "str", None]))
        tensor["parameters"] = draw(st.one_of(st.just({"content_type": content_type}), SCALARS))
    return tensor


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """Bodies as clients write them, nearly all of them valid."""
    kind = draw(st.sampled_from(["inputs", "text", "image", "v2"]))
    if kind == "inputs":
        body: dict[str, Any] = {"inputs": draw(st.lists(ROWS, min_size=1, max_size=3) | TEXTS)}
    elif kind == "text":
        body = {"text": draw(TEXTS)}
    elif kind == "image":
        body = {"image": draw(BASE64)}
    else:
        rows = draw(st.integers(1, 3))
        body = {"inputs": draw(st.lists(tensors(rows), min_size=1, max_size=2))}
    if draw(st.booleans()):
        body["id"] = draw(st.none() | TEXTS)
    if draw(st.booleans()):
        body["model"] = draw(st.none() | TEXTS)
    if draw(st.booleans()):
        body["parameters"] = draw(st.none() | st.dictionaries(TEXTS, SCALARS, max_size=2))
    return body


def places(node: Any) -> list[tuple[Any, Any]]:
    """Every container with every key or index in it."""
    found: list[tuple[Any, Any]] = []
    keys: Any = node.keys() if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        found += [(node, key), *places(node[key])]
    return found


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A body with one thing in it replaced, removed, added or doubled."""
    body: dict[str, Any] = orjson.loads(orjson.dumps(draw(bodies())))  # a copy that shares nothing
    holder, key = draw(st.sampled_from(places(body)))
    match draw(st.sampled_from(["replace", "remove", "double", "add"])):
        case "replace":
            holder[key] = draw(ANYTHING | st.integers(0, 40).map(lambda count: [1] * count))
        case "remove":
            del holder[key]
        case "double" if isinstance(holder, list):
            holder.append(holder[key])
        case _:
            name = draw(st.sampled_from(["text", "image", "inputs", "id", "model", "parameters", "extra"]))
            body[name] = draw(ANYTHING)
    return body


def keeps_the_rules_no_schema_can_say(body: Mapping[str, Any]) -> bool:
    """Rules of the contract beyond JSON Schema, asked only of bodies that the schema allows.

    An id is printable and has at most 256 *bytes*; an integer is written without a fraction; tensors have different
    names and one first dimension; `data` is flat or nested as `shape` says.
    """
    id_ = body.get("id")
    if id_ is not None and not (id_.isprintable() and len(id_.encode()) <= 256):
        return False
    inputs: Any = body.get("inputs")
    if not is_v2(inputs):
        return True
    names = [tensor["name"] for tensor in inputs]
    if len(set(names)) < len(names) or len({tensor["shape"][0] for tensor in inputs}) > 1:
        return False
    return all(map(tensor_keeps_the_rules, inputs))


def is_v2(inputs: Any) -> bool:
    return (
        isinstance(inputs, list)
        and bool(inputs)
        and all(isinstance(entry, dict) and {"name", "shape", "datatype", "data"} <= set(entry) for entry in inputs)
    )


def tensor_keeps_the_rules(tensor: Mapping[str, Any]) -> bool:
    leaves = list(leaves_of(tensor["data"]))
    if any(isinstance(size, float) for size in tensor["shape"]):
        return False
    if "INT" in tensor["datatype"] and any(isinstance(leaf, float) and leaf.is_integer() for leaf in leaves):
        return False  # 1.0 is an integer to JSON Schema; 1.5 is not
    return len(leaves) == math.prod(tensor["shape"]) and tensor["data"] in (leaves, nested(leaves, tensor["shape"]))


def leaves_of(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from leaves_of(item)
    else:
        yield value


@settings(max_examples=1000)
@given(bodies() | mutated())
@example({"inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [1.0]}]})
@example({"inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [1.5]}]})
@example({"inputs": [{"name": "x", "shape": [1.0], "datatype": "INT64", "data": [1]}]})
@example({"inputs": [{"name": "x", "shape": [2, 2], "datatype": "INT64", "data": [[1, 2, 3], [4]]}]})
@example({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}, "row"]})
@example({"inputs": [{"name": "x", "shape": [1] * 33, "datatype": "FP32", "data": [1]}]})
@example({"image": "YWI=\n"})
@example({"image": "Y==="})
@example({"image": "YWJj===="})
@example({"text": "a", "inputs": None})
@example({"text": "a", "id": ""})
@example({"text": "a", "id": "\u2028"})
@example({"text": "a", "id": "水" * 86})
def test_the_decoder_accepts_a_body_when_the_schema_and_the_rules_beyond_it_do(body: dict[str, Any]) -> None:
    _, content = read_body(body)
    errors = [error.message for error in VALIDATOR.iter_errors(body)]
    event(f"valid by the schema: {not errors}")
    expected = not errors and keeps_the_rules_no_schema_can_say(body)
    assert isinstance(content, Content) == expected, (content, errors)


@settings(max_examples=500)
@given(st.fixed_dictionaries({"id": st.none() | TEXTS, "inputs": st.lists(ROWS, max_size=3) | SCALARS}) | mutated())
@example({"id": "a" * 65, "inputs": ["水"]})
@example({"id": "水" * 86, "inputs": ["a"]})
@example({"id": "\u2028", "inputs": ["a"]})
@example({"id": "", "inputs": ["a"]})
@example({"id": "a", "inputs": []})
@example({"id": "a", "inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]})
@example({"id": "a", "inputs": [1, {"text": "a"}]})
def test_parameters_of_null_change_nothing(body: dict[str, Any]) -> None:
    """The most frequent kind of body is read by a path of its own, which it leaves with a third key."""
    assume("parameters" not in body)
    envelope, content = read_body(body)
    again, expected = read_body({**body, "parameters": None})
    assert envelope == again
    assert content == expected or (str(content), type(content)) == (str(expected), type(expected))


@settings(max_examples=300)
@given(bodies())
def test_an_accepted_body_has_a_row_for_each_input(body: dict[str, Any]) -> None:
    _, content = read_body(body)
    assume(isinstance(content, Content))
    assert isinstance(content, Content)
    inputs = body.get("inputs", "one")
    expected = inputs[0]["shape"][0] if is_v2(inputs) else len(inputs) if isinstance(inputs, list) else 1
    assert len(content.inputs) == expected


HEADER_VALUES = (
    st.none()
    | st.binary(max_size=20)
    | st.sampled_from([b"text/plain", b"application/json", b"image/png", b"application/json; charset=x", b"12"])
    | st.binary(min_size=250, max_size=260)
)
ANY_HEADERS = st.none() | st.lists(st.tuples(st.sampled_from(HEADERS) | st.text(max_size=5), HEADER_VALUES), max_size=6)
ANY_VALUE = (
    st.none()
    | st.binary(max_size=60)
    | st.binary(max_size=40).map(lambda raw: b"{" + raw)
    | (bodies() | mutated() | st.dictionaries(TEXTS, ANYTHING, max_size=3)).map(orjson.dumps)
    | st.tuples(st.sampled_from([b"\x89PNG\r\n\x1a\n", b"RIFF", b"BM", b"\xff\xd8\xff"]), st.binary()).map(b"".join)
)
ANY_KEY = st.none() | st.binary(max_size=20) | st.binary(min_size=250, max_size=260) | TEXTS.map(str.encode)
ANY_RECORD = st.builds(
    Wire,
    ANY_VALUE,
    ANY_HEADERS,
    ANY_KEY,
    st.text("abc._-09", min_size=1, max_size=249) | st.just("t" * 249),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**63 - 1),
)


@settings(max_examples=1000)
@given(ANY_RECORD)
def test_every_record_has_an_envelope_that_can_be_answered(record: Wire) -> None:
    envelope, content = read_request(record)
    assert 1 <= len(envelope.id.encode()) <= 256
    assert envelope.id.isprintable()
    assert envelope.reply_partition is None or 0 <= envelope.reply_partition < 2**31
    if isinstance(content, RequestError):
        assert content.message
        assert orjson.loads(error_body(envelope, content.code, content.message))["id"] == envelope.id
    else:
        assert len(content.inputs) > 0


@given(ANY_RECORD)
def test_a_record_delivered_again_is_read_the_same(record: Wire) -> None:
    first, again = read_request(record), read_request(record)
    assert first[0] == again[0]
    assert str(first[1]) == str(again[1])


@given(ANY_RECORD, st.binary(max_size=20))
def test_a_correlation_id_survives_whatever_else_the_record_holds(record: Wire, correlation: bytes) -> None:
    for name in (headers.CORRELATION_ID, headers.SPRING_CORRELATION_ID):
        others = [pair for pair in record.headers or () if "correlation" not in pair[0]]
        given_headers: RawHeaders = [*others, (name, correlation)]
        envelope, _ = read_request(Wire(record.value, given_headers, record.key))
        assert envelope.correlation == ((name, correlation),)


LONG = "Q" * 5000


def lengthened(node: Any) -> Any:
    """The same value with every string and every list of scalars made very long."""
    if isinstance(node, str):
        return node + LONG
    if isinstance(node, list):
        return [lengthened(item) for item in node] * (1 if any(isinstance(item, list | dict) for item in node) else 20)
    if isinstance(node, dict):
        return {name: lengthened(value) for name, value in node.items()}
    return node


@settings(max_examples=500)
@given(mutated())
def test_a_message_never_repeats_much_of_the_clients_input(body: dict[str, Any]) -> None:
    _, error = read_body(lengthened(body))
    assume(isinstance(error, RequestError))
    assert len(str(error)) <= 400  # of which at most 300 are the client's


@given(st.sampled_from(HEADERS), st.binary(min_size=300, max_size=600) | st.just(b"\xff" * 500) | st.just(b"q" * 500))
def test_a_message_never_repeats_much_of_a_header(name: str, value: bytes) -> None:
    _, error = read_request(Wire(b"text", [(name, value)]))
    assume(isinstance(error, RequestError))
    assert len(str(error)) <= 400


class Unread:
    """A record whose value must not be looked at."""

    def __init__(self, record: Wire) -> None:
        self.headers = record.headers
        self.key = record.key
        self.topic, self.partition, self.offset = record.topic, record.partition, record.offset

    @property
    def value(self) -> bytes | None:
        raise AssertionError("the value was read")


@settings(max_examples=500)
@given(ANY_RECORD)
def test_an_envelope_alone_is_that_of_the_same_headers_around_a_plain_text(record: Wire) -> None:
    envelope, _ = read_request(replace(record, value=b"text"))
    assert read_envelope(Unread(record)) == envelope
