"""A request as it stands on the wire: its envelope (who asks, how to answer) and its content (what is asked).

Reading is done in two steps so that *every* record can be answered: the envelope of a record exists whatever
its bytes are, and the content is either there or an error that names what is wrong.
"""

import base64
import itertools
import reprlib
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cache
from math import inf, nextafter, prod
from typing import Any, Final, NamedTuple, Protocol

import orjson

from forebay_schemas import headers as names
from forebay_schemas.errors import DecodeError, InvalidRequest, RequestError, Unsupported

MAX_ID_BYTES: Final = 256
MAX_DIMENSIONS: Final = 32  # of a V2 tensor; what nests deeper cannot be encoded again
MAX_PARTITION: Final = 2**31 - 1

TEXT: Final = "text/plain"
JSON: Final = "application/json"
IMAGES: Final = ("image/jpeg", "image/png", "image/webp", "image/bmp")
CONTENT_TYPES: Final = (TEXT, JSON, *IMAGES)

V2_DATATYPES: Final = frozenset(
    ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"]
)


class Form(Enum):
    """How a request was written, which is how its reply is written."""

    PLAIN = "plain"
    V2 = "v2"  # Open Inference Protocol V2


class Source(Protocol):
    """What reading needs of a record from Kafka."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> names.RawHeaders | None: ...


class Envelope(NamedTuple):
    """Who asks and how to answer; every record has one. A tuple, since one is made for every record.

    Attributes:
        id: 1 to 256 bytes of printable UTF-8; the same at every redelivery of the record.
        correlation: headers to echo, untouched: name and bytes of each.
        deadline_s: Unix time in seconds after which the answer is not wanted, or None.
        reply_topic, reply_partition: where the client wants its answer, or None for the worker's default.
    """

    id: str
    form: Form = Form.PLAIN
    model: str | None = None
    model_version: str | None = None
    reply_topic: str | None = None
    reply_partition: int | None = None
    correlation: Sequence[tuple[str, bytes]] = ()
    deadline_s: float | None = None
    priority: int | None = None
    traceparent: bytes | None = None
    tracestate: bytes | None = None


class Content(NamedTuple):
    """What is asked: one entry of `inputs` per row.

    A row is a `str` (text), `bytes` (an encoded image), or any JSON value for a model of the user's own.
    """

    inputs: Sequence[Any]
    parameters: Mapping[str, Any]


_BOM: Final = b"\xef\xbb\xbf"
_OF_V2: Final = frozenset(
    [
        "binary_data_output",
        "content_type",
        "headers",
        "priority",
        "sequence_end",
        "sequence_id",
        "sequence_start",
        "timeout",
    ]
)
"""What the protocol, or its extensions of Triton and MLServer, says in a request's `parameters`."""
_BARE: Final = tuple([Envelope._field_defaults[name] for name in Envelope._fields[3:]])
_CORRELATIONS: Final = (names.CORRELATION_ID, names.SPRING_CORRELATION_ID)
_PLAIN, _V2 = Form.PLAIN, Form.V2  # looking a member up costs as much as reading a small field
_loads: Final = orjson.loads
_FEW: Final = MAX_ID_BYTES // 4  # a character takes 4 bytes at most
_make: Final = tuple.__new__  # a named tuple's own takes twice the time
_REST_OF_PLAIN: Final = (_PLAIN, None, *_BARE)


def read_request(source: Source) -> tuple[Envelope, Content | RequestError]:
    """Read one record. Never raises: what is wrong comes back beside an envelope that can be answered."""
    if not source.headers and (value := source.value) and value.startswith(b"{"):
        try:
            body = _loads(value)
        except orjson.JSONDecodeError as error:
            return Envelope(_default_id(source)), _bare(_not_json(error, hint=True))
        return _read_usual(body) or _read_object(body, source, None, named=False)
    try:
        content_type, named, envelope = _read_headers(source)
    except InvalidRequest as error:
        return _fallback_envelope(source), _bare(error)
    try:
        value = _checked(source.value)
        kind = sniff(value) if content_type is None else _media_type(content_type)
        if kind == TEXT:
            return envelope, Content((_decode_text(value),), {})
        if kind != JSON:
            return envelope, Content((value,), {})
        body = _decode_object(value, hint=content_type is None)
    except RequestError as error:
        return envelope, _bare(error)
    return _read_object(body, source, envelope, named=named)


def read_envelope(source: Source) -> Envelope:
    """Read only who asks and how to answer, from headers and key; the value is not looked at. Never raises."""
    try:
        return _read_headers(source)[2]
    except InvalidRequest:
        return _header_envelope(source)[0]


def _coordinates(source: Source) -> str:
    return f"{source.topic[:224]}-{source.partition}-{source.offset}"  # a topic name has up to 249 bytes, an id 256


def _usable_id(raw: bytes) -> str | None:
    if not 1 <= len(raw) <= MAX_ID_BYTES:
        return None
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None


def _is_usable(text: str) -> bool:
    return text.isprintable() and (0 < len(text) <= _FEW or 0 < len(text.encode()) <= MAX_ID_BYTES)


def _default_id(source: Source) -> str:
    key = source.key
    return (_usable_id(key) if key else None) or _coordinates(source)


def _read_headers(source: Source) -> tuple[str | None, bool, Envelope]:
    """The content type, whether a header names the request, and the envelope as far as headers and key tell it."""
    found = names.last_values(source.headers)
    if not found:
        return None, False, Envelope(_default_id(source))
    request_id = found.get(names.REQUEST_ID)
    if request_id is None:
        id_ = _default_id(source)
    elif (usable := _usable_id(request_id)) is not None:
        id_ = usable
    else:
        raise InvalidRequest(f"header {names.REQUEST_ID}: expected 1 to {MAX_ID_BYTES} bytes of printable UTF-8")
    envelope = Envelope(
        id=id_,
        model=_text(found, names.MODEL),
        model_version=_text(found, names.MODEL_VERSION),
        reply_topic=_text(found, names.REPLY_TOPIC) or _text(found, names.SPRING_REPLY_TOPIC),
        reply_partition=_partition(found, names.REPLY_PARTITION, names.SPRING_REPLY_PARTITION),
        correlation=_correlation(found),
        deadline_s=_deadline_s(found),
        priority=_whole_number(found, names.PRIORITY),
        traceparent=found.get(names.TRACEPARENT),
        tracestate=found.get(names.TRACESTATE),
    )
    return _text(found, names.CONTENT_TYPE), request_id is not None, envelope


def _fallback_envelope(source: Source) -> Envelope:
    """The envelope of a record with a broken header: what is left of it that is surely right, and its body's id."""
    envelope, named = _header_envelope(source)
    content_type = names.last_values(source.headers).get(names.CONTENT_TYPE)
    try:
        value = _checked(source.value)
        kind = sniff(value) if content_type is None else _media_type(content_type.decode(errors="replace"))
        if kind != JSON:
            return envelope
        body = _decode_object(value, hint=False)
    except RequestError:
        return envelope
    return _read_object(body, source, envelope, named=named)[0]


def _header_envelope(source: Source) -> tuple[Envelope, bool]:
    """What is surely right in headers of which one is broken, and whether a header names the request."""
    found = names.last_values(source.headers)
    named = _usable_id(found.get(names.REQUEST_ID, b""))
    envelope = Envelope(
        id=named or _default_id(source),
        reply_topic=_text_or_none(found, names.REPLY_TOPIC) or _text_or_none(found, names.SPRING_REPLY_TOPIC),
        reply_partition=_partition_or_none(found, names.REPLY_PARTITION, names.SPRING_REPLY_PARTITION),
        correlation=_correlation(found),
        traceparent=found.get(names.TRACEPARENT),
        tracestate=found.get(names.TRACESTATE),
    )
    return envelope, named is not None


def _correlation(found: Mapping[str, bytes]) -> Sequence[tuple[str, bytes]]:
    """Both where both are there: a Spring client that is traced has one of its own beside Spring's."""
    return tuple([(name, found[name]) for name in _CORRELATIONS if name in found])


def _text(found: Mapping[str, bytes], name: str) -> str | None:
    value = found.get(name)
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"header {name}: expected UTF-8 text") from None


def _text_or_none(found: Mapping[str, bytes], name: str) -> str | None:
    try:
        return _text(found, name)
    except InvalidRequest:
        return None


def _whole_number(found: Mapping[str, bytes], name: str) -> int | None:
    value = found.get(name)
    if value is None:
        return None
    if not (value.isdigit() and len(value) <= 18):
        raise InvalidRequest(f"header {name}: expected decimal digits (at most 18), got {_short(value)}")
    return int(value)


def _partition(found: Mapping[str, bytes], *candidates: str) -> int | None:
    for name in candidates:
        value = found.get(name)
        if value is None:
            continue
        if value.isdigit() and len(value) <= 10 and int(value) <= MAX_PARTITION:
            return int(value)
        if len(value) == 4 and value[0] < 0x80:  # Spring Kafka: a big-endian int, never negative
            return int.from_bytes(value)
        raise InvalidRequest(
            f"header {name}: expected decimal digits (at most {MAX_PARTITION}) or a 4-byte big-endian integer"
        )
    return None


def _partition_or_none(found: Mapping[str, bytes], *candidates: str) -> int | None:
    try:
        return _partition(found, *candidates)
    except InvalidRequest:
        return None


def _deadline_s(found: Mapping[str, bytes]) -> float | None:
    milliseconds = _whole_number(found, names.DEADLINE_MS)
    return None if milliseconds is None else milliseconds / 1000


def _checked(value: bytes | None) -> bytes:
    """The value, without the mark that some editors put before UTF-8."""
    if value is None:
        raise InvalidRequest("the record has no value (a tombstone); send text, an image or JSON")
    value = value.removeprefix(_BOM)
    if not value:
        raise InvalidRequest("the record's value is empty; send text, an image or JSON")
    return value


def _decode_text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise DecodeError(
            f"value: not UTF-8 text (byte {error.start}); send UTF-8, or name its content-type: "
            f"{', '.join(CONTENT_TYPES)}"
        ) from None


def _media_type(content_type: str) -> str:
    kind, _, rest = content_type.partition(";")
    kind = kind.strip().lower()
    if kind == "image/jpg":
        kind = "image/jpeg"
    if kind not in CONTENT_TYPES:
        raise Unsupported(f"content-type {_short(kind)} is not supported; allowed: {', '.join(CONTENT_TYPES)}")
    if kind in IMAGES:  # `file --mime` says charset=binary of them
        return kind
    for parameter in rest.split(";"):
        name, _, charset = parameter.partition("=")
        if name.strip().lower() == "charset" and charset.strip(' "').lower() not in ("utf-8", "utf8", "us-ascii"):
            raise Unsupported(f"content-type charset {_short(charset)} is not supported; allowed: utf-8")
    return kind


def sniff(value: bytes) -> str:
    """Guess the media type of a value sent without `content-type`, as the console producer and kcat do."""
    if value.startswith(b"{"):  # by far the most
        return JSON
    if value.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if value.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if value.startswith(b"RIFF") and value[8:12] == b"WEBP":
        return "image/webp"
    if value.startswith(b"BM") and int.from_bytes(value[2:6], "little") == len(value):
        return "image/bmp"
    if value.lstrip()[:1] == b"{":
        return JSON
    return TEXT


def _decode_object(value: bytes, *, hint: bool) -> dict[str, Any]:
    try:
        body = _loads(value)
    except orjson.JSONDecodeError as error:
        raise _not_json(error, hint=hint) from None
    if not isinstance(body, dict):
        raise InvalidRequest(f"body: expected a JSON object, got {_kind(body)}")
    return body


def _not_json(error: orjson.JSONDecodeError, *, hint: bool) -> DecodeError:
    advice = f"; if this is text that starts with {{, send the header content-type: {TEXT}" if hint else ""
    return DecodeError(f"value: not valid JSON ({error}){advice}")


def _read_object(
    body: dict[str, Any], source: Source, envelope: Envelope | None, *, named: bool
) -> tuple[Envelope, Content | RequestError]:
    """The content, and the envelope with what the body adds to it.

    Args:
        envelope: as far as headers and key tell it; None where there are no headers.
        named: a header names the request.
    """
    inputs = body.get("inputs")
    form = _V2 if isinstance(inputs, list) and inputs and all(map(_is_tensor, inputs)) else _PLAIN
    id_, model, rest = (None, None, _BARE) if envelope is None else (envelope.id, envelope.model, envelope[3:])
    content: Content | RequestError
    try:
        told = _body_text(body, "id")
        if told is not None:
            if not _is_usable(told):
                raise InvalidRequest(f"body id: expected 1 to {MAX_ID_BYTES} bytes of printable UTF-8")
            if not named:
                id_ = told  # first: whatever else is wrong is answered under this id
        model = model or _body_text(body, "model")
        content = Content(_rows(body, form), _parameters(body, form))
    except RequestError as error:
        content = _bare(error)
    return _make(Envelope, (id_ or _default_id(source), form, model, *rest)), content


def _read_usual(body: dict[str, Any]) -> tuple[Envelope, Content] | None:
    """What `_read_object` gives for `{"id": …, "inputs": […]}` with nothing to unwrap or refuse; None for the others.

    Most requests are of this kind, and are read in a third of the time.
    """
    if len(body) == 2:
        told, inputs = body.get("id"), body.get("inputs")
        usable = type(told) is str and told.isprintable() and 0 < len(told) <= _FEW
        if usable and type(inputs) is list and inputs and dict not in map(type, inputs):
            return _make(Envelope, (told, *_REST_OF_PLAIN)), _make(Content, (inputs, {}))
    return None


def _bare(error: RequestError) -> RequestError:
    """The error as a value. Its traceback leads to frames that hold it, and the body: a cycle."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _body_text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"body {name}: expected a string, got {_kind(value)}")
    return value


def _parameters(body: Mapping[str, Any], form: Form) -> Mapping[str, Any]:
    """Those for the model: clients of V2 send the protocol's own beside them, unasked."""
    parameters = body.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InvalidRequest(f"body parameters: expected an object, got {_kind(parameters)}")
    if form is _V2:
        return {name: value for name, value in parameters.items() if name not in _OF_V2}
    return parameters


def _rows(body: Mapping[str, Any], form: Form) -> Sequence[Any]:
    if ("inputs" in body) + ("text" in body) + ("image" in body) != 1:
        given = [name for name in ("inputs", "text", "image") if name in body]
        raise InvalidRequest(
            f"body: expected exactly one of inputs, text or image, got {' and '.join(given) or 'none of them'}"
        )
    if "text" in body:
        return (_text_row(body["text"], "body text"),)
    if "image" in body:
        return (_decode_base64(body["image"], "body image"),)
    inputs = body["inputs"]
    if isinstance(inputs, str):
        return (inputs,)
    if not isinstance(inputs, list) or not inputs:
        got = "an empty list" if inputs == [] else _kind(inputs)
        raise InvalidRequest(f"body inputs: expected a list of at least one row, got {got}")
    if form is _V2:
        return _tensor_rows(inputs)
    if dict not in map(type, inputs):
        return inputs
    return [read_row(value, f"body inputs[{position}]") for position, value in enumerate(inputs)]


def read_row(value: Any, where: str) -> Any:
    """Unwrap `{"text": ...}` and `{"image": base64}`; any other value is the model's own affair.

    Args:
        where: what an error's message begins with.
    Raises:
        InvalidRequest: the text is no string, or the image no base64.
    """
    if not isinstance(value, dict) or len(value) != 1:
        return value
    if "text" in value:
        return _text_row(value["text"], f"{where}: text")
    if "image" in value:
        return _decode_base64(value["image"], f"{where}: image")
    return value


def _text_row(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(f"{where}: expected a string, got {_kind(value)}")
    return value


def _decode_base64(value: Any, where: str) -> bytes:
    if not isinstance(value, str):
        raise InvalidRequest(f"{where}: expected a base64 string, got {_kind(value)}")
    try:
        raw = base64.b64decode(value, validate=True)
        if -(-len(raw) // 3) * 4 != len(value):  # Python lets more padding than needed pass
            raise ValueError
    except ValueError:
        raise DecodeError(f"{where}: not valid base64 (padded, without line breaks)") from None
    return raw


def _is_tensor(value: Any) -> bool:
    return isinstance(value, dict) and {"name", "shape", "datatype", "data"} <= value.keys()


def _tensor_rows(tensors: list[dict[str, Any]]) -> Sequence[Any]:
    """Rows of an Open Inference Protocol V2 body: the first dimension of every tensor counts rows.

    One tensor gives its own elements; several give one object per row, by tensor name.
    """
    columns = {}
    for position, tensor in enumerate(tensors):
        where = f"inputs[{position}]"
        name = tensor["name"]
        if not isinstance(name, str) or name in columns:
            raise InvalidRequest(f"body {where}: name: expected a string that no other input has")
        columns[name] = _tensor(tensor, where)
    counts = [len(column) for column in columns.values()]
    if len(set(counts)) != 1:
        raise InvalidRequest(f"body inputs: expected the same first dimension in all inputs, got {_short(counts)}")
    if len(columns) == 1:
        return next(iter(columns.values()))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _tensor(tensor: Mapping[str, Any], where: str) -> list[Any]:
    shape, datatype, data = tensor["shape"], tensor["datatype"], tensor["data"]
    if not (isinstance(shape, list) and shape and all(type(size) is int and size > 0 for size in shape)):
        raise InvalidRequest(f"body {where}: shape: expected a list of positive integers, got {_short(shape)}")
    if len(shape) > MAX_DIMENSIONS:
        raise InvalidRequest(f"body {where}: shape: expected at most {MAX_DIMENSIONS} dimensions, got {len(shape)}")
    if not isinstance(datatype, str) or datatype not in V2_DATATYPES:
        raise Unsupported(f"body {where}: datatype {_short(datatype)} is not one of {', '.join(sorted(V2_DATATYPES))}")
    if not isinstance(data, list):
        raise InvalidRequest(f"body {where}: data: expected a list, got {_kind(data)}")
    flat = _flatten(data, shape)
    if len(flat) != prod(shape):
        raise InvalidRequest(
            f"body {where}: data: expected {_short(prod(shape))} elements, flat or nested, for shape {_short(shape)}, "
            f"got {len(flat)}"
        )
    _check_elements(flat, datatype, where)
    if datatype == "BYTES" and _is_base64(tensor):
        flat = [_decode_base64(value, f"body {where}: data[{index}]") for index, value in enumerate(flat)]
    while len(shape) > 1 and (datatype != "BYTES" or prod(shape[1:]) > 1):  # [n, 1] strings are n strings
        size = shape[-1]
        flat = [flat[start : start + size] for start in range(0, len(flat), size)]
        shape = shape[:-1]
    return flat


def _is_base64(tensor: Mapping[str, Any]) -> bool:
    parameters = tensor.get("parameters")
    return isinstance(parameters, dict) and parameters.get("content_type") in ("base64", "pillow_image")


def _flatten(data: list[Any], shape: list[int]) -> list[Any]:
    """V2 lets `data` be flat or nested like `shape`; nested otherwise it comes back as it is."""
    flat = data
    for size in shape[1:]:
        if not all(isinstance(item, list) and len(item) == size for item in flat):
            return data
        flat = list(itertools.chain.from_iterable(flat))
    return flat


def _check_elements(flat: list[Any], datatype: str, where: str) -> None:
    if datatype == "BYTES":
        allowed: tuple[type, ...] = (str,)
    elif datatype == "BOOL":
        allowed = (bool,)
    elif datatype.startswith("FP"):
        allowed = (int, float)
    else:
        allowed = (int,)
    for index, value in enumerate(flat):
        if type(value) not in allowed:
            got = _short(value) if type(value) is float else _kind(value)  # so comes an integer beyond 64 bits
            raise InvalidRequest(f"body {where}: data[{index}]: expected an element of {datatype}, got {got}")
    if int in allowed:
        least, most = _bounds(datatype)
        if min(flat) < least or max(flat) > most:
            index, value = next((at, each) for at, each in enumerate(flat) if not least <= each <= most)
            raise InvalidRequest(
                f"body {where}: data[{index}]: expected an element of {datatype}, {least} to {most}, got {value}"
            )


# What rounds to float32's largest: its shortest text, 3.4028235e38, is above it.
_LARGEST_FP32: Final = nextafter(2.0**128 - 2.0**103, 0.0)


@cache
def _bounds(datatype: str) -> tuple[float, float]:
    if datatype.startswith("FP"):
        most = {"FP16": 65504.0, "FP32": _LARGEST_FP32}.get(datatype, inf)
        return -most, most
    bits = int(datatype.partition("INT")[2])
    return (0, 2**bits - 1) if datatype.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _short(value: object) -> str:
    """A client's value in a message: never long, however long or deep the value is."""
    return reprlib.repr(value)[:80]


def _kind(value: object) -> str:
    known = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return known.get(type(value), "a number")
