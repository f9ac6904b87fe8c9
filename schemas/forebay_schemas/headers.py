"""Names of the Kafka headers, and reading them without ever failing on what a stranger wrote.

All request headers are optional. A name given twice counts with its last value, as in Kafka's `lastHeader`.
"""

from collections.abc import Iterable, Mapping
from operator import methodcaller
from typing import Final

REQUEST_ID = "request-id"
CONTENT_TYPE = "content-type"
MODEL = "model"
MODEL_VERSION = "model-version"
REPLY_TOPIC = "reply-topic"
REPLY_PARTITION = "reply-partition"
CORRELATION_ID = "correlation-id"
DEADLINE_MS = "deadline-ms"
PRIORITY = "priority"
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
STATUS = "status"
CODE = "code"
SOURCE_TOPIC = "source-topic"
SOURCE_PARTITION = "source-partition"
SOURCE_OFFSET = "source-offset"

# Spring Kafka's ReplyingKafkaTemplate
SPRING_CORRELATION_ID = "kafka_correlationId"
SPRING_REPLY_TOPIC = "kafka_replyTopic"
SPRING_REPLY_PARTITION = "kafka_replyPartition"

RawHeaders = Iterable[tuple[str, bytes | None]]
"""Headers as the Kafka client gives them: pairs of name and value; a value may be None."""

WireHeaders = list[tuple[str, str | bytes | None]]
"""Headers as the Kafka client takes them."""

of_message: Final = methodcaller("headers")
"""The headers of a message of confluent-kafka's, or SystemError: a name is not UTF-8, which it cannot represent.

Not `message.headers()`: there the client gives a result and an error at once, and where the interpreter has specialised
the call it looks at the result only. The error then comes out of some later line [CPython 3.11 after a few calls].
"""


def last_values(headers: RawHeaders | None) -> Mapping[str, bytes]:
    """Map each header name to its last value; names whose value is None are absent."""
    if not headers:
        return {}
    return {name: value for name, value in headers if value is not None}
