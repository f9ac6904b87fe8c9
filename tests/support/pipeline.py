"""Requests in and replies out, with plain Kafka clients: what a user without our client sees."""

import itertools
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from forebay_schemas import Failure, Result, read_reply
from forebay_schemas.headers import SOURCE_OFFSET, SOURCE_PARTITION, last_values
from support.broker import Topics

WITHIN_S: Final = 90.0
QUIET: Final[Mapping[str, Any]] = MappingProxyType({"log_level": 0})  # a broker away is told by the test, not by us


@dataclass
class Pipeline:
    """Fresh topics of one test, and the settings that make a worker serve them."""

    bootstrap_servers: str
    topics: Topics
    partitions: int = 4
    requests: str = ""
    replies: str = ""
    dead_letters: str = ""
    group: str = ""
    worker_bootstrap: str = ""  # where it differs from ours: behind a proxy
    _turns: Iterator[int] = field(default_factory=itertools.count, repr=False)
    _producer: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.requests = self.topics.create("requests", partitions=self.partitions)
        self.replies = self.topics.create("replies", partitions=2)
        self.dead_letters = self.topics.create("dead", partitions=1)
        self.group = self.topics.group()
        self.connect()

    def connect(self) -> None:
        """Get a producer of its own, for a further thread on a copy of this object."""
        # Idempotent, so that what is sent twice was sent twice by the test.
        settings = {"bootstrap.servers": self.bootstrap_servers, "linger.ms": 5, "enable.idempotence": True}
        self._producer = Producer({**QUIET, **settings})

    def settings(self, **parts: Any) -> dict[str, Any]:
        """A worker's settings; `parts` over them, merged by the worker's process.

        Batches have 32 rows at most, unless `batching` says otherwise: a profile would add passes to the journal.
        """
        batching = parts.pop("batching", {})
        if not {"max_batch_size", "batch_size"} & batching.keys():
            batching = {"max_batch_size": 32, **batching}
        servers = self.worker_bootstrap or self.bootstrap_servers
        kafka = {"bootstrap.servers": servers, "group.id": self.group, **parts.pop("kafka", {})}
        topics = {"requests": [self.requests], "replies": [self.replies], "dead_letters": self.dead_letters}
        return {"kafka": kafka, "topics": {**topics, **parts.pop("topics", {})}, "batching": batching, **parts}

    def send(
        self,
        value: bytes | str | None,
        *,
        id: str | None = None,  # noqa: A002 - the contract's word
        key: bytes | None = None,
        headers: Mapping[str, bytes | str] | None = None,
        partition: int = -1,
        timestamp_ms: int = 0,
    ) -> None:
        """Queue one request, written now unless it says when; `flush` waits for the broker.

        Without key and partition they go round: the client's own choice sticks to one partition for a while, and a
        burst would be all on it.
        """
        if partition < 0 and key is None:
            partition = next(self._turns) % self.partitions
        named = dict(headers or {})
        if id is not None:
            named["request-id"] = id
        while True:
            try:
                self._producer.produce(
                    self.requests,
                    value=value,
                    key=key,
                    headers=list(named.items()),
                    partition=partition,
                    timestamp=timestamp_ms,
                )
            except BufferError:
                self._producer.poll(0.05)
            else:
                return

    def send_all(self, values: Iterable[tuple[str, str]], partition: int = -1) -> None:
        """Queue (id, value) pairs and wait until the broker has them."""
        for id_, value in values:
            self.send(value, id=id_, partition=partition)
        self.flush()

    def flush(self) -> None:
        assert self._producer.flush(30) == 0, "the broker did not take the requests"

    def reader(self, topic: str | None = None) -> "Reader":
        return Reader(self.bootstrap_servers, topic or self.replies)

    def committed(self) -> dict[int, int]:
        """Offsets that the group has committed, by partition of the request topic."""
        return committed_offsets(self.bootstrap_servers, self.group, self.requests, self.partitions)

    def commit(self, partition: int, offset: int, metadata: str) -> None:
        """Commit in the group's name, while it has no members."""
        committer = Consumer(
            {**QUIET, "bootstrap.servers": self.bootstrap_servers, "group.id": self.group, "enable.auto.commit": False}
        )
        try:
            wanted = TopicPartition(self.requests, partition, offset, metadata)
            (done,) = committer.commit(offsets=[wanted], asynchronous=False)
            assert done.error is None
        finally:
            committer.close()

    def ends(self) -> dict[int, int]:
        """The end offsets of the request topic."""
        return end_offsets(self.bootstrap_servers, self.requests, self.partitions)

    def members(self) -> int:
        """How many members the broker counts in the group."""
        admin: Any = AdminClient({**QUIET, "bootstrap.servers": self.bootstrap_servers})
        (described,) = admin.describe_consumer_groups([self.group], request_timeout=30).values()
        return len(described.result().members)


def end_offsets(bootstrap_servers: str, topic: str, partitions: int) -> dict[int, int]:
    asker = Consumer({**QUIET, "bootstrap.servers": bootstrap_servers, "group.id": "unused"})
    try:
        return {
            partition: asker.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)[1]
            for partition in range(partitions)
        }
    finally:
        asker.close()


def committed_offsets(
    bootstrap_servers: str, group: str, topic: str, partitions: int, within_s: float = 30
) -> dict[int, int]:
    """Asks without joining; never by the admin client, whose call for it can crash the process."""
    asker = Consumer({**QUIET, "bootstrap.servers": bootstrap_servers, "group.id": group, "enable.auto.commit": False})
    try:
        asked = [TopicPartition(topic, partition) for partition in range(partitions)]
        return {found.partition: found.offset for found in asker.committed(asked, timeout=within_s)}
    finally:
        asker.close()


class Reader:
    """Reads a topic from its beginning, and keeps all it has read. Not thread-safe."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self.messages: list[Message] = []
        self._topic = topic
        self._consumer: Any = Consumer(
            {**QUIET, "bootstrap.servers": bootstrap_servers, "group.id": "unused", "enable.auto.commit": False}
        )
        self._asker: Any = Consumer(
            {
                **QUIET,
                "bootstrap.servers": bootstrap_servers,
                "group.id": "unused",
                "isolation.level": "read_uncommitted",
            }
        )
        partitions = self._consumer.list_topics(topic, timeout=30).topics[topic].partitions
        self._partitions = [TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions]
        self._consumer.assign(self._partitions)

    def read(self, timeout_s: float = 0.2) -> int:
        """Take what has come; the number of new messages."""
        new = [message for message in self._consumer.consume(1000, timeout_s) if message.error() is None]
        self.messages += new
        return len(new)

    def read_to_end(self) -> dict[int, int]:
        """Read at least to where the topic ends now; the ends, by partition.

        What a transaction wrote that is not over yet counts: the offset may be visible before the reply is.
        """
        ends = {
            p.partition: self._asker.get_watermark_offsets(TopicPartition(self._topic, p.partition), timeout=30)[1]
            for p in self._partitions
        }
        deadline = time.monotonic() + WITHIN_S
        while any(position < ends[partition] for partition, position in self._positions().items()):
            assert time.monotonic() < deadline, f"{self._topic} not read to its end: {self._positions()} of {ends}"
            self.read(0.05)
        return ends

    def _positions(self) -> dict[int, int]:
        """Where reading goes on, by partition: past transaction markers, which are never read."""
        return {found.partition: max(0, found.offset) for found in self._consumer.position(self._partitions)}

    def wait_for(self, count: int, within_s: float = WITHIN_S) -> list[Result | Failure]:
        """Block until `count` different requests are answered; all replies so far."""
        deadline = time.monotonic() + within_s
        while len(self.ids()) < count:
            assert time.monotonic() < deadline, f"{len(self.ids())} of {count} answered on {self._topic}"
            self.read()
        return self.replies()

    def wait_for_replies(self, count: int, within_s: float = WITHIN_S) -> list[Result | Failure]:
        """Block until there are `count` replies, however many of them to one request; all replies so far."""
        deadline = time.monotonic() + within_s
        while len(self.messages) < count:
            assert time.monotonic() < deadline, f"{len(self.messages)} of {count} replies on {self._topic}"
            self.read()
        return self.replies()

    def replies(self) -> list[Result | Failure]:
        return [read_reply(message.key(), message.value(), message.headers()) for message in self.messages]

    def ids(self) -> Counter[str]:
        """How often each request id was answered."""
        return Counter((message.key() or b"").decode() for message in self.messages)

    def sources(self, below: Mapping[int, int] | None = None) -> Counter[tuple[int, int]]:
        """How often each (partition, offset) of the request topic was answered, by the replies below these offsets."""
        found: Counter[tuple[int, int]] = Counter()
        for message in self.messages:
            if below is not None and message.offset() >= below[message.partition()]:
                continue
            headers = last_values(message.headers())
            found[int(headers[SOURCE_PARTITION]), int(headers[SOURCE_OFFSET])] += 1
        return found

    def close(self) -> None:
        self._asker.close()
        self._consumer.close()
