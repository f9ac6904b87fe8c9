"""`forebay-consumer tune` records requests from a real topic, and leaves no trace there."""

from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from forebay_consumer.errors import FatalError
from forebay_consumer.tune.recorded import from_topics
from support.pipeline import Pipeline


def test_the_last_requests_of_a_topic_are_recorded_and_nothing_is_committed(pipeline: Pipeline) -> None:
    kafka = {"bootstrap.servers": pipeline.bootstrap_servers, "group.id": "tuned"}
    producer: Any = Producer({"bootstrap.servers": pipeline.bootstrap_servers})
    for number in range(10):
        producer.produce(pipeline.requests, str(number).encode(), partition=0)
    producer.flush(10)
    assert [raw.value for raw in from_topics(kafka, [pipeline.requests], 3)] == [b"7", b"8", b"9"]
    consumer: Any = Consumer(kafka)
    (committed,) = consumer.committed([TopicPartition(pipeline.requests, 0)], timeout=10)
    consumer.close()
    assert committed.offset < 0


def test_a_topic_that_is_not_there_is_named(pipeline: Pipeline) -> None:
    kafka = {"bootstrap.servers": pipeline.bootstrap_servers, "group.id": "tuned"}
    with pytest.raises(FatalError, match="no-such-topic"):
        from_topics(kafka, ["no-such-topic"], 3)
