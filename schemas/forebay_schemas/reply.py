"""A reply as it stands on the wire: encoding it (worker) and reading it (client).

The key is the request id; `status` is `ok` or `error`. A V2 request gets a V2 body.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from forebay_schemas import headers as names
from forebay_schemas.errors import Code
from forebay_schemas.request import JSON, Envelope, Form, Source

OK: Final = "ok"
ERROR: Final = "error"
Headers = list[tuple[str, bytes]]
"""Those of a reply, as the Kafka client takes them; it takes bytes faster than text."""
V2_JSON: Final = "application/json"  # `content_type` of a BYTES output whose elements are JSON texts

_V2: Final = Form.V2
_OPTIONS: Final = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


@dataclass(frozen=True, slots=True)
class Model:
    """Which model answered; echoed in every reply.

    Attributes:
        dtype: the precision that it computed in, where the worker says so; in results only.
    """

    name: str
    version: str = "1"
    dtype: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """A successful answer.

    Attributes:
        outputs: one entry per input row, in their order.
        timing: milliseconds by phase, and `batch_size` in rows; empty in a V2 reply without it.
        source: topic, partition and offset of the request, or None where the headers were lost.
    """

    id: str
    model: Model
    outputs: Sequence[Any]
    timing: Mapping[str, float] = field(default_factory=dict)
    source: tuple[str, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A terminal error answer. Whether asking again may help depends on the code, as the reply schema tells."""

    id: str
    code: Code
    message: str
    source: tuple[str, int, int] | None = None


class ResultWriter:
    """Writes the values of results that have all but id and outputs in common. Not thread-safe.

    Args:
        timing: as in `Result`, of all of them.
    """

    __slots__ = ("_plain", "_v2")

    def __init__(self, model: Model, timing: Mapping[str, float]) -> None:
        precision = {} if model.dtype is None else {"model_dtype": model.dtype}
        self._plain: dict[str, Any] = {
            "id": "",
            "model": model.name,
            "model_version": model.version,
            **precision,
            "outputs": (),
            "timing": orjson.Fragment(orjson.dumps(timing)),
        }
        self._v2: dict[str, Any] = {
            "id": "",
            "model_name": model.name,
            "model_version": model.version,
            "parameters": {**timing, **precision},  # the protocol has no object there
            "outputs": (),
        }

    def body(self, envelope: Envelope, outputs: Sequence[Any]) -> bytes:
        """The value of one reply.

        Raises:
            TypeError: an output is nothing that JSON can hold (numpy's, in native byte order, can; NaN becomes null).
        """
        if envelope.form is _V2:
            body, outputs = self._v2, [_output_tensor(outputs)]
        else:
            body = self._plain
        body["id"], body["outputs"] = envelope.id, outputs
        return _dumps(body)


def result_body(envelope: Envelope, model: Model, outputs: Sequence[Any], timing: Mapping[str, float]) -> bytes:
    """Encode the value of a successful reply; raises as `ResultWriter.body`.

    Args:
        timing: as in `Result`.
    """
    return ResultWriter(model, timing).body(envelope, outputs)


def error_body(envelope: Envelope, code: Code, message: str) -> bytes:
    """Encode the value of an error reply."""
    message = message.encode(errors="replace").decode()  # a lone surrogate, as in a file name, has no JSON
    if envelope.form is Form.V2:
        return orjson.dumps({"id": envelope.id, "error": f"{code}: {message}"})
    return orjson.dumps({"id": envelope.id, "error": {"code": code, "message": message}})


def reply_headers(envelope: Envelope, source: Source, model: Model, code: Code | None) -> Headers:
    """The headers of a reply; `code` is None for a result."""
    return own_headers(envelope, source.offset, shared_headers(source, model, code))


def shared_headers(source: Source, model: Model, code: Code | None) -> Headers:
    """Those of them that all replies of one model to one partition have, where they end alike."""
    wire: Headers = [
        (names.STATUS, (OK if code is None else ERROR).encode()),
        (names.MODEL, model.name.encode()),
        (names.MODEL_VERSION, model.version.encode()),
        (names.CONTENT_TYPE, JSON.encode()),
        (names.SOURCE_TOPIC, source.topic.encode()),
        (names.SOURCE_PARTITION, b"%d" % source.partition),
    ]
    if code is not None:
        wire.append((names.CODE, code.value.encode()))
    return wire


def own_headers(envelope: Envelope, offset: int, shared: Headers) -> Headers:
    """All headers of the reply to the request at that offset."""
    wire: Headers = [
        (names.REQUEST_ID, envelope.id.encode()),
        *shared,
        (names.SOURCE_OFFSET, b"%d" % offset),
        *envelope.correlation,
    ]
    if envelope.traceparent is not None:
        wire.append((names.TRACEPARENT, envelope.traceparent))
        if envelope.tracestate is not None:
            wire.append((names.TRACESTATE, envelope.tracestate))
    return wire


def _dumps(value: Any) -> bytes:
    try:
        return orjson.dumps(value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # an object whose keys are no strings, or nothing that JSON can hold
        return orjson.dumps(value, default=_plain, option=_OPTIONS)


def _plain(value: Any) -> Any:
    """What orjson leaves to us of numpy: arrays that are not contiguous."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"an output of type {type(value).__name__} has no JSON form")


def _output_tensor(outputs: Sequence[Any]) -> dict[str, Any]:
    """One V2 tensor whose first dimension counts rows; what is no number or string travels as JSON text."""
    rows = orjson.loads(_dumps(outputs))  # numpy values become plain ones
    shape, flat = [len(rows)], rows
    while flat and all(isinstance(row, list) for row in flat) and len({len(row) for row in flat}) == 1 and flat[0]:
        shape.append(len(flat[0]))
        flat = [item for row in flat for item in row]
    if flat and all(type(item) is bool for item in flat):
        return {"name": "output", "shape": shape, "datatype": "BOOL", "data": flat}
    if flat and all(type(item) is int and -(2**63) <= item < 2**63 for item in flat):
        return {"name": "output", "shape": shape, "datatype": "INT64", "data": flat}
    if flat and all(type(item) in (int, float) for item in flat) and float in map(type, flat):
        return {"name": "output", "shape": shape, "datatype": "FP64", "data": flat}
    if flat and all(isinstance(item, str) for item in flat):
        return {"name": "output", "shape": shape, "datatype": "BYTES", "data": flat}
    return {
        "name": "output",
        "shape": [len(rows)],
        "datatype": "BYTES",
        "parameters": {"content_type": V2_JSON},
        "data": [orjson.dumps(row).decode() for row in rows],
    }


def read_reply(key: bytes | None, value: bytes | None, headers: names.RawHeaders | None) -> Result | Failure:
    """Read one record of a reply topic, plain or V2.

    Raises:
        ValueError: the record is no reply of this contract; the message says what is missing.
    """
    found = names.last_values(headers)
    try:
        body = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        raise ValueError("not a reply: the value is not JSON") from None
    if not isinstance(body, dict):
        raise ValueError("not a reply: the value is not a JSON object")
    id_ = body.get("id") or (found.get(names.REQUEST_ID) or key or b"").decode(errors="replace")
    if not isinstance(id_, str) or not id_:
        raise ValueError("not a reply: it has no id")
    source = _read_source(found)
    if "error" in body:
        code, message = _read_error(body["error"], found)
        return Failure(id_, code, message, source)
    if not isinstance(body.get("outputs"), list):
        raise ValueError("not a reply: neither outputs nor error in the body")
    version = _word(body.get("model_version", ""))
    if "model_name" in body:
        try:
            outputs = [value for tensor in body["outputs"] for value in _tensor_values(tensor)]
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ValueError("not a reply: an output is no tensor") from None
        parameters = _object(body.get("parameters"))
        model = Model(_word(body["model_name"]), version, _text(parameters.get("model_dtype")))
        timing = {name: value for name, value in parameters.items() if type(value) in (int, float)}
        return Result(id_, model, outputs, timing, source)
    model = Model(_word(body.get("model", "")), version, _text(body.get("model_dtype")))
    return Result(id_, model, body["outputs"], _object(body.get("timing")), source)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _word(value: Any) -> str:
    """What a stranger wrote in the place of a text; nothing for what nests, which may be too deep to be written."""
    return str(value) if value is None or isinstance(value, str | int | float) else ""


def _read_error(error: Any, found: Mapping[str, bytes]) -> tuple[Code, str]:
    if isinstance(error, dict):
        raw, message = _word(error.get("code", "")), _word(error.get("message", ""))
    else:
        raw, _, message = _word(error).partition(": ")
    raw = found.get(names.CODE, raw.encode()).decode(errors="replace")
    try:
        return Code(raw), message
    except ValueError:  # a newer worker's code
        return Code.INTERNAL, f"{raw}: {message}"


def _read_source(found: Mapping[str, bytes]) -> tuple[str, int, int] | None:
    try:
        return (
            found[names.SOURCE_TOPIC].decode(),
            int(found[names.SOURCE_PARTITION]),
            int(found[names.SOURCE_OFFSET]),
        )
    except (KeyError, ValueError):
        return None


def _tensor_values(tensor: Mapping[str, Any]) -> list[Any]:
    values: list[Any] = tensor["data"]
    if (tensor.get("parameters") or {}).get("content_type") == V2_JSON:
        return [orjson.loads(value) for value in values]
    for size in reversed(tensor["shape"][1:]):
        values = [values[start : start + size] for start in range(0, len(values), size)]
    return values
