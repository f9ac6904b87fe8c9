"""What can be wrong with one request, and the closed list of codes that a client may see.

RequestError            one request's fault; its neighbours are untouched
  InvalidRequest        invalid_request   the record, its headers or its body break the contract
    DecodeError         invalid_request   the bytes are not what they claim to be (JSON, UTF-8, base64, an image)
  Unsupported           unsupported       well-formed, but not something this worker serves
  TooLarge              too_large         more bytes, rows, tokens or pixels than allowed
  Expired               expired           its deadline passed before it was run
  Rejected              rejected          too many were waiting; asking again later is the client's choice
"""

from enum import StrEnum
from typing import ClassVar


class Code(StrEnum):
    """Every `code` that an error reply can carry. Closed: clients may switch on it."""

    INVALID_REQUEST = "invalid_request"
    UNSUPPORTED = "unsupported"
    TOO_LARGE = "too_large"
    EXPIRED = "expired"
    REJECTED = "rejected"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    MODEL_ERROR = "model_error"
    POISON = "poison"
    INTERNAL = "internal"


class RequestError(Exception):
    """This request cannot be served; the message, for the client, names what, where and what is allowed."""

    code: ClassVar[Code] = Code.INTERNAL

    @property
    def message(self) -> str:
        return str(self)


class InvalidRequest(RequestError):
    """The record breaks the wire contract; send it again corrected."""

    code = Code.INVALID_REQUEST


class DecodeError(InvalidRequest):
    """The bytes are not what they claim to be."""


class Unsupported(RequestError):
    """The request is well-formed, but its content type, model or kind of input is not served here."""

    code = Code.UNSUPPORTED


class TooLarge(RequestError):
    """The request has more bytes, rows, tokens or pixels than the worker allows."""

    code = Code.TOO_LARGE


class Expired(RequestError):
    """The request's deadline had passed before its forward pass."""

    code = Code.EXPIRED


class Rejected(RequestError):
    """More requests were waiting than the worker's operator allows."""

    code = Code.REJECTED
