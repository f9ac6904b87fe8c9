"""From the client's message to our record."""

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Message

from forebay_consumer.record import Claim, Record


def read_record(message: Message, claim: Claim, now: float, now_wall: float, waited: bool) -> Record:
    """Copy a message without an error.

    Args:
        now, now_wall: monotonic and Unix time of its poll.
        waited: it was not alone in its topic, so its linger has begun at its own timestamp.
    """
    fault = None
    try:
        headers = message.headers()
    except SystemError:  # a header name that is not UTF-8 cannot be represented by the client
        headers, fault = None, "headers: a header name is not UTF-8"
    key, value = message.key(), message.value()
    kind, milliseconds = message.timestamp()
    timestamp_s = milliseconds / 1000 if milliseconds > 0 else None
    queue_s = None if timestamp_s is None else max(0.0, now_wall - timestamp_s)  # 0: the writer's clock is ahead
    since_s = now - queue_s if waited and queue_s is not None else now
    size = len(key or b"") + len(value or b"")
    if headers:
        size += sum(len(name) + len(content or b"") for name, content in headers)
    record = Record(claim, message.offset(), key, value, headers, timestamp_s, queue_s, since_s, size, fault)
    if kind == TIMESTAMP_LOG_APPEND_TIME:
        record.timestamp_type = "LogAppendTime"
    return record
