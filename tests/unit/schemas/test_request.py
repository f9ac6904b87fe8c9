"""What a record becomes: whose it is, where its answer goes, and what is asked."""

import base64
from typing import Any

import orjson
import pytest

from forebay_schemas import Code, Content, DecodeError, Form, InvalidRequest, RequestError, Unsupported, read_request
from forebay_schemas.headers import RawHeaders
from forebay_schemas.request import CONTENT_TYPES
from unit.schemas.wire import Wire, content_of, error_of, read, read_body

PNG = b"\x89PNG\r\n\x1a\n" + b"rest"
JPEG = b"\xff\xd8\xff\xe0rest"
WEBP = b"RIFF\x04\x00\x00\x00WEBPVP8 "
BMP = b"BM\x0a\x00\x00\x00rest"
NAMED = [("request-id", b"from-header")]
BODY_ID = b'{"id": "from-body", "text": "x"}'


def tensor(data: list[Any], datatype: str = "INT64", shape: Any = None, **more: Any) -> dict[str, Any]:
    return {"name": "x", "shape": shape or [len(data)], "datatype": datatype, "data": data, **more}


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        pytest.param(Wire(BODY_ID, NAMED, b"from-key"), "from-header", id="header before all"),
        pytest.param(Wire(BODY_ID, None, b"from-key"), "from-body", id="body before key"),
        pytest.param(Wire(BODY_ID, [("model", b"m")], b"from-key"), "from-body", id="body with other headers"),
        pytest.param(Wire(b'{"id": null, "text": "x"}', None, b"from-key"), "from-key", id="null in the body is none"),
        pytest.param(Wire(b"text", None, b"from-key"), "from-key", id="key of raw text"),
        pytest.param(Wire(b'{"id": "a"}', [("content-type", b"text/plain")]), "requests-3-1207", id="text has no id"),
        pytest.param(Wire(b"text"), "requests-3-1207", id="coordinates"),
        pytest.param(Wire(b"text", None, b""), "requests-3-1207", id="empty key"),
        pytest.param(Wire(b"text", None, b"\xff\xfe"), "requests-3-1207", id="key is not UTF-8"),
        pytest.param(Wire(b"text", None, b"a\nb"), "requests-3-1207", id="key is not printable"),
        pytest.param(Wire(b"text", None, b"k" * 257), "requests-3-1207", id="key too long"),
        pytest.param(Wire(b"text", None, b"k" * 256), "k" * 256, id="longest key"),
        pytest.param(Wire(b"text", None, "näme 水".encode()), "näme 水", id="key beyond ASCII"),
        pytest.param(Wire(b"text", topic="t" * 249), "t" * 224 + "-3-1207", id="longest topic"),
    ],
)
def test_the_id_is_the_headers_then_the_bodys_then_the_key_then_the_coordinates(wire: Wire, expected: str) -> None:
    assert read_request(wire)[0].id == expected


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(Wire(b'{"id": "from-body", "model": 3, "text": "x"}'), id="model of a wrong kind"),
        pytest.param(Wire(b'{"id": "from-body", "parameters": 3, "text": "x"}'), id="parameters of a wrong kind"),
        pytest.param(Wire(b'{"id": "from-body"}'), id="no inputs"),
        pytest.param(Wire(BODY_ID, [("deadline-ms", b"soon")], b"key"), id="broken header"),
        pytest.param(
            Wire(BODY_ID, [("deadline-ms", b"soon"), ("content-type", b"application/json")], b"key"),
            id="broken header beside a content type",
        ),
        pytest.param(Wire(BODY_ID, [("request-id", b"\xff")], b"key"), id="broken request-id"),
    ],
)
def test_a_broken_request_is_answered_under_the_id_in_its_body(wire: Wire) -> None:
    envelope, error = read_request(wire)
    assert isinstance(error, InvalidRequest)
    assert envelope.id == "from-body"


def test_a_broken_header_beside_a_good_request_id_is_answered_under_it() -> None:
    envelope, error = read_request(Wire(BODY_ID, [*NAMED, ("priority", b"high")], b"key"))
    assert isinstance(error, InvalidRequest)
    assert envelope.id == "from-header"


def test_a_v2_request_with_a_broken_header_gets_a_v2_error() -> None:
    envelope, error = read_body({"inputs": [tensor([1])]}, [("deadline-ms", b"soon")])
    assert isinstance(error, InvalidRequest)
    assert envelope.form is Form.V2


@pytest.mark.parametrize("value", [b"", b"\xff\xfe", b"a\x00b", b"x" * 257], ids=["empty", "bytes", "control", "long"])
def test_an_unusable_request_id_is_refused(value: bytes) -> None:
    error = error_of(b"text", [("request-id", value)])
    assert error.code is Code.INVALID_REQUEST
    assert "request-id" in error.message


@pytest.mark.parametrize("value", ["", "a\n", "x" * 257, "水" * 86], ids=["empty", "control", "long", "258 bytes"])
def test_an_unusable_id_in_the_body_is_refused(value: str) -> None:
    assert "body id" in error_of(orjson.dumps({"id": value, "text": "x"})).message


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param(None, None, id="none at all"),
        pytest.param([], None, id="empty list"),
        pytest.param([("model", None)], None, id="value None"),
        pytest.param([("", b"x"), ("", None)], None, id="empty name"),
        pytest.param([("other", b"\xff\xfe")], None, id="bytes in a foreign header"),
        pytest.param([("model", b"a"), ("model", b"b")], "b", id="repeated"),
        pytest.param([("model", b"a"), ("model", None)], "a", id="repeated with None last"),
        pytest.param([("Model", b"a")], None, id="names are case-sensitive"),
    ],
)
def test_odd_headers_are_read_and_the_last_value_counts(headers: RawHeaders | None, expected: str | None) -> None:
    envelope, content = read_request(Wire(b"text", headers))
    assert isinstance(content, Content)
    assert envelope.model == expected


@pytest.mark.parametrize("name", ["model", "model-version", "reply-topic", "kafka_replyTopic", "content-type"])
def test_a_header_that_is_not_text_is_named(name: str) -> None:
    error = error_of(b"text", [(name, b"\xff\xfe")])
    assert error.message == f"header {name}: expected UTF-8 text"


@pytest.mark.parametrize("name", ["correlation-id", "kafka_correlationId"])
@pytest.mark.parametrize(
    "value", [bytes(range(0xF0, 0x100)), b"", b"plain", b"\xff\xfe"], ids=["16 raw bytes", "empty", "text", "not UTF-8"]
)
def test_a_correlation_id_comes_back_untouched_under_its_own_name(name: str, value: bytes) -> None:
    assert read(headers=[(name, value)]).correlation == ((name, value),)


def test_both_correlation_ids_come_back_where_both_were_sent() -> None:
    pairs = [("correlation-id", b"trace"), ("kafka_correlationId", b"\xff" * 16)]
    for headers in (pairs, pairs[::-1]):
        assert sorted(read(headers=headers).correlation) == pairs


def test_a_correlation_id_is_kept_when_another_header_is_broken() -> None:
    headers = [("kafka_correlationId", b"\xff" * 16), ("deadline-ms", b"soon"), ("traceparent", b"00-1")]
    envelope = read(headers=headers)
    assert envelope.correlation == (("kafka_correlationId", b"\xff" * 16),)
    assert envelope.traceparent == b"00-1"


@pytest.mark.parametrize(
    ("headers", "topic", "partition"),
    [
        pytest.param([("reply-topic", b"r"), ("reply-partition", b"12")], "r", 12, id="ours"),
        pytest.param([("kafka_replyTopic", b"r"), ("kafka_replyPartition", b"\0\0\0\x0c")], "r", 12, id="Spring's"),
        pytest.param([("reply-partition", b"\0\0\x01\x02")], None, 258, id="big-endian in ours"),
        pytest.param([("kafka_replyPartition", b"7")], None, 7, id="digits in Spring's"),
        pytest.param([("reply-partition", b"1234")], None, 1234, id="four digits are digits"),
        pytest.param([("reply-partition", b"2147483647")], None, 2**31 - 1, id="largest in digits"),
        pytest.param([("reply-partition", b"\x7f\xff\xff\xff")], None, 2**31 - 1, id="largest in four bytes"),
        pytest.param([("reply-partition", b"1"), ("kafka_replyPartition", b"2")], None, 1, id="ours first"),
        pytest.param([("reply-topic", b"a"), ("kafka_replyTopic", b"b")], "a", None, id="our topic first"),
    ],
)
def test_the_way_back_is_read(headers: RawHeaders, topic: str | None, partition: int | None) -> None:
    envelope = read(headers=headers)
    assert (envelope.reply_topic, envelope.reply_partition) == (topic, partition)


@pytest.mark.parametrize(
    "value",
    [b"", b"-1", b"one", b"\xff\xff\xff\xff", b"\0\0\x0c", b"2147483648", b"99999999999", "²".encode()],
    ids=["empty", "negative", "word", "negative big-endian", "three bytes", "2**31", "long", "superscript"],
)
def test_a_reply_partition_that_is_none_is_refused(value: bytes) -> None:
    assert "header reply-partition" in error_of(b"text", [("reply-partition", value)]).message


def test_the_way_back_is_kept_when_another_header_is_broken() -> None:
    headers = [("reply-topic", b"r"), ("reply-partition", b"2"), ("deadline-ms", b"soon")]
    envelope = read(headers=headers)
    assert (envelope.reply_topic, envelope.reply_partition) == ("r", 2)


def test_numbers_and_traces_are_read() -> None:
    headers = [("deadline-ms", b"1700000000500"), ("priority", b"3"), ("traceparent", b"\xff"), ("tracestate", b"s")]
    envelope = read(headers=headers)
    assert envelope.deadline_s == 1_700_000_000.5
    assert envelope.priority == 3
    assert (envelope.traceparent, envelope.tracestate) == (b"\xff", b"s")


@pytest.mark.parametrize("name", ["deadline-ms", "priority"])
@pytest.mark.parametrize("value", [b"", b"soon", b"-1", b"1.5", b" 1", b"1" * 19, b"\xff"])
def test_a_number_that_is_none_is_refused(name: str, value: bytes) -> None:
    assert f"header {name}: expected decimal digits" in error_of(b"text", [(name, value)]).message


@pytest.mark.parametrize(
    ("value", "row"),
    [
        pytest.param(b"plain words", "plain words", id="text"),
        pytest.param("水は高い".encode(), "水は高い", id="text beyond ASCII"),
        pytest.param(b" ", " ", id="a space"),
        pytest.param(b"[1, 2]", "[1, 2]", id="a list is text"),
        pytest.param(b"BM is a text too", "BM is a text too", id="text like a bitmap"),
        pytest.param(PNG, PNG, id="png"),
        pytest.param(JPEG, JPEG, id="jpeg"),
        pytest.param(WEBP, WEBP, id="webp"),
        pytest.param(BMP, BMP, id="bmp"),
        pytest.param(b' \n{"text": "x"}', "x", id="json after white space"),
    ],
)
def test_a_value_alone_is_enough(value: bytes, row: str | bytes) -> None:
    assert list(content_of(value).inputs) == [row]


@pytest.mark.parametrize(
    ("content_type", "value", "row"),
    [
        pytest.param("text/plain", b'{"text": "x"}', '{"text": "x"}', id="text that looks like JSON"),
        pytest.param("text/plain; charset=utf-8", b"x", "x", id="charset"),
        pytest.param('Text/Plain;charset="UTF-8"', b"x", "x", id="capitals and quotes"),
        pytest.param("text/plain; format=flowed; charset=us-ascii", b"x", "x", id="charset second"),
        pytest.param("application/json; charset=utf-8", b'{"text": "x"}', "x", id="JSON with charset"),
        pytest.param("image/png", b"anything", b"anything", id="an image as claimed"),
        pytest.param("image/jpg", JPEG, JPEG, id="jpg"),
        pytest.param("image/png; charset=binary", PNG, PNG, id="charset of an image"),
    ],
)
def test_the_content_type_is_believed(content_type: str, value: bytes, row: str | bytes) -> None:
    assert list(content_of(value, [("content-type", content_type.encode())]).inputs) == [row]


@pytest.mark.parametrize(
    "content_type", ["application/xml", "image/gif", "", "json", "text/plain\n/x"], ids=lambda value: repr(value)
)
def test_an_unknown_content_type_is_refused_naming_the_allowed_ones(content_type: str) -> None:
    error = error_of(b"x", [("content-type", content_type.encode())])
    assert type(error) is Unsupported
    assert all(allowed in error.message for allowed in CONTENT_TYPES)


@pytest.mark.parametrize("parameters", ["charset=latin1", "format=flowed; charset=utf-16", "charset="])
def test_an_unknown_charset_is_refused(parameters: str) -> None:
    error = error_of(b"x", [("content-type", f"text/plain; {parameters}".encode())])
    assert type(error) is Unsupported
    assert "utf-8" in error.message


def test_a_tombstone_and_an_empty_value_are_told_apart() -> None:
    tombstone, empty = error_of(None), error_of(b"")
    assert isinstance(tombstone, InvalidRequest)
    assert isinstance(empty, InvalidRequest)
    assert "tombstone" in tombstone.message
    assert "empty" in empty.message
    assert "tombstone" not in empty.message


@pytest.mark.parametrize(
    ("value", "headers", "kind", "says"),
    [
        pytest.param(b'{"text": "x"', None, DecodeError, "content-type: text/plain", id="JSON typo, guessed"),
        pytest.param(
            b"{'text': 1}", [("content-type", b"application/json")], DecodeError, "not valid JSON", id="JSON typo"
        ),
        pytest.param(b"[1]", [("content-type", b"application/json")], InvalidRequest, "got a list", id="JSON list"),
        pytest.param(b"null", [("content-type", b"application/json")], InvalidRequest, "got null", id="JSON null"),
        pytest.param(b"\xff\xfetext", None, DecodeError, "byte 0", id="UTF-16 text"),
        pytest.param(b"ok\xff", [("content-type", b"text/plain")], DecodeError, "byte 2", id="broken text"),
        pytest.param(b'{"text": "\xff"}', None, DecodeError, "not valid JSON", id="JSON not in UTF-8"),
        pytest.param(b"{" * 100_000, None, DecodeError, "not valid JSON", id="JSON typo, many times"),
        pytest.param(b'{"inputs":' + b"[" * 9999 + b"]" * 9999 + b"}", None, DecodeError, "depth", id="deep JSON"),
        pytest.param(b"{}", None, InvalidRequest, "none of them", id="no inputs"),
        pytest.param(b'{"text": "a", "image": ""}', None, InvalidRequest, "text and image", id="two inputs"),
        pytest.param(b'{"inputs": []}', None, InvalidRequest, "got an empty list", id="no rows"),
        pytest.param(b'{"inputs": null}', None, InvalidRequest, "got null", id="null inputs"),
        pytest.param(b'{"inputs": 7}', None, InvalidRequest, "got a number", id="number for inputs"),
        pytest.param(b'{"text": 7}', None, InvalidRequest, "body text: expected a string", id="number for text"),
        pytest.param(b'{"inputs": ["a", {"text": []}]}', None, InvalidRequest, "inputs[1]: text", id="list for text"),
        pytest.param(b'{"text": "a", "model": {}}', None, InvalidRequest, "model", id="object for model"),
        pytest.param(b'{"text": "a", "parameters": []}', None, InvalidRequest, "parameters", id="list for parameters"),
        pytest.param(b'{"image": "?"}', None, DecodeError, "body image: not valid base64", id="base64 typo"),
        pytest.param(b'{"image": "YWI"}', None, DecodeError, "padded", id="base64 without padding"),
        pytest.param(b'{"image": "YWJj\\nYWJj"}', None, DecodeError, "line breaks", id="base64 with line breaks"),
        pytest.param(b'{"inputs": [{"image": "-_=="}]}', None, DecodeError, "inputs[0]: image", id="base64 for URLs"),
        pytest.param(b'{"image": "\xc3\xa9"}', None, DecodeError, "not valid base64", id="base64 beyond ASCII"),
        pytest.param(b'{"image": 3}', None, InvalidRequest, "expected a base64 string", id="number for an image"),
    ],
)
def test_what_is_wrong_is_named(value: bytes, headers: RawHeaders | None, kind: type[RequestError], says: str) -> None:
    error = error_of(value, headers)
    assert type(error) is kind
    assert says in error.message


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        pytest.param({"inputs": "a"}, ["a"], id="one text"),
        pytest.param({"inputs": ["a", {"text": "b"}]}, ["a", "b"], id="texts"),
        pytest.param({"image": base64.b64encode(PNG).decode()}, [PNG], id="image"),
        pytest.param({"inputs": [{"image": "YQ=="}, {"image": ""}]}, [b"a", b""], id="images"),
        pytest.param({"inputs": [1, None, [2], {"a": 1}]}, [1, None, [2], {"a": 1}], id="a model's own rows"),
        pytest.param({"inputs": [{"text": 1, "b": 2}]}, [{"text": 1, "b": 2}], id="text among other members"),
        pytest.param({"inputs": [{"name": "x"}, "a"]}, [{"name": "x"}, "a"], id="hardly a tensor"),
        pytest.param({"inputs": [tensor([1]), "a"]}, [tensor([1]), "a"], id="a tensor among rows is a row"),
    ],
)
def test_rows_of_a_plain_body(body: dict[str, Any], rows: list[Any]) -> None:
    envelope, content = read_body(body)
    assert isinstance(content, Content)
    assert list(content.inputs) == rows
    assert envelope.form is Form.PLAIN


def test_model_and_parameters_of_a_body_are_read_and_a_header_comes_before() -> None:
    body = {"text": "x", "model": "from-body", "parameters": {"top_k": 3}}
    envelope, content = read_body(body)
    assert isinstance(content, Content)
    assert (envelope.model, content.parameters) == ("from-body", {"top_k": 3})
    assert read_body(body, [("model", b"from-header")])[0].model == "from-header"


@pytest.mark.parametrize(
    ("inputs", "rows"),
    [
        pytest.param([tensor([1, 2])], [1, 2], id="numbers"),
        pytest.param([tensor([1, 2, 3, 4], shape=[2, 2])], [[1, 2], [3, 4]], id="flat"),
        pytest.param([tensor([[1, 2], [3, 4]], shape=[2, 2])], [[1, 2], [3, 4]], id="nested"),
        pytest.param([tensor([1, 2], shape=[2, 1])], [[1], [2]], id="[n, 1] numbers are lists of one"),
        pytest.param([tensor(["a", "b"], "BYTES", [2, 1])], ["a", "b"], id="[n, 1] strings are n strings"),
        pytest.param([tensor([["a"], ["b"]], "BYTES", [2, 1])], ["a", "b"], id="nested [n, 1] strings"),
        pytest.param([tensor(["a", "b"], "BYTES", [1, 2])], [["a", "b"]], id="[1, n] strings are one row"),
        pytest.param([tensor([True, False], "BOOL")], [True, False], id="booleans"),
        pytest.param([tensor([1, 2.5], "FP32")], [1, 2.5], id="whole numbers among fractions"),
        pytest.param([tensor([-3.4028235e38], "FP32")], [-3.4028235e38], id="the least of float32, as it is written"),
        pytest.param([tensor(["YQ=="], "BYTES", parameters={"content_type": "base64"})], [b"a"], id="BYTES in base64"),
        pytest.param(
            [tensor(["YQ=="], "BYTES", parameters={"content_type": "pillow_image"})], [b"a"], id="MLServer's image"
        ),
        pytest.param([tensor(["YQ=="], "BYTES", parameters=3)], ["YQ=="], id="odd parameters are ignored"),
        pytest.param(
            [{**tensor([1, 2]), "name": "a"}, {**tensor(["p", "q"], "BYTES"), "name": "b"}],
            [{"a": 1, "b": "p"}, {"a": 2, "b": "q"}],
            id="several tensors are objects",
        ),
        pytest.param([tensor([7], shape=[1] * 32)], None, id="32 dimensions"),
    ],
)
def test_rows_of_a_v2_body(inputs: list[Any], rows: list[Any] | None) -> None:
    envelope, content = read_body({"id": "42", "inputs": inputs, "outputs": [{"name": "y"}]})
    assert isinstance(content, Content), content
    assert len(content.inputs) == 1 if rows is None else list(content.inputs) == rows
    assert (envelope.id, envelope.form) == ("42", Form.V2)


def test_parameters_of_the_v2_protocol_are_not_for_the_model() -> None:
    own = {"content_type": "str", "binary_data_output": True, "sequence_id": 7, "sequence_start": True}
    body = {"inputs": [tensor([1])], "parameters": {**own, "top_k": 2}}
    content = read_body(body)[1]
    assert isinstance(content, Content)
    assert content.parameters == {"top_k": 2}
    plain = read_body({"text": "x", "parameters": own})[1]
    assert isinstance(plain, Content)
    assert plain.parameters == own


@pytest.mark.parametrize("content_type", [None, b"application/json", b"text/plain"])
def test_a_byte_order_mark_is_no_part_of_the_value(content_type: bytes | None) -> None:
    headers = None if content_type is None else [("content-type", content_type)]
    value = b'{"id": "a", "text": "x"}'
    assert read_request(Wire(b"\xef\xbb\xbf" + value, headers)) == read_request(Wire(value, headers))


@pytest.mark.parametrize(
    ("inputs", "code", "says"),
    [
        pytest.param([tensor([1, 2, 3], shape=[2, 2])], "invalid_request", "expected 4 elements", id="too few"),
        pytest.param([tensor([1, 2, 3], shape=[2])], "invalid_request", "got 3", id="too many"),
        pytest.param([tensor([], shape=[1])], "invalid_request", "got 0", id="none"),
        pytest.param([tensor([[1, 2, 3], [4]], shape=[2, 2])], "invalid_request", "expected 4", id="ragged"),
        pytest.param([tensor([[1], [2]])], "invalid_request", "INT64, got a list", id="nested deeper than its shape"),
        pytest.param([tensor([1], shape=[0])], "invalid_request", "positive integers", id="size zero"),
        pytest.param([tensor([1], shape=[True])], "invalid_request", "positive integers", id="size true"),
        pytest.param([tensor([1], shape=[1.0])], "invalid_request", "positive integers", id="size with a fraction"),
        pytest.param([tensor([1], shape="1")], "invalid_request", "positive integers", id="shape a string"),
        pytest.param([tensor([1], shape=[1] * 33)], "invalid_request", "at most 32", id="33 dimensions"),
        pytest.param([tensor([1], shape=[2**63] * 32)], "invalid_request", "elements", id="astronomical shape"),
        pytest.param([tensor([1], "FP128")], "unsupported", "BYTES", id="unknown datatype"),
        pytest.param([{**tensor([1]), "datatype": []}], "unsupported", "datatype []", id="datatype a list"),
        pytest.param([{**tensor([1]), "datatype": {}}], "unsupported", "datatype {}", id="datatype an object"),
        pytest.param([{**tensor([1]), "data": "a"}], "invalid_request", "data: expected a list", id="data a string"),
        pytest.param([tensor([1, "a"])], "invalid_request", "data[1]", id="string among numbers"),
        pytest.param([tensor([1.5])], "invalid_request", "INT64", id="fraction among whole numbers"),
        pytest.param(
            [tensor([0, 256], "UINT8")],
            "invalid_request",
            "data[1]: expected an element of UINT8, 0 to 255, got 256",
            id="beyond a byte",
        ),
        pytest.param(
            [tensor([2.0**64], "UINT64")], "invalid_request", "got 1.8446744073709552e+19", id="beyond 64 bits"
        ),
        pytest.param([tensor([70000], "FP16")], "invalid_request", "-65504.0 to 65504.0, got 70000", id="beyond FP16"),
        pytest.param(
            [tensor([0.5, -3.4028236e38], "FP32")], "invalid_request", "data[1]: expected an element of FP32", id="FP32"
        ),
        pytest.param([tensor([-1], "UINT64")], "invalid_request", "0 to 18446744073709551615, got -1", id="below zero"),
        pytest.param([tensor([128], "INT8")], "invalid_request", "-128 to 127, got 128", id="beyond a signed byte"),
        pytest.param([tensor([True])], "invalid_request", "got a boolean", id="boolean among numbers"),
        pytest.param([tensor([1], "BOOL")], "invalid_request", "got a number", id="number among booleans"),
        pytest.param([tensor([1], "BYTES")], "invalid_request", "got a number", id="number among strings"),
        pytest.param([tensor([None], "FP32")], "invalid_request", "got null", id="null among numbers"),
        pytest.param(
            [tensor(["?"], "BYTES", parameters={"content_type": "base64"})], "invalid_request", "base64", id="base64"
        ),
        pytest.param([tensor([1]), tensor([1])], "invalid_request", "no other input", id="two of a name"),
        pytest.param([{**tensor([1]), "name": 3}], "invalid_request", "name", id="number for a name"),
        pytest.param(
            [tensor([1]), {**tensor([1, 2]), "name": "y"}], "invalid_request", "[1, 2]", id="rows of two counts"
        ),
    ],
)
def test_what_is_wrong_in_a_v2_body_is_named(inputs: list[Any], code: str, says: str) -> None:
    envelope, error = read_body({"id": "42", "inputs": inputs})
    assert isinstance(error, RequestError)
    assert error.code == code
    assert says in error.message
    assert (envelope.id, envelope.form) == ("42", Form.V2)


def test_a_shape_nested_deeper_than_the_interpreter_recurses_is_an_error_like_any_other() -> None:
    shape = b"[" * 900 + b"]" * 900
    value = b'{"inputs": [{"name": "x", "shape": [%b], "datatype": "INT64", "data": [1]}]}' % shape
    assert "positive integers" in error_of(value).message


@pytest.mark.parametrize("wire", [Wire(b"text"), Wire(PNG), Wire(b'{"text": "x"}'), Wire(b'{"text": "x"}', NAMED)])
def test_no_parameters_are_a_dict_that_json_and_pickle_take(wire: Wire) -> None:
    """Models of the user's own hand it on as they like, and see a plain one at their warm-up."""
    _, content = read_request(wire)
    assert isinstance(content, Content)
    assert orjson.dumps(content.parameters) == b"{}"
