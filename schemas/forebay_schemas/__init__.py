"""The wire contract of Forebay, version 1: requests, replies, headers and error codes."""

from forebay_schemas.errors import (
    Code,
    DecodeError,
    Expired,
    InvalidRequest,
    Rejected,
    RequestError,
    TooLarge,
    Unsupported,
)
from forebay_schemas.reply import Failure, Model, Result, error_body, read_reply, reply_headers, result_body
from forebay_schemas.request import Content, Envelope, Form, Source, read_envelope, read_request

__all__ = [
    "Code",
    "Content",
    "DecodeError",
    "Envelope",
    "Expired",
    "Failure",
    "Form",
    "InvalidRequest",
    "Model",
    "Rejected",
    "RequestError",
    "Result",
    "Source",
    "TooLarge",
    "Unsupported",
    "error_body",
    "read_envelope",
    "read_reply",
    "read_request",
    "reply_headers",
    "result_body",
]
