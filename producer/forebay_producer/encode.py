"""From a Python value to the bytes of a request. Pure."""

import base64
import codecs
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from forebay_producer.errors import BadRequest
from forebay_schemas.request import IMAGES, JSON, MAX_ID_BYTES, TEXT, sniff

Value = str | bytes | Mapping[str, Any] | Sequence[Any]
"""A text, an encoded image, a whole JSON body, or several rows."""

ALLOWED: Final = f"str (a text), bytes (an image: {', '.join(IMAGES)}), a mapping (a JSON body) or a sequence of rows"


def encode(
    value: Value, parameters: Mapping[str, Any] | None = None, content_type: str | None = None
) -> tuple[bytes, str]:
    """The bytes of a request and their content type.

    A text or image without parameters travels as it is, and so does whatever comes with a content type; a mapping is a
    JSON body as it stands; anything else becomes one, with images as base64.

    Raises:
        BadRequest: the value, or something in it, cannot be sent; or bytes without a content type are no known image.
    """
    if parameters is not None and not isinstance(parameters, Mapping):
        raise BadRequest(f"parameters: expected a mapping, got {_kind(parameters)}")
    if content_type is not None and not isinstance(content_type, str):
        raise BadRequest(f"content_type: expected a str, got {_kind(content_type)}")
    try:
        if isinstance(value, bytearray | memoryview):
            value = bytes(value)
        if content_type is not None:
            return _as_it_is(value, parameters, content_type), content_type
        if isinstance(value, str) and not parameters:
            return value.encode(), TEXT
        if isinstance(value, bytes) and not parameters:
            return value, _image_type(value)
        body = _body(value, parameters)
        written = orjson.dumps(body)
        if b"null" in written and (place := _not_finite(body)) is not None:
            raise BadRequest(f"value{place}: JSON has no NaN and no infinity")
        return written, JSON
    except UnicodeEncodeError as error:
        raise BadRequest(f"value: a text with half a surrogate pair at {error.start} has no UTF-8") from None
    except orjson.JSONEncodeError as error:
        raise BadRequest(f"value: {error}; send {ALLOWED}") from None


def request_id_of(value: Value, given: str | None, content_type: str | None = None) -> str | None:
    """The id that the caller chose: the one given, else that of a JSON body, written already or not, else None.

    Raises:
        BadRequest: no worker would take it.
    """
    if given is not None and not isinstance(given, str):
        raise BadRequest(f"request_id {given!r:.40}: expected a str, got {_kind(given)}")
    id_ = _id_of_body(value, content_type) if given is None else given
    if not isinstance(id_, str):  # what else a body may hold there is for the worker to judge
        return None
    if not id_.isprintable() or not 1 <= len(id_.encode(errors="replace")) <= MAX_ID_BYTES:
        raise BadRequest(f"request_id {id_[:40]!r}: allowed are 1 to {MAX_ID_BYTES} bytes of printable UTF-8")
    return id_


def checked_headers(headers: Mapping[str, str | bytes] | None) -> Mapping[str, str | bytes]:
    """The caller's headers, if they can be sent; half a surrogate pair in a value is told by the Kafka client.

    Raises:
        BadRequest: a name or value is of another kind; or of a name there is no UTF-8, which ends the Kafka client.
    """
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise BadRequest(f"headers: expected a mapping of names to str or bytes, got {_kind(headers)}")
    for name, value in headers.items():
        if not isinstance(name, str) or not name or "\0" in name or _utf8(name) is None:
            raise BadRequest(f"headers: name {name!r:.40}: expected a str of UTF-8, not empty and without a zero byte")
        if not isinstance(value, str | bytes):
            raise BadRequest(f"headers: {name!r:.40}: expected a str or bytes, got {_kind(value)}")
    return headers


def _utf8(text: str) -> bytes | None:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return None


def _not_finite(value: Any) -> str | None:
    """Where the first NaN or infinity is, as in `['inputs'][0]`, or None."""
    if isinstance(value, float):
        return None if math.isfinite(value) else ""
    inside: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        inside = value.items()
    elif isinstance(value, list | tuple):
        inside = enumerate(value)
    for key, each in inside:
        if (place := _not_finite(each)) is not None:
            return f"[{key!r:.40}]{place}"
    return None


def _id_of_body(value: Value, content_type: str | None) -> Any:
    if isinstance(value, str | bytes | bytearray | memoryview) and isinstance(content_type, str):
        if content_type.partition(";")[0].strip().lower() != JSON:
            return None
        written = value.encode(errors="replace") if isinstance(value, str) else bytes(value)
        try:
            value = orjson.loads(written.removeprefix(codecs.BOM_UTF8))
        except orjson.JSONDecodeError:  # for the worker to answer
            return None
    return value.get("id") if isinstance(value, Mapping) else None


def _as_it_is(value: Value, parameters: Mapping[str, Any] | None, content_type: str) -> bytes:
    if parameters:
        raise BadRequest("parameters: not together with content_type; put them into the JSON body")
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    raise BadRequest(f"value: with content_type {content_type!r} it must be str or bytes, not {_kind(value)}")


def _body(value: Value, parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    if isinstance(value, Mapping):
        body = dict(value)
    elif isinstance(value, str | bytes):
        body = {"inputs": [_row(value)]}
    elif isinstance(value, Sequence):
        body = {"inputs": [_row(row) for row in value]}
    else:
        raise BadRequest(f"value: {_kind(value)} cannot be sent; send {ALLOWED}")
    if not parameters:
        return body
    own = body.get("parameters")
    return {**body, "parameters": {**(own if isinstance(own, Mapping) else {}), **parameters}}


def _image_type(value: bytes) -> str:
    kind = sniff(value)
    if kind not in IMAGES:
        raise BadRequest(f"value: bytes must be an encoded image ({', '.join(IMAGES)}) or come with content_type")
    return kind


def _row(row: Any) -> Any:
    if isinstance(row, bytes):
        _image_type(row)
        return {"image": base64.b64encode(row).decode()}
    return row


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"
