"""From a Python value to the bytes of a request. Pure."""

import base64
from collections.abc import Mapping, Sequence
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
    try:
        if isinstance(value, bytearray | memoryview):
            value = bytes(value)
        if content_type is not None:
            return _as_it_is(value, parameters, content_type), content_type
        if isinstance(value, str) and not parameters:
            return value.encode(), TEXT
        if isinstance(value, bytes) and not parameters:
            return value, _image_type(value)
        return orjson.dumps(_body(value, parameters)), JSON
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


def _id_of_body(value: Value, content_type: str | None) -> Any:
    if isinstance(value, str | bytes) and content_type is not None:
        if content_type.partition(";")[0].strip().lower() != JSON:
            return None
        try:
            value = orjson.loads(value)
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
    return {**body, "parameters": dict(parameters)} if parameters else body


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
