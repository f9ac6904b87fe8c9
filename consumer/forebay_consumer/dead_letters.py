"""The dead letter of a failed request: the original record, byte for byte, and why it is here. Pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from forebay_consumer.record import Fault
from forebay_schemas import Code
from forebay_schemas.headers import WireHeaders

PREFIX: Final = "forebay-"

KEPT: Final = frozenset(Code) - {Code.EXPIRED, Code.REJECTED}
"""Codes whose requests are kept: the others were refused for the moment, and asking again is the client's choice."""


def headers(fault: Fault, origin: Mapping[str, str] = MappingProxyType({})) -> WireHeaders:
    """The original headers, then ours.

    Args:
        origin: who writes the letter: `group`, `worker`, `model`, `model-version`.
    """
    record = fault.record
    timestamp = "" if record.timestamp_s is None else str(round(record.timestamp_s * 1000))
    ours = {
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "timestamp": timestamp,
        "attempts": "1",
        "stage": fault.stage,
        "code": fault.code.value,
        "message": fault.message,
        **origin,
    }
    return [*(record.headers or ()), *((PREFIX + name, value) for name, value in ours.items())]
