"""A reply says what the model said, in the form of its request, and reads back the same."""

import math
import subprocess
import sys
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from forebay_schemas import (
    Code,
    Envelope,
    Failure,
    Form,
    Model,
    Result,
    error_body,
    read_reply,
    reply_headers,
    result_body,
)
from forebay_schemas.documents import reply_schema
from forebay_schemas.headers import RawHeaders
from forebay_schemas.reply import ResultWriter
from unit.schemas.wire import Wire

VALID = Draft202012Validator(reply_schema())
MODEL = Model("sentiment", "7")
TIMING = {"queue_ms": 1.5, "batch_size": 32}
FORMS = pytest.mark.parametrize("form", Form)

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | FLOATS | TEXTS
JSON_VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8
)


@st.composite
def tensors(draw: st.DrawFn) -> list[Any]:
    """Nested lists of one shape, as embeddings and images are."""
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    element = draw(st.sampled_from([FLOATS, st.integers(-9, 9), TEXTS, st.booleans()]))

    def nested(sizes: list[int]) -> Any:
        return draw(element) if not sizes else [nested(sizes[1:]) for _ in range(sizes[0])]

    rows: list[Any] = nested(shape)
    return rows


IDS = st.text(min_size=1, max_size=256).filter(lambda text: text.isprintable() and len(text.encode()) <= 256)
OUTPUTS = tensors() | st.lists(JSON_VALUES, max_size=4)


def sent_and_read(form: Form, outputs: Any, id_: str = "42") -> Result:
    body = result_body(Envelope(id_, form), MODEL, outputs, TIMING)
    VALID.validate(orjson.loads(body))
    if form is Form.V2:
        (tensor,) = orjson.loads(body)["outputs"]
        assert len(tensor["data"]) == math.prod(tensor["shape"])
        assert tensor["shape"][0] == len(outputs)
    result = read_reply(id_.encode(), body, None)
    assert isinstance(result, Result)
    return result


@given(st.sampled_from(Form), IDS, OUTPUTS)
def test_every_result_is_valid_and_reads_back_the_same(form: Form, id_: str, outputs: list[Any]) -> None:
    result = sent_and_read(form, outputs, id_)
    assert result == Result(id_, MODEL, outputs, TIMING)
    assert orjson.dumps(result.outputs) == orjson.dumps(outputs)  # True is no 1


@FORMS
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_the_precision_is_told_where_it_is_known_and_reads_back(form: Form, dtype: str | None) -> None:
    model = Model("sentiment", "7", dtype)
    body = result_body(Envelope("42", form), model, [0.5], TIMING)
    VALID.validate(orjson.loads(body))
    assert (b"model_dtype" in body) is (dtype is not None)
    result = read_reply(b"42", body, None)
    assert isinstance(result, Result)
    assert result.model == model


@FORMS
def test_a_precision_that_is_no_text_is_not_read(form: Form) -> None:
    body = orjson.loads(result_body(Envelope("42", form), MODEL, [0.5], TIMING))
    (body["parameters"] if form is Form.V2 else body)["model_dtype"] = 16
    result = read_reply(b"42", orjson.dumps(body), None)
    assert isinstance(result, Result)
    assert result.model.dtype is None


@given(st.sampled_from(Form), IDS, st.sampled_from(Code), st.text(max_size=50))
def test_every_error_is_valid_and_reads_back_the_same(form: Form, id_: str, code: Code, message: str) -> None:
    body = error_body(Envelope(id_, form), code, message)
    VALID.validate(orjson.loads(body))
    expected = message.encode(errors="replace").decode()
    assert read_reply(None, body, None) == Failure(id_, code, expected)


@FORMS
def test_a_message_with_a_lone_surrogate_is_sent_all_the_same(form: Form) -> None:
    assert b"file ?" in error_body(Envelope("42", form), Code.INTERNAL, "file \udcff")


@FORMS
@pytest.mark.parametrize(
    "outputs",
    [
        pytest.param([], id="none"),
        pytest.param([[]], id="empty row"),
        pytest.param([[[]]], id="emptier row"),
        pytest.param([[1, 2], [3]], id="ragged"),
        pytest.param([[0.5, 1], [2, 3]], id="numbers of both kinds"),
        pytest.param([True, 1], id="boolean and number"),
        pytest.param(["a", None], id="null among strings"),
        pytest.param([{"label": "A", "score": 0.5}, {"label": "B", "score": 1.0}], id="dicts"),
        pytest.param([[{"label": "A"}], [{"label": "B"}]], id="lists of dicts"),
        pytest.param(["a", "{}"], id="strings"),
        pytest.param([["a"], ["b"]], id="strings in lists"),
        pytest.param([[[1.5], [2.5]]], id="three dimensions"),
    ],
)
def test_outputs_of_every_shape_read_back_the_same(form: Form, outputs: list[Any]) -> None:
    assert orjson.dumps(sent_and_read(form, outputs).outputs) == orjson.dumps(outputs)


@FORMS
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int64", "uint8", "bool"])
@pytest.mark.parametrize("view", ["whole", "columns", "transposed", "rows", "scalars"])
def test_numpy_outputs_read_back_as_lists(form: Form, dtype: str, view: str) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(6).reshape(3, 2).astype(dtype)
    views: dict[str, Any] = {
        "whole": array,
        "columns": array[:, 0],
        "transposed": array.T,
        "rows": list(array),
        "scalars": list(array[:, 1]),
    }
    outputs = views[view]
    assert sent_and_read(form, outputs).outputs == numpy.asarray(outputs).tolist()


@FORMS
def test_numpy_inside_dicts_reads_back_as_lists(form: Form) -> None:
    numpy = pytest.importorskip("numpy")
    outputs = [{"scores": numpy.array([0.5, 0.25]), "best": numpy.int64(1)}]
    assert sent_and_read(form, outputs).outputs == [{"scores": [0.5, 0.25], "best": 1}]


def test_a_float_keeps_all_its_digits() -> None:
    for value in (0.1, 1 / 3, math.pi, 5e-324, 1.7976931348623157e308, -0.0):
        assert repr(sent_and_read(Form.V2, [value]).outputs[0]) == repr(value)


@FORMS
def test_what_json_cannot_hold_is_null_or_a_type_error(form: Form) -> None:
    assert sent_and_read(form, [[math.nan, 1.0]]).outputs == [[None, 1.0]]
    for output in (b"bytes", object(), {1, 2}, 2**64):
        with pytest.raises(TypeError):
            result_body(Envelope("42", form), MODEL, [output], TIMING)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        pytest.param([[0.5, 1.0]], {"shape": [1, 2], "datatype": "FP64", "data": [0.5, 1.0]}, id="floats"),
        pytest.param([1, 2], {"shape": [2], "datatype": "INT64", "data": [1, 2]}, id="integers"),
        pytest.param(
            [2**63],
            {
                "shape": [1],
                "datatype": "BYTES",
                "parameters": {"content_type": "application/json"},
                "data": [str(2**63)],
            },
            id="an integer beyond INT64",
        ),
        pytest.param([True], {"shape": [1], "datatype": "BOOL", "data": [True]}, id="booleans"),
        pytest.param(["a"], {"shape": [1], "datatype": "BYTES", "data": ["a"]}, id="strings"),
        pytest.param(
            [{"a": 1}],
            {
                "shape": [1],
                "datatype": "BYTES",
                "parameters": {"content_type": "application/json"},
                "data": ['{"a":1}'],
            },
            id="dicts",
        ),
    ],
)
def test_outputs_of_a_v2_reply_are_one_tensor(outputs: list[Any], expected: dict[str, Any]) -> None:
    body = orjson.loads(result_body(Envelope("42", Form.V2), MODEL, outputs, {}))
    assert body["outputs"] == [{"name": "output", **expected}]
    assert (body["model_name"], body["model_version"]) == ("sentiment", "7")


def test_the_parameters_of_a_v2_reply_are_scalars_as_the_protocol_has_them() -> None:
    model = Model("m", dtype="bfloat16")
    body = orjson.loads(result_body(Envelope("42", Form.V2), model, [1], TIMING))
    assert body["parameters"] == {**TIMING, "model_dtype": "bfloat16"}


def test_one_writer_writes_results_of_both_forms_in_any_order() -> None:
    writer = ResultWriter(MODEL, TIMING)
    envelopes = [Envelope(str(number), form) for number, form in enumerate((Form.PLAIN, Form.V2, Form.V2, Form.PLAIN))]
    for envelope in envelopes:
        outputs = [f"of {envelope.id}"]
        assert writer.body(envelope, outputs) == result_body(envelope, MODEL, outputs, TIMING)


@pytest.mark.parametrize("code", [None, *Code])
def test_the_headers_of_a_reply_say_whose_it_is_and_how_it_went(code: Code | None) -> None:
    wire = reply_headers(Envelope("42"), Wire(), MODEL, code)
    assert dict(wire) == {
        "request-id": b"42",
        "status": b"ok" if code is None else b"error",
        "model": b"sentiment",
        "model-version": b"7",
        "content-type": b"application/json",
        "source-topic": b"requests",
        "source-partition": b"3",
        "source-offset": b"1207",
        **({} if code is None else {"code": code.value.encode()}),
    }
    assert len(wire) == len(dict(wire))


@pytest.mark.parametrize(
    "names", [("correlation-id",), ("kafka_correlationId",), ("correlation-id", "kafka_correlationId")]
)
def test_the_headers_of_a_reply_echo_the_correlation_and_the_trace(names: tuple[str, ...]) -> None:
    correlation = [(name, name.encode() + b"\xff" * 16) for name in names]
    envelope = Envelope("42", correlation=correlation, traceparent=b"00-1", tracestate=b"s=1")
    wire = dict(reply_headers(envelope, Wire(), MODEL, None))
    assert [pair for pair in wire.items() if "correlation" in pair[0]] == correlation
    assert (wire["traceparent"], wire["tracestate"]) == (b"00-1", b"s=1")


def test_a_reader_learns_the_source_from_the_headers() -> None:
    headers = reply_headers(Envelope("42"), Wire(), MODEL, None)
    result = read_reply(None, result_body(Envelope("42"), MODEL, ["a"], {}), headers)
    assert result.source == ("requests", 3, 1207)


@pytest.mark.parametrize("offset", [None, b"", b"x", b"\xff"])
def test_a_reader_does_without_a_broken_source(offset: bytes | None) -> None:
    headers = [("source-topic", b"requests"), ("source-partition", b"3"), ("source-offset", offset)]
    assert read_reply(None, b'{"id": "42", "outputs": []}', headers).source is None


@pytest.mark.parametrize(
    ("key", "value", "headers", "id_"),
    [
        pytest.param(b"key", b'{"id": "body", "outputs": []}', [("request-id", b"header")], "body", id="body"),
        pytest.param(b"key", b'{"outputs": []}', [("request-id", b"header")], "header", id="header"),
        pytest.param(b"key", b'{"outputs": []}', None, "key", id="key"),
    ],
)
def test_a_reader_finds_the_id(key: bytes, value: bytes, headers: RawHeaders | None, id_: str) -> None:
    assert read_reply(key, value, headers).id == id_


@pytest.mark.parametrize(
    "body",
    [
        b'{"id": "1", "error": %s}',
        b'{"id": "1", "error": {"code": %s, "message": %s}}',
        b'{"id": "1", "outputs": [], "model": %s, "model_version": %s}',
        b'{"id": "1", "outputs": [], "model_name": %s}',
    ],
)
def test_what_nests_too_deep_in_the_place_of_a_text_is_left_out(body: bytes) -> None:
    """orjson reads more levels than the interpreter recurses."""
    deep = b"[" * 1000 + b"]" * 1000
    assert read_reply(None, body.replace(b"%s", deep), None).id == "1"


@pytest.mark.parametrize(
    ("value", "headers", "expected"),
    [
        pytest.param(b'{"id": "1", "error": "too_large: a: b"}', None, (Code.TOO_LARGE, "a: b"), id="colons"),
        pytest.param(b'{"id": "1", "error": "x"}', [("code", b"poison")], (Code.POISON, ""), id="header counts"),
        pytest.param(
            b'{"id": "1", "error": {"code": "brand_new", "message": "m"}}',
            None,
            (Code.INTERNAL, "brand_new: m"),
            id="code of a newer worker",
        ),
        pytest.param(b'{"id": "1", "error": null}', None, (Code.INTERNAL, "None: "), id="null"),
    ],
)
def test_a_reader_finds_the_code(value: bytes, headers: RawHeaders | None, expected: tuple[Code, str]) -> None:
    failure = read_reply(None, value, headers)
    assert isinstance(failure, Failure)
    assert (failure.code, failure.message) == expected


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"text",
        b"[]",
        b'{"outputs": []}',
        b'{"id": 7, "outputs": []}',
        b'{"id": "1"}',
        b'{"id": "1", "outputs": {}}',
        b'{"id": "1", "model_name": "m", "outputs": [7]}',
        b'{"id": "1", "model_name": "m", "outputs": [{"shape": [1]}]}',
        b'{"id": "1", "model_name": "m", "outputs": [{"data": [1], "shape": 7}]}',
        b'{"id": "1", "model_name": "m", "outputs": [{"data": [1], "shape": [1, 0]}]}',
        b'{"id": "1", "model_name": "m", "outputs": [{"data": [1], "shape": [1, "1"]}]}',
        b'{"id":"1","model_name":"m","outputs":[{"data":["{"],"shape":[1],"parameters":{"content_type":"application/json"}}]}',
    ],
)
def test_a_record_that_is_no_reply_is_a_value_error(value: bytes | None) -> None:
    with pytest.raises(ValueError, match=r"^not a reply: "):
        read_reply(None, value, None)


@given(
    st.none() | st.binary(max_size=20),
    st.none()
    | st.binary(max_size=50)
    | st.dictionaries(
        st.sampled_from(["id", "error", "outputs", "model_name", "model_version", "model", "parameters", "timing"]),
        JSON_VALUES,
    ).map(orjson.dumps),
    st.none() | st.lists(st.tuples(st.sampled_from(["code", "request-id", "source-offset"]), st.binary())),
)
def test_reading_any_record_gives_a_reply_or_a_value_error(
    key: bytes | None, value: bytes | None, headers: RawHeaders | None
) -> None:
    try:
        reply = read_reply(key, value, headers)
    except ValueError as error:
        refusal = str(error)
    else:
        refusal = ""
        assert reply.id
    assert refusal == "" or refusal.startswith("not a reply: ")


def test_the_schemas_package_imports_no_numpy() -> None:
    """A web back end that only sends requests never pays for numpy."""
    program = "import sys, forebay_schemas, forebay_schemas.documents; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
