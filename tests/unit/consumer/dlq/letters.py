"""Letters as workers write them and as Kafka gives them back."""

from typing import Any

from forebay_consumer import dead_letters
from forebay_consumer.dlq.letters import Entry, Letter, read_letter
from forebay_consumer.record import Fault, Record
from forebay_schemas import Code, read_request
from support.consumer import make_record

ORIGIN = {"group": "g", "worker": "host-1", "model": "m", "model-version": "2"}


def entry_of(
    record: Record, code: Code = Code.MODEL_ERROR, *, partition: int = 0, offset: int = 0, time: int | None = 1000
) -> Entry:
    """The dead letter of a record, read from its topic."""
    envelope, _ = read_request(record)
    written = dead_letters.headers(Fault(record, envelope, code, "it failed", "forward"), ORIGIN)
    headers = tuple((name, value.encode() if isinstance(value, str) else value) for name, value in written)
    return Entry(partition, offset, time, record.key, record.value, headers)


def letter_of(record: Record, code: Code = Code.MODEL_ERROR, **place: Any) -> Letter:
    letter = read_letter(entry_of(record, code, **place))
    assert letter is not None
    return letter


def make_letter(code: Code = Code.MODEL_ERROR, **place: Any) -> Letter:
    return letter_of(make_record(41, topic="requests", partition=3), code, **place)
