"""Intake by a share group (KIP-932): many workers on one partition, and no offsets.

A share consumer gives records under a lock, may be polled again only when all of them are acknowledged, and lives on
one thread. So there are several, each on a thread of its own that goes round: poll, hand over, wait until every record
has ended, acknowledge, commit. While one waits for its confirmations and its commit, the model runs what another has
brought. A thread each, not one for all in turn: poll and commit block, and whoever came after would wait for both.

A poll brings whole producer batches, however large: `max.poll.records` is no limit.
"""

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from types import MappingProxyType
from typing import Any, Final

import orjson
import structlog
from confluent_kafka import AcknowledgeType, KafkaError, KafkaException, ShareConsumer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from forebay_consumer.clock import Clock, monotonic, wall
from forebay_consumer.deliveries import LockKeeper, answered_from, runs_alone
from forebay_consumer.errors import FatalError
from forebay_consumer.flow import Room
from forebay_consumer.intake.base import POLL_S, Snapshot
from forebay_consumer.intake.message import read_records
from forebay_consumer.intake.share_group import CLOSES_AT, Terms, Wishes, settle
from forebay_consumer.kafka_settings import admin_settings, consumer_settings, make_client
from forebay_consumer.locks import End, Ended, Hold, Locks
from forebay_consumer.metrics import Metrics
from forebay_consumer.progress import Commit
from forebay_consumer.reachable import Reachable
from forebay_consumer.record import Claim, Record

LISTEN_S: Final = 0.2  # most time of one poll; a stop waits for it
COMMIT_WITHIN_S: Final = 10.0
CLOSE_WITHIN_S: Final = 5.0
AGAIN_AFTER_S: Final = 0.5
LAG_EVERY_S: Final = 1.0
MAX_FETCH_BYTES: Final = 2_147_483_135  # the client takes no more
LARGEST_RECORD: Final = 1_000_000  # librdkafka's message.max.bytes, which fetch.max.bytes must not be below

DEFAULTS: Final[Mapping[str, Any]] = MappingProxyType(
    {"client.id": "forebay-consumer", "topic.metadata.refresh.interval.ms": 30_000, "fetch.wait.max.ms": 100}
)
_OURS: Final[Mapping[str, Any]] = MappingProxyType(
    {"share.acknowledgement.mode": "explicit", "statistics.interval.ms": 500}  # statistics alone tell of the assignment
)
_ACKNOWLEDGE: Final = {End.ANSWERED: AcknowledgeType.ACCEPT, End.RELEASED: AcknowledgeType.RELEASE}
_OTHER_KIND: Final = "{group} is a group of another kind; give the queue a kafka.group.id of its own"
_REMEDY: Final[Mapping[int, str]] = MappingProxyType(
    {
        KafkaError.GROUP_ID_NOT_FOUND: _OTHER_KIND,
        KafkaError.INCONSISTENT_GROUP_PROTOCOL: _OTHER_KIND,
        KafkaError.GROUP_AUTHORIZATION_FAILED: "grant Read on the group {group} to this principal",
        KafkaError.TOPIC_AUTHORIZATION_FAILED: "grant Read on the request topics {topics} to this principal",
        KafkaError.UNSUPPORTED_VERSION: "share groups need Apache Kafka 4.3 or later with the feature share.version=1 "
        "(kafka-features.sh upgrade --feature share.version=1)",
        KafkaError._UNSUPPORTED_FEATURE: "share groups need Apache Kafka 4.3 or later",
        KafkaError.GROUP_MAX_SIZE_REACHED: "each worker joins with delivery.queue.consumers × copies of the model: "
        "have fewer, or raise group.share.max.size of the brokers (200)",
        KafkaError._AUTHENTICATION: "check sasl.* and ssl.* of the kafka settings",
        KafkaError._SSL: "check ssl.* of the kafka settings",
    }
)
_MAY_PASS: Final = frozenset([KafkaError._AUTHENTICATION, KafkaError._SSL])  # once we were let in


def poll_bounds(max_rows: int, max_bytes: int, largest: int = LARGEST_RECORD) -> dict[str, Any]:
    """How much one poll of a consumer brings."""
    return {"max.poll.records": max_rows, "fetch.max.bytes": min(MAX_FETCH_BYTES, max(largest, max_bytes))}


class ShareIntake:
    """See `Intake` for the contract of each method; an assignment, its positions and its commits do not exist here.

    Args:
        start: earliest or latest, where the group is new.
        consumers: how many share consumers, each with a thread.
        max_rows: records that a poll should bring.
        max_bytes: of the polls of all consumers together; one producer batch more each where that is larger.
        commit_interval_s: least time between two commits of one poll, but for its last.
    """

    def __init__(
        self,
        kafka: Mapping[str, Any],
        topics: Sequence[str],
        wishes: Wishes,
        locks: Locks,
        keeper: LockKeeper,
        metrics: Metrics,
        consumers: int,
        max_rows: int,
        max_bytes: int,
        commit_interval_s: float,
        clock: Clock = monotonic,
    ) -> None:
        self._kafka = kafka
        self._topics = list(topics)
        self._group = str(kafka["group.id"])
        self._wishes = wishes
        self._locks = locks
        self._keeper = keeper
        self._metrics = metrics
        self._max_rows = max_rows
        self._commit_interval_s = commit_interval_s
        self._clock = clock
        largest = int(kafka.get("message.max.bytes", LARGEST_RECORD))
        self._settings = {
            **poll_bounds(max_rows, max_bytes // consumers, largest),
            **DEFAULTS,
            **consumer_settings(kafka),
            **_OURS,
        }
        self._epochs = count(1)
        self._stopping = threading.Event()
        self._room = threading.Event()
        self._shut = False
        self._fatal: BaseException | None = None
        self._joined = False
        self._assigned: dict[tuple[str, int], None] = {}  # filled by the consumers' statistics, in order
        self._furthest: dict[tuple[str, int], int] = {}  # the next offset beyond what any consumer of ours polled
        self._reachable = Reachable(self._topics[0], clock)
        self._snapshot = Snapshot()
        self._admin: Any = None
        self._asked_ends: Mapping[TopicPartition, Any] = {}
        self._look_at = 0.0
        self._log = structlog.get_logger()
        self._consumers = consumers
        self._threads: list[threading.Thread] = []

    @property
    def snapshot(self) -> Snapshot:
        return self._snapshot

    @property
    def max_poll_s(self) -> float:
        return float(self._settings.get("max.poll.interval.ms", 300_000)) / 1000

    def open(self) -> None:
        """Returns at once: a thread asks the broker for the group's settings until one answers."""
        self._admin = make_client(AdminClient, {**admin_settings(self._kafka), "error_cb": self._client_error})
        self._thread(self._start, "share-start")

    def poll(self, room: Room, wait_s: float = POLL_S) -> list[Record]:
        """What the consumers brought, all of it. Without room, none of them begins another poll."""
        self._look()
        if room and not self._shut and not self._locks.stalled:
            self._room.set()
        else:
            self._room.clear()
        return self._locks.fresh(wait_s if room else 0)

    def serve(self) -> list[Record]:
        self._room.clear()
        self._look()
        self._locks.wait_settled(POLL_S)
        return self._locks.fresh(0)

    def read_only(self, claims: Collection[Claim] | None) -> None:
        """There is nothing to choose from: all may be read, or nothing."""
        self._shut = claims is not None

    def positions(self) -> Mapping[Claim, int]:
        return {}

    def commit(self, offsets: Mapping[Claim, Commit]) -> None:
        """There are no offsets; each consumer commits its own acknowledgements."""

    def close(self) -> None:
        """Stop the consumers: what is acknowledged is committed, what is not is released. Blocks for some seconds."""
        self._stopping.set()
        self._locks.stop()
        deadline = self._clock() + CLOSE_WITHIN_S
        for thread in list(self._threads):
            thread.join(max(0.0, deadline - self._clock()))

    # ---- the intake's thread

    def _look(self) -> None:
        if self._fatal is not None:
            raise self._fatal
        self._keeper.sweep()
        self._reachable.ask(self._admin)
        if (now := self._clock()) >= self._look_at:
            self._look_at = now + LAG_EVERY_S
            self._publish_snapshot()

    def _publish_snapshot(self) -> None:
        """A share group's lag is told to no client: shown is what lies beyond the furthest record polled here."""
        lag = dict(self._snapshot.lag)
        for partition, answer in self._asked_ends.items():
            furthest = self._furthest.get((partition.topic, partition.partition))
            if answer.done() and answer.exception() is None and furthest is not None:
                lag[Claim(partition.topic, partition.partition, 0)] = max(0, answer.result().offset - furthest)
        places = [TopicPartition(*place) for place in list(self._furthest)]
        if places and self._reachable.up:
            latest = dict.fromkeys(places, OffsetSpec.latest())
            self._asked_ends = self._admin.list_offsets(latest, request_timeout=LAG_EVERY_S)
        self._snapshot = Snapshot(self._joined, lag, {}, self._reachable.up, len(self._assigned))

    # ---- the consumers' threads

    def _thread(self, run: Callable[[], None], name: str) -> None:
        """Whatever escapes the thread ends the worker."""

        def guarded() -> None:
            try:
                run()
            except BaseException as error:
                self._fatal = self._fatal or error

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _start(self) -> None:
        """Bring the group's settings in line before the first consumer joins: they decide where the group begins."""
        while not self._stopping.is_set():
            try:
                terms = settle(self._admin, self._group, self._wishes)
            except KafkaException as error:
                self._judge(error.args[0])
                terms = None
            if terms is not None:
                self._log.info("share group", action="share_group", lock_s=terms.lock_s, limit=terms.max_deliveries)
                if (short := self._wishes.short_lock(terms.lock_s)) is not None:
                    self._log.warning(short, action="lock_short")
                for number in range(self._consumers):
                    self._thread(partial(self._consume, terms), f"share-{number}")
                return
            self._stopping.wait(AGAIN_AFTER_S)

    def _consume(self, terms: Terms) -> None:
        consumer: Any = make_client(
            ShareConsumer, {**self._settings, "error_cb": self._client_error, "stats_cb": self._statistics}
        )
        try:
            consumer.subscribe(self._topics)
            polled_s = self._clock()
            while not self._stopping.is_set():
                if self._room.wait(LISTEN_S) and self._locks.begin_poll():
                    hold: Hold | None = None
                    try:
                        # What comes while nobody polls waits in the client with its lock running: since the last
                        # poll's end at the earliest, as after one that brought something nothing more is fetched
                        # [measured].
                        messages = list(self._poll(consumer, 0))
                        if not messages:  # nothing waited: what comes now was not locked before
                            polled_s = self._clock()
                            messages = list(self._poll(consumer, LISTEN_S))
                        ends_s = self._clock() + terms.lock_s
                        if records := self._records(messages, terms.max_deliveries):
                            hold = self._locks.open(records, polled_s + CLOSES_AT * terms.lock_s)
                    finally:
                        self._locks.end_poll()
                    if hold is not None:
                        self._see_through(consumer, hold, records, ends_s)
                    polled_s = self._clock()
        finally:
            consumer.close()

    def _poll(self, consumer: Any, timeout_s: float) -> Iterable[Any]:
        try:
            messages: Iterable[Any] = consumer.poll(timeout_s)
        except KafkaException as error:
            self._judge(error.args[0])
            self._stopping.wait(AGAIN_AFTER_S)
            return ()
        return messages

    def _records(self, messages: Iterable[Any], limit: int) -> list[Record]:
        now, now_wall, epoch = self._clock(), wall(), next(self._epochs)
        found = []
        for message in messages:
            if (error := message.error()) is not None:
                self._judge(error)
            else:
                found.append(message)
        waited = len(found) >= self._max_rows  # there was more than we asked for: it has waited already
        records = []
        for message in found:
            claim = Claim(message.topic(), message.partition(), epoch)
            [record] = read_records([message], claim, now, now_wall, waited)
            record.delivery = message.delivery_count() or 1
            record.last = record.delivery >= answered_from(limit)
            record.alone = runs_alone(record.delivery, limit)
            records.append(record)
            place = (record.topic, record.partition)
            self._furthest[place] = max(self._furthest.get(place, 0), record.next_offset)
        if again := Counter(record.delivery for record in records if record.delivery > 1):
            self._metrics.redelivered.inc(again.total())
            deliveries = {str(delivery): count for delivery, count in sorted(again.items())}
            self._log.info("handed out again", action="redelivered", deliveries=deliveries)
        return records

    def _see_through(self, consumer: Any, hold: Hold, records: Sequence[Record], ends_s: float) -> None:
        """From one poll until it may be followed by the next: every record has ended, and the broker was told.

        Args:
            ends_s: when the locks have surely run out.
        """
        interval_s = (
            0.0 if any(record.alone for record in records) else self._commit_interval_s
        )  # the next waits for it
        commit_at = 0.0
        told: list[Ended] = []
        try:
            while (hold.left or told) and not self._stopping.is_set():
                ended = self._locks.wait(hold, max(0.01, commit_at - self._clock()) if told else LISTEN_S)
                for record, end in ended:
                    consumer.acknowledge_offset(record.topic, record.partition, record.offset, _ACKNOWLEDGE[end])
                told += ended
                if not told:  # a broker may be away for hours, and what the client has to say is kept until it is asked
                    with suppress(KafkaException):
                        consumer.commit_sync(0)
                if told and (not hold.left or self._clock() >= commit_at):
                    self._commit(consumer, told, ends_s)
                    told = []
                    commit_at = self._clock() + interval_s
        finally:
            self._locks.close(hold)

    def _commit(self, consumer: Any, told: Sequence[Ended], ends_s: float) -> None:
        """Tell the broker, and hear what it says; nothing can be told twice: in doubt the lock ends by itself.

        The broker calls some late acknowledgements invalid, and passes over those that it need not know any more, as
        when another has answered meanwhile [measured]: so our own clock counts, too.
        """
        refused: dict[tuple[str, int], Any] = {}
        whole: Any = None
        try:
            answers = consumer.commit_sync(COMMIT_WITHIN_S)
        except KafkaException as error:
            whole = error.args[0]
        else:
            refused = {(place.topic, place.partition): raised.args[0] for place, raised in answers.items() if raised}
        self._locks.told(told)
        over = self._clock() >= ends_s
        doubtful = 0
        for record, end in told:
            problem = whole or refused.get((record.topic, record.partition))
            late = over if problem is None else problem.code() == KafkaError.INVALID_RECORD_STATE
            result = "late" if late else "accepted" if problem is None else "unknown"
            self._metrics.acknowledged.labels(end.value, result).inc()
            doubtful += end is End.ANSWERED and result != "accepted"
        if doubtful or whole is not None or refused:
            self._log.warning(
                "acknowledged late or in vain; these requests may be answered again",
                action="acknowledge_refused",
                answered=doubtful,
                codes=sorted({problem.name() for problem in [whole, *refused.values()] if problem is not None}),
            )

    # ---- callbacks of the clients, on their threads; an exception in one would surface from poll

    def _statistics(self, text: str) -> None:
        """The one place where the client tells of its assignment. A share group gives every member a partition."""
        told = orjson.loads(text)
        if told.get("cgrp", {}).get("join_state") != "steady":
            return
        for topic in told["topics"].values():
            for name in topic["partitions"]:
                if name != "-1":
                    self._assigned[topic["topic"], int(name)] = None
        if self._assigned and not self._joined:
            self._joined = True
            partitions = [f"{topic}-{partition}" for topic, partition in list(self._assigned)]  # another's may grow
            self._log.info("assignment changed", action="assigned", partitions=partitions)

    def _client_error(self, error: Any) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._reachable.down()
            self._log.warning("no broker answers", action="brokers_down", error=error.str())
        else:
            self._judge(error)

    def _judge(self, error: Any) -> None:
        """Stop for good, or say so and go on."""
        code = error.code()
        if error.fatal() or (code in _REMEDY and not (self._joined and code in _MAY_PASS)):
            remedy = _REMEDY.get(code, "restart the worker").format(group=self._group, topics=", ".join(self._topics))
            self._fatal = self._fatal or FatalError(f"Kafka: {error.str()}; {remedy}")
        else:
            self._log.warning("kafka error", action="kafka_error", code=error.name(), error=error.str())
