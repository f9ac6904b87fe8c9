"""Which of the user's librdkafka settings go where."""

import pytest

from forebay_consumer.kafka_settings import admin_settings, consumer_settings, producer_settings

BOTH = ["bootstrap.servers", "security.protocol", "sasl.password", "ssl.ca.location", "debug", "socket.timeout.ms"]
CONSUMER = [
    "group.id",
    "group.protocol",
    "fetch.min.bytes",
    "queued.max.messages.kbytes",
    "max.poll.interval.ms",
    "max.poll.records",
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "partition.assignment.strategy",
    "isolation.level",
    "max.partition.fetch.bytes",
    "check.crcs",
]
PRODUCER = [
    "batch.size",
    "batch.num.messages",
    "compression.type",
    "queue.buffering.max.messages",
    "message.timeout.ms",
    "retries",
    "message.send.max.retries",
    "sticky.partitioning.linger.ms",
]


@pytest.mark.parametrize(
    ("key", "for_consumer", "for_producer"),
    [
        *(pytest.param(key, True, True, id=f"{key} to both") for key in BOTH),
        *(pytest.param(key, True, False, id=f"{key} to the consumer") for key in CONSUMER),
        *(pytest.param(key, False, True, id=f"{key} to the producer") for key in PRODUCER),
    ],
)
def test_each_setting_goes_to_whom_it_concerns(key: str, for_consumer: bool, for_producer: bool) -> None:
    kafka = {key: "given"}
    assert (consumer_settings(kafka).get(key) == "given") is for_consumer
    assert (producer_settings(kafka).get(key) == "given") is for_producer
    assert (admin_settings(kafka).get(key) == "given") is (for_consumer and for_producer)


def test_a_reply_is_written_by_all_in_sync_replicas_and_waits_for_no_company() -> None:
    made = producer_settings({})
    assert (made["acks"], made["enable.idempotence"], made["linger.ms"]) == ("all", True, 50)
    assert made["partitioner"] == "murmur2_random"


@pytest.mark.parametrize(
    ("key", "value"),
    [("linger.ms", 5), ("delivery.timeout.ms", 1000), ("partitioner", "consistent"), ("client.id", "mine")],
)
def test_the_users_choice_beats_the_producers_default(key: str, value: object) -> None:
    assert producer_settings({key: value})[key] == value


def test_neither_side_changes_the_settings_or_the_defaults() -> None:
    kafka = {"bootstrap.servers": "a", "linger.ms": 9}
    producer_settings(kafka)["acks"] = "0"
    consumer_settings(kafka)["bootstrap.servers"] = "b"
    assert kafka == {"bootstrap.servers": "a", "linger.ms": 9}
    assert producer_settings({})["acks"] == "all"
