"""From a Python value to the bytes of a request. Pure."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from forebay_schemas.request import IMAGES, JSON, TEXT, sniff

Value = str | bytes | Mapping[str, Any] | Sequence[Any]
"""A text, an encoded image, a whole JSON body, or several rows."""


def encode(value: Value, parameters: Mapping[str, Any] | None = None) -> tuple[bytes, str]:
    """The bytes of a request and their content type.

    A text or image without parameters travels as it is; a mapping is a JSON body as it stands; anything else becomes
    one, with images as base64.

    Raises:
        TypeError: the value, or something in it, cannot be sent; or bytes are no known image.
    """
    if isinstance(value, Mapping):
        return orjson.dumps({**value, "parameters": parameters} if parameters else value), JSON
    if isinstance(value, str) and not parameters:
        return value.encode(), TEXT
    if isinstance(value, bytes) and not parameters:
        return value, _image_type(value)
    rows = [value] if isinstance(value, str | bytes) else list(value)
    body: dict[str, Any] = {"inputs": [_row(row) for row in rows]}
    if parameters:
        body["parameters"] = parameters
    return orjson.dumps(body), JSON


def _image_type(value: bytes) -> str:
    kind = sniff(value)
    if kind not in IMAGES:
        raise TypeError(f"bytes must be an encoded image ({', '.join(IMAGES)}); send text as str")
    return kind


def _row(row: Any) -> Any:
    if isinstance(row, bytes):
        _image_type(row)
        return {"image": base64.b64encode(row).decode()}
    return row
