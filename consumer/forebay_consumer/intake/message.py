"""From the client's messages to our records."""

from collections.abc import Iterable

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Message

from forebay_consumer.record import Claim, Record
from forebay_schemas.headers import of_message


def read_records(messages: Iterable[Message], claim: Claim, now: float, now_wall: float, waited: bool) -> list[Record]:
    """Copy messages of one assignment, none of which is an error.

    Args:
        now, now_wall: monotonic and Unix time of their poll.
        waited: they were not alone in their topic, so their linger has begun at their own timestamps.
    """
    records = []
    stamp: tuple[int, int] | None = None
    timestamp_s: float | None = None
    queue_s: float | None = None
    since_s = now
    for message in messages:
        fault = None
        try:
            headers = of_message(message)
        except SystemError:
            headers, fault = None, "headers: a header name is not UTF-8"
        key, value = message.key(), message.value()
        if stamp != (stamp := message.timestamp()):  # messages that were written together mostly share it
            milliseconds = stamp[1]
            timestamp_s = milliseconds / 1000 if milliseconds > 0 else None
            queue_s = None if timestamp_s is None else max(0.0, now_wall - timestamp_s)  # 0: the writer is ahead
            since_s = now - queue_s if waited and queue_s is not None else now
        size = (len(key) if key else 0) + (len(value) if value else 0)
        if headers:
            size += sum([len(name) + len(content or b"") for name, content in headers])
        record = Record(claim, message.offset(), key, value, headers, timestamp_s, queue_s, since_s, size, fault)
        if stamp[0] == TIMESTAMP_LOG_APPEND_TIME:
            record.timestamp_type = "LogAppendTime"
        records.append(record)
    return records
