"""The dead-letter topic and the group that notes what was put back. Reads without joining any group."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Final, NamedTuple, Self

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource

from forebay_consumer.clock import Clock, monotonic
from forebay_consumer.dlq.bounds import At
from forebay_consumer.dlq.letters import Entry
from forebay_consumer.dlq.progress import Progress
from forebay_consumer.errors import FatalError
from forebay_consumer.kafka_settings import consumer_settings, make_client, producer_settings
from forebay_schemas.headers import of_message

BROKER_TIMEOUT_S: Final = 10.0
SILENCE_S: Final = 30.0  # a broker that says neither "here" nor "the end" for so long is not coming back
POLL_S: Final = 0.5
CHUNK: Final = 100

_SETTINGS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        # What was deleted under the reader's feet is gone; it goes on with what is left.
        "auto.offset.reset": "earliest",
        "queued.max.messages.kbytes": 16_384,
        "client.id": "forebay-dlq",
    }
)


class Span(NamedTuple):
    """Offsets of a partition: from `low` to before `end`."""

    low: int
    end: int


class DeadLetterTopic:
    """A context manager; not thread-safe. All methods block, and raise FatalError when no broker answers in time.

    Entering it raises BadConfig where the client does not take a setting.

    Args:
        group: whose commits say what has been put back; the consumer never becomes a member of it.
    """

    def __init__(self, kafka: Mapping[str, Any], topic: str, group: str, clock: Clock = monotonic) -> None:
        own = {key: value for key, value in consumer_settings(kafka).items() if not key.startswith("group.")}
        self._settings = {**own, **_SETTINGS, "group.id": group}
        self._common = {key: value for key, value in own.items() if key in producer_settings(kafka)}
        self._servers = kafka["bootstrap.servers"]
        self.name = topic
        self.group = group
        self._clock = clock
        self._seen: dict[int, tuple[int, str]] = {}  # the commit of each partition, as last read or written
        self._consumer: Any = None

    def __enter__(self) -> Self:
        self._consumer = make_client(Consumer, self._settings)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._consumer.close()

    def partitions(self, topic: str | None = None) -> list[int]:
        """Of this topic, or of another.

        Raises:
            FatalError: there is no such topic, or it may not be seen.
        """
        name = topic or self.name
        try:
            found = self._consumer.list_topics(name, timeout=BROKER_TIMEOUT_S).topics[name]
        except KafkaException as error:
            raise self._no_answer(error) from error
        if found.error is not None:
            raise FatalError(f"Kafka: topic {name!r}: {found.error.str()}; create it, or correct its name")
        return sorted(found.partitions)

    def span(self, partition: int) -> Span:
        """What the partition holds now."""
        try:
            low, end = self._consumer.get_watermark_offsets(self._at(partition), timeout=BROKER_TIMEOUT_S)
        except KafkaException as error:
            raise self._no_answer(error) from error
        return Span(low, end)

    def start(self, partition: int, since: At | None, low: int) -> int:
        """The first offset at or after `low` that may hold what is asked for."""
        if since is None:
            return low
        if since.offset is not None:
            return max(low, since.offset)
        asked = TopicPartition(self.name, partition, since.timestamp_ms)
        try:
            (found,) = self._consumer.offsets_for_times([asked], timeout=BROKER_TIMEOUT_S)
        except KafkaException as error:
            raise self._no_answer(error) from error
        return max(low, found.offset) if found.offset >= 0 else self.span(partition).end

    def read(self, partition: int, span: Span) -> Iterator[Entry]:
        """Every record within, in order; ends at the end of the span, whatever comes meanwhile."""
        if span.low >= span.end:
            return
        self._consumer.assign([TopicPartition(self.name, partition, span.low)])
        try:
            heard_s = self._clock()
            while True:
                messages = self._consumer.consume(CHUNK, POLL_S)
                if messages:
                    heard_s = self._clock()
                elif self._clock() - heard_s > SILENCE_S:
                    raise FatalError(f"Kafka: {self._servers}: nothing of {self.name}-{partition} in {SILENCE_S:.0f} s")
                for message in messages:
                    if (error := message.error()) is not None:
                        if error.code() == KafkaError._PARTITION_EOF:
                            return
                        raise FatalError(f"Kafka: {self.name}-{partition}: {error.str()}")
                    if message.offset() >= span.end:
                        return
                    yield _entry(message)
                    if message.offset() + 1 >= span.end:
                        return
        finally:
            self._consumer.unassign()

    def forgetful(self) -> str | None:
        """A warning where the broker may forget what was put back while the letters are still here; None also where
        this principal may not look.
        """
        admin: Any = make_client(AdminClient, self._common)
        broker = str(next(iter(self._consumer.list_topics(self.name, timeout=BROKER_TIMEOUT_S).brokers)))
        asked = ConfigResource(ConfigResource.Type.TOPIC, self.name), ConfigResource(ConfigResource.Type.BROKER, broker)
        try:
            told = admin.describe_configs(list(asked), request_timeout=BROKER_TIMEOUT_S)
            topic, group = (told[resource].result(BROKER_TIMEOUT_S) for resource in asked)
            kept_ms, noted_ms = int(topic["retention.ms"].value), int(group["offsets.retention.minutes"].value) * 60_000
        except (KafkaException, TimeoutError, KeyError, ValueError):
            return None
        if 0 <= kept_ms <= noted_ms:
            return None
        return (
            f"{self.name} keeps letters longer than the broker keeps the note of what was put back "
            f"(retention.ms={kept_ms}, offsets.retention.minutes={noted_ms // 60_000} since the last run): "
            "after that they would be put back again"
        )

    def progress(self, partition: int) -> Progress:
        """What the group's commit says of the partition."""
        offset, metadata = self._seen[partition] = self._committed(partition)
        return Progress.read(offset, metadata)

    def commit(self, partition: int, progress: Progress) -> None:
        """Write it down; the broker has it when this returns.

        Raises:
            FatalError: refused, or somebody else has written since we read.
        """
        self.check_alone(partition)
        offset, metadata = progress.passed, progress.metadata()
        try:
            (told,) = self._consumer.commit(
                offsets=[TopicPartition(self.name, partition, offset, metadata=metadata)], asynchronous=False
            )
        except KafkaException as error:
            raise FatalError(f"Kafka: group {self.group!r}: not noted: {error.args[0].str()}") from error
        if told.error is not None:
            raise FatalError(f"Kafka: group {self.group!r}: not noted: {told.error.str()}")
        self._seen[partition] = (offset, metadata)

    def check_alone(self, partition: int) -> None:
        """Make sure that nobody has written since we read.

        Raises:
            FatalError: somebody has.
        """
        if self._committed(partition) != self._seen[partition]:
            raise FatalError(
                f"group {self.group!r}: another dlq redrive is at work on {self.name}-{partition}; run one at a time"
            )

    def _committed(self, partition: int) -> tuple[int, str]:
        try:
            (found,) = self._consumer.committed([self._at(partition)], timeout=BROKER_TIMEOUT_S)
        except KafkaException as error:
            raise self._no_answer(error) from error
        if found.error is not None:
            raise FatalError(f"Kafka: group {self.group!r}: {found.error.str()}")
        return found.offset, found.metadata or ""

    def _at(self, partition: int) -> TopicPartition:
        return TopicPartition(self.name, partition)

    def _no_answer(self, error: KafkaException) -> FatalError:
        return FatalError(f"Kafka: {self._servers}: {error.args[0].str()}; is the broker running, may you read there?")


def _entry(message: Message) -> Entry:
    kind, milliseconds = message.timestamp()
    try:
        headers = of_message(message) or ()
    except SystemError:  # no worker wrote this
        headers = ()
    timestamp_ms = None if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds
    return Entry(message.partition(), message.offset(), timestamp_ms, message.key(), message.value(), tuple(headers))
