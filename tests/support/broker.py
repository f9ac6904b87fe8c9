"""The tests' broker: a real Apache Kafka with short clocks, started once a run."""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final

from confluent_kafka import Consumer

from forebay_local.broker import Broker
from forebay_local.topics import create_topics, delete_topics

SHORT_CLOCKS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "group.min.session.timeout.ms": "500",
        "group.consumer.min.session.timeout.ms": "1000",
        "group.consumer.session.timeout.ms": "3000",
        "group.consumer.min.heartbeat.interval.ms": "200",
        "group.consumer.heartbeat.interval.ms": "500",
        "group.share.min.session.timeout.ms": "1000",
        "group.share.session.timeout.ms": "3000",
        "group.share.min.heartbeat.interval.ms": "200",
        "group.share.heartbeat.interval.ms": "500",
        "group.share.min.record.lock.duration.ms": "1000",
        "group.share.assignment.interval.ms": "100",
        # A killed broker is registered again only when its former session has ended.
        "broker.session.timeout.ms": "2000",
        "broker.heartbeat.interval.ms": "300",
    }
)


@contextmanager
def running_broker(*, data: Path | None = None, proxy_port: int | None = None) -> Iterator[Broker]:
    """A broker that has served a group already: the first one waits while `__consumer_offsets` is made."""
    with Broker(settings=SHORT_CLOCKS, data=data, proxy_port=proxy_port) as broker:
        warm_up(broker.bootstrap_servers)
        yield broker


def warm_up(bootstrap_servers: str) -> None:
    create_topics(bootstrap_servers, {"warm-up": 1})
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "warm-up"})
    assigned: list[object] = []
    consumer.subscribe(["warm-up"], on_assign=lambda _, partitions: assigned.extend(partitions))
    while not assigned:
        consumer.poll(0.1)
    consumer.close()


class Topics:
    """Fresh topics and group names; deletes the topics at the end."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._made: list[str] = []

    def create(self, name: str = "topic", *, partitions: int = 4, config: Mapping[str, str] | None = None) -> str:
        topic = f"{name}-{uuid.uuid4().hex[:12]}"
        create_topics(self._bootstrap_servers, {topic: partitions}, config)
        self._made.append(topic)
        return topic

    def group(self) -> str:
        return f"group-{uuid.uuid4().hex[:12]}"

    def delete(self) -> None:
        if self._made:
            delete_topics(self._bootstrap_servers, self._made)
