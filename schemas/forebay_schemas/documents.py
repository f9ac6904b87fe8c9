"""The contract as documents for other languages and tools: JSON Schemas and an AsyncAPI description."""

from functools import cache
from importlib.resources import files
from typing import Any

import orjson


def request_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a request's JSON body; a fresh copy."""
    return _schema("request")


def reply_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a reply's body; a fresh copy."""
    return _schema("reply")


def asyncapi() -> str:
    """The AsyncAPI 3.0 document as YAML text; it refers to the schemas as `v1/*.schema.json`, beside it."""
    return _text("asyncapi.yaml")


def _schema(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = orjson.loads(_text(f"v1/{name}.schema.json"))
    return schema


@cache
def _text(path: str) -> str:
    return files("forebay_schemas").joinpath(*path.split("/")).read_text(encoding="utf-8")
