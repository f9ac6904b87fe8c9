"""Which of the user's librdkafka settings go to the consumer and which to the producer; unlisted ones go to all.

Both raise BadConfig where a secret's file or the function for OAuth tokens cannot be had.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

from forebay_consumer.credentials import CALLBACK, with_credentials
from forebay_consumer.errors import BadConfig, KafkaFailure
from forebay_consumer.logs import client_logger

_CONSUMER_ONLY: Final = (
    "group.",
    "fetch.",
    "queued.",
    "check.crcs",
    "coordinator.query.interval.ms",
    "heartbeat.interval.ms",
    "isolation.level",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "max.poll.records",
    "partition.assignment.strategy",
    "session.timeout.ms",
)
_PRODUCER_ONLY: Final = (
    "batch.",
    "compression.",
    "queue.buffering.",
    "delivery.timeout.ms",
    "linger.ms",
    "message.send.max.retries",
    "message.timeout.ms",
    "partitioner",
    "request.timeout.ms",
    "retries",
    "sticky.partitioning.linger.ms",
    "topic.metadata.propagation.max.ms",
    "transaction",
)
PRODUCER: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "enable.idempotence": True,
        "acks": "all",
        # A bound that hardly matters: replies are flushed when no more follow and nothing is on the way. Messages that
        # have lingered while requests are on the way make the client's thread spin: 14 us a message, not 2 [measured].
        "linger.ms": 50,
        "delivery.timeout.ms": 60_000,
        "topic.metadata.propagation.max.ms": 2_000,
        # Replies to one key stay on one partition also for clients written in Java.
        "partitioner": "murmur2_random",
        "client.id": "forebay-consumer",
    }
)
# Beside those: what is late is bounded by the transaction's own timeout.
TRANSACTIONAL: Final[Mapping[str, Any]] = MappingProxyType(
    {
        # A worker that died or hangs holds up readers of committed replies, and its partitions' next owner, so long.
        "transaction.timeout.ms": 15_000,
        # With the 100 ms of the client, a transaction waits so long for the end of the one before [measured].
        "retry.backoff.ms": 2,
        # Who succeeded is known by the commit.
        "delivery.report.only.error": True,
    }
)


def consumer_settings(kafka: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in with_credentials(kafka).items() if not key.startswith(_PRODUCER_ONLY)}


def producer_settings(kafka: Mapping[str, Any]) -> dict[str, Any]:
    given = with_credentials(kafka)
    return {**PRODUCER, **{key: value for key, value in given.items() if not key.startswith(_CONSUMER_ONLY)}}


def transactional_settings(kafka: Mapping[str, Any], transactional_id: str) -> dict[str, Any]:
    settings = {**TRANSACTIONAL, **producer_settings(kafka), "transactional.id": transactional_id}
    if "delivery.timeout.ms" not in kafka and "message.timeout.ms" not in kafka:
        del settings["delivery.timeout.ms"]  # the client then takes the transaction's
    return settings


def admin_settings(kafka: Mapping[str, Any]) -> dict[str, Any]:
    own = _CONSUMER_ONLY + _PRODUCER_ONLY
    return {key: value for key, value in with_credentials(kafka).items() if not key.startswith(own)}


def make_client(kind: Any, settings: Mapping[str, Any]) -> Any:
    """A Consumer or Producer of those settings. With `oauth_cb` it blocks until there is a token, 10 s at most.

    Raises:
        BadConfig: librdkafka does not take a setting.
        KafkaFailure: the user's function gave no token.
    """
    try:
        return kind(dict(settings), logger=client_logger())
    except KafkaException as error:
        if error.args[0].code() == KafkaError.SASL_AUTHENTICATION_FAILED:
            raise KafkaFailure(f"Kafka: {error.args[0].str()}; look into the function of kafka.{CALLBACK}") from error
        raise BadConfig(f"kafka: {error.args[0].str()}") from error
    except (TypeError, ValueError) as error:
        raise BadConfig(f"kafka: {error}") from error
