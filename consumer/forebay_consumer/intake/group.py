"""Intake by a consumer group: cooperative-sticky, or the protocol of KIP-848.

The Kafka consumer lives on one thread. Nobody else calls any method of it: calls are serialised inside the client,
and a polling loop starves every other caller. No callback polls: the client aborts the process now and then.
"""

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from types import MappingProxyType
from typing import Any, Final

import structlog
from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from forebay_consumer.clock import Clock, monotonic, wall
from forebay_consumer.errors import KafkaFailure
from forebay_consumer.flow import Room
from forebay_consumer.intake.base import POLL_S, Listener, Snapshot, Start
from forebay_consumer.intake.message import read_records
from forebay_consumer.kafka_settings import consumer_settings, make_client
from forebay_consumer.progress import HELD, Commit, decode
from forebay_consumer.reachable import Reachable
from forebay_consumer.record import Claim, Record
from forebay_consumer.told_twice import SETTLE_S, told_twice

CHUNK: Final = 500  # beyond it a chunk gains nothing, and its first record waits for the last
LAG_EVERY_S: Final = 0.25
ASK_WITHIN_S: Final = 5.0  # one question at an assignment: a worker that is to end sees it so late at most
ASK_AGAIN_S: Final = 0.2
AT_ONCE_S: Final = 0.2  # a broker that is well, and was so a moment ago, tells a group's offsets within it
SETTLE_STEPS: Final = round(SETTLE_S / ASK_AGAIN_S)
WAKE_S: Final = 0.2
COUNT_WITHIN_S: Final = 5.0
MIN_FETCH_BYTES: Final = 64 * 1024
MAX_FETCH_BYTES: Final = 1024 * 1024  # the client's own default
MIN_QUEUED_KBYTES: Final = 1024
MAX_QUEUED_KBYTES: Final = 2_097_151  # the client takes no more

DEFAULTS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # A log truncated below our position is an accident to report, never to jump over.
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "topic.metadata.refresh.interval.ms": 30_000,
        "fetch.wait.max.ms": 100,
        # With the prefetch full the client looks away for so long; in its 1,000 a fast model empties it many times.
        "fetch.queue.backoff.ms": 50,
        "client.id": "forebay-consumer",
    }
)
# The protocol of KIP-848 lets the broker choose these and refuses them as client settings.
CLASSIC: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": 10_000,
        "heartbeat.interval.ms": 3_000,
    }
)
REJOIN_SPARE_S: Final = 30.0
BROKERS_SESSION_MS: Final = 45_000  # `group.consumer.session.timeout.ms`, unless a broker says otherwise
AFTER_OUTAGE: Final = 2  # sessions after it within which a partition that was lost finds its next owner
RESTART: Final = "restart the worker"
_REMEDY: Final[Mapping[int, str]] = MappingProxyType(
    {
        KafkaError.GROUP_AUTHORIZATION_FAILED: "grant Read on the group {group} to this principal",
        KafkaError.TOPIC_AUTHORIZATION_FAILED: "grant Read on the request topics {topics} to this principal",
        KafkaError._AUTHENTICATION: "check sasl.* and ssl.* of the kafka settings",
        KafkaError._SSL: "check ssl.* of the kafka settings",
        KafkaError._AUTO_OFFSET_RESET: "the log no longer has the committed offset; reset the group's offsets "
        "(kafka-consumer-groups.sh --reset-offsets) after deciding what becomes of the missing records",
        KafkaError.FENCED_INSTANCE_ID: "give every worker its own group.instance.id, or none",
        KafkaError.UNRELEASED_INSTANCE_ID: "give every worker its own group.instance.id, or none",
    }
)


def prefetch(max_bytes: int) -> dict[str, Any]:
    """What the client may hold ahead, for a budget of bytes."""
    return {
        # Prefetch is bounded per partition by the client; half of the budget keeps a few partitions within it.
        "queued.max.messages.kbytes": min(MAX_QUEUED_KBYTES, max(MIN_QUEUED_KBYTES, max_bytes // 2048)),
        "queued.min.messages": 10_000,
        # Either bound is looked at between fetches only, and what a fetch brings may be compressed many times over.
        "max.partition.fetch.bytes": min(MAX_FETCH_BYTES, max(MIN_FETCH_BYTES, max_bytes // 256)),
    }


class _Leaving(Exception):
    """The worker ends, so nobody needs to know any more where an assignment begins."""


class GroupIntake:
    """At-least-once intake of whole consumer groups. See `Intake` for the contract of each method.

    Args:
        leaving: whether the worker ends: then what is assigned is neither looked into nor told, and only given back.
    """

    def __init__(
        self,
        kafka: Mapping[str, Any],
        topics: Sequence[str],
        start: str,
        listener: Listener,
        max_bytes: int,
        transactional: bool = False,
        clock: Clock = monotonic,
        leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        classic = kafka.get("group.protocol", "classic") == "classic"
        self._settings = {
            **prefetch(max_bytes),
            **DEFAULTS,
            **(CLASSIC if classic else {}),
            **consumer_settings(kafka),
        }
        self._classic = classic
        self._topics = list(topics)
        self._start = start
        self._listener = listener
        self._transactional = transactional
        self._group: Any = None
        self._clock = clock
        self._leaving = leaving
        self._ask_until_s = 0.0
        self._known: dict[str, int] = {}  # partitions of each topic when the group was joined, where `start` asks
        self._subscribed = False
        self._claims: dict[tuple[str, int], Claim] = {}
        self._starts_at: dict[tuple[str, int], int] = {}
        self._lagging: set[Claim] = set()  # of which something was delivered, and more was there
        self._epochs = count(1)
        self._snapshot = Snapshot()
        self._joined = False
        self._out_since: float | None = None  # partitions were lost, and the group has said nothing since
        session_s = int(self._settings.get("session.timeout.ms", BROKERS_SESSION_MS)) / 1000
        self._outage_s = AFTER_OUTAGE * session_s
        self._reachable = Reachable(self._topics[0], clock, session_s / 2)
        self._lost_at = -math.inf  # when partitions were lost here, as they are in an outage
        self._fatal: KafkaFailure | None = None
        self._paused = False
        self._read_only: frozenset[Claim] | None = None
        self._still: set[tuple[str, int]] = set()  # partitions that are paused
        self._asleep: set[tuple[str, int]] = set()  # those of which nothing was fetched since their assignment
        self._full_since: float | None = None
        self._lag_at = 0.0
        self._mean_size = 1024.0
        # A quarter of the time after which the group would take us for dead.
        self._patience_s = float(self._settings.get("max.poll.interval.ms", 300_000)) / 4000
        self._log = structlog.get_logger()
        self._consumer: Any = None

    @property
    def snapshot(self) -> Snapshot:
        return self._snapshot

    @property
    def max_poll_s(self) -> float:
        return self._patience_s * 4

    @property
    def group_metadata(self) -> Any:
        """Who we are in the group, for the producer's transactions; None before it was joined. Any thread may ask.

        Older than the assignment at most, never newer: the broker refuses what an older one sends.
        """
        return self._group

    def open(self) -> None:
        self._consumer = make_client(
            Consumer, {**self._settings, "error_cb": self._client_error, "on_commit": self._on_commit}
        )
        self._join()

    def poll(self, room: Room, wait_s: float = POLL_S) -> list[Record]:
        if not room:
            self._know_group()  # what makes room may wait for it
            self._wait_paused()
            return []
        if not self._subscribed:
            self._join()
        self._full_since = None
        with self._translated():
            if self._paused:
                self._resume()
            records = self._consume(room, wait_s)
            self._publish_snapshot()
        self._raise_fatal()
        return records

    def serve(self) -> list[Record]:
        with self._translated():
            self._pause()
            message = self._consumer.poll(POLL_S)
            if message is not None and message.error():
                self._judge(message.error())
            self._publish_snapshot()
        self._raise_fatal()
        return []

    def read_only(self, claims: Collection[Claim] | None) -> None:
        wanted = None if claims is None else frozenset(claims)
        if wanted != self._read_only:
            self._read_only = wanted
            with self._translated():
                self._pause_as_wanted()

    def positions(self) -> Mapping[Claim, int]:
        if not self._claims:
            return {}
        asked = [TopicPartition(topic, partition) for topic, partition in self._claims]
        with self._translated():
            positions = self._consumer.position(asked)
        return {self._claims[found.topic, found.partition]: found.offset for found in positions if found.offset >= 0}

    def commit(self, offsets: Mapping[Claim, Commit]) -> None:
        if not offsets:
            return
        wanted = [
            TopicPartition(claim.topic, claim.partition, commit.offset, commit.metadata)
            for claim, commit in offsets.items()
        ]
        try:
            self._consumer.commit(offsets=wanted, asynchronous=True)
        except KafkaException as error:
            self._log.warning("commit not sent", action="commit_refused", error=str(error))
            self._listener.committed({}, list(offsets))

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    # ---- polling

    def _consume(self, room: Room, wait_s: float) -> list[Record]:
        first = self._consumer.poll(wait_s)
        if first is None:
            return []
        wanted = min(room.rows, CHUNK, max(1, int(room.bytes / self._mean_size))) - 1
        messages = [first]
        if wanted > 0:
            messages += self._consumer.consume(wanted, 0)
        behind = len(messages) > wanted  # there was more than we took: what we took has waited already
        now, now_wall = self._clock(), wall()
        polled: dict[Claim, list[Message]] = {}  # in order within each
        place, of_place = None, []  # what comes is mostly of one partition after the other
        for message in messages:
            if (error := message.error()) is not None:
                self._judge(error)
                continue
            if place != (place := (message.topic(), message.partition())):
                claim = self._claims.get(place)
                of_place = [] if claim is None else polled.setdefault(claim, [])
            of_place.append(message)
        records = []
        if polled:
            # Known before any of them is looked at: `max_backlog` counts what waits behind each.
            ends = self._ends(polled)
            self._snapshot = replace(self._snapshot, ends={**self._snapshot.ends, **ends})
            for claim, found in polled.items():
                lagging = claim in self._lagging or ends.get(claim, 0) > found[-1].offset() + 1
                waited = behind or lagging
                records += read_records(found, claim, now, now_wall, waited)
            size = sum([record.size for record in records]) / len(records)
            self._mean_size = max(size, 0.9 * self._mean_size + 0.1 * size)
        return records

    def _wait_paused(self) -> None:
        """Room is 0: leave Kafka alone for a while, since a pause throws the prefetch away; then pause and poll on."""
        now = self._clock()
        if self._full_since is None:
            self._full_since = now
        if self._paused or now - self._full_since > self._patience_s:
            self.serve()

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._pause_as_wanted()

    def _resume(self) -> None:
        self._paused = False
        self._pause_as_wanted()

    def _pause_as_wanted(self) -> None:
        """Pause and resume what differs from what is wanted, and only that: each pause throws the prefetch away."""
        still = {
            place
            for place, claim in self._claims.items()
            if self._paused or (self._read_only is not None and claim not in self._read_only)
        }
        self._consumer.pause([TopicPartition(*place) for place in still - self._still])
        resumed = [TopicPartition(*place) for place in (self._still - still) & self._claims.keys()]
        self._consumer.resume(resumed)
        self._still = still
        self._wake([place for place in resumed if (place.topic, place.partition) in self._asleep])

    def _wake(self, places: Sequence[TopicPartition]) -> None:
        """Have the client fetch of what was assigned at once: its thread for their leader may sleep for a second.

        With all that it fetches paused, a resume does not wake that thread; a question to the leader does
        [librdkafka 2.16: the first request after an assignment waited 1 s in 9 of 24 workers, in none of 24 with this].
        """
        self._asleep -= {(place.topic, place.partition) for place in places}
        until_s = self._clock() + WAKE_S
        for place in places:
            try:
                self._consumer.get_watermark_offsets(place, timeout=WAKE_S)
            except KafkaException:
                return  # its leader is away, or worse: polls will tell
            if self._clock() >= until_s:
                return

    def _publish_snapshot(self) -> None:
        now = self._clock()
        self._know_group()
        self._reachable.ask(self._consumer)
        self._check_back(now)
        joined = self._joined and self._out_since is None
        if now - self._lag_at < LAG_EVERY_S and self._snapshot.joined == joined:
            return
        self._lag_at = now
        # The client knows no position before the first delivery.
        known = self.positions()
        positions = {**{claim: self._starts_at[place] for place, claim in self._claims.items()}, **known}
        ends = self._ends(positions)
        lag = {claim: max(0, end - positions[claim]) for claim, end in ends.items()}
        self._lagging = {claim for claim in known if lag.get(claim, 0) > 0}
        self._snapshot = Snapshot(joined, lag, ends, self._reachable.up, len(self._claims))

    def _check_back(self, now: float) -> None:
        """End where brokers answer and the group gives nothing back for longer than its slowest member may take.

        The client was seen to sit so for a minute and more after an outage, polled all the while [librdkafka 2.16].
        """
        if self._out_since is None:
            return
        if not self._reachable.up:
            self._out_since = now
        elif now - self._out_since > self.max_poll_s + REJOIN_SPARE_S:
            self._fatal = self._fatal or KafkaFailure(
                f"Kafka: partitions were lost, and for {now - self._out_since:.0f} s the group "
                f"{self._settings['group.id']!r} has given none, though brokers answer; {RESTART}"
            )

    def _know_group(self) -> None:
        if self._transactional and self._joined:
            # Without a member's id, the broker would check nothing.
            known = self._consumer.memberid()
            self._group = self._consumer.consumer_group_metadata() if known else None

    def _ends(self, claims: Iterable[Claim]) -> dict[Claim, int]:
        """As of the last fetch; asks nobody."""
        ends = {}
        for claim in claims:
            _, high = self._consumer.get_watermark_offsets(TopicPartition(claim.topic, claim.partition), cached=True)
            if high >= 0:
                ends[claim] = high
        return ends

    # ---- errors

    def _judge(self, error: Any) -> None:
        """An error in a record's place: stop for good, or say so and go on."""
        code = _code(error)
        if error.fatal() or code == KafkaError._FATAL or (code in _REMEDY and not self._may_pass(error)):
            self._fatal = self._fatal or self._ended(error)
        elif error.code() == KafkaError._MAX_POLL_EXCEEDED:
            self._log.error("polled too late, partitions are lost", action="max_poll_exceeded", error=error.str())
        else:
            self._log.warning("kafka error", action="kafka_error", code=error.name(), error=error.str())

    def _ended(self, error: Any, what: str = "", otherwise: str = RESTART) -> KafkaFailure:
        """The end, and what to do about it.

        Args:
            what: what could not be done for it, where that helps.
            otherwise: the remedy where the error has none of its own.
        """
        remedy = _REMEDY.get(_code(error), otherwise).format(
            group=self._settings["group.id"], topics=", ".join(self._topics)
        )
        return KafkaFailure(f"Kafka: {what}{error.str()}; {remedy}")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """What the client raises is its end: whatever may pass, it tells in other ways."""
        try:
            yield
        except KafkaException as raised:
            raise self._fatal or self._ended(raised.args[0]) from raised

    def _may_pass(self, error: Any) -> bool:
        """Whether to wait for better times: we got in before, and no restart would help.

        OAuth tokens are fetched anew by themselves, and at each one's end librdkafka authenticates again, which a
        broker without `connections.max.reauth.ms` refuses before it takes the new connection [KIP-368]. A password
        stays wrong until a restart reads another.
        """
        tokens = "OAUTHBEARER" in (self._settings.get("sasl.mechanism"), self._settings.get("sasl.mechanisms"))
        passing = (KafkaError._SSL, KafkaError._AUTHENTICATION) if tokens else (KafkaError._SSL,)
        return self._joined and error.code() in passing

    def _client_error(self, error: Any) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._reachable.down()
            self._snapshot = replace(self._snapshot, reachable=False)
            self._log.warning("no broker answers", action="brokers_down", error=error.str())
        else:
            self._judge(error)

    def _raise_fatal(self) -> None:
        if self._fatal is not None:
            raise self._fatal

    # ---- callbacks of the client, on the polling thread; an exception in one would surface from poll

    def _on_assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._joined = True
        self._out_since = None
        # What was revoked has ended. To ask where the new ones begin may take long; transactions of the others go on.
        self._know_group()
        try:
            starts = self._starts(consumer, partitions)
        except KafkaFailure as error:
            self._fatal = error
            return
        except _Leaving:
            # The client must have them, or it cannot give them back; it fetches nothing at an end, paused. Left to
            # itself it would ask for the offsets, and where there are none, end the drain with an error.
            consumer.incremental_assign([TopicPartition(each.topic, each.partition, OFFSET_END) for each in partitions])
            consumer.pause(partitions)
            return
        claims = {Claim(topic, partition, next(self._epochs)): start for (topic, partition), start in starts.items()}
        self._claims.update({(claim.topic, claim.partition): claim for claim in claims})
        self._starts_at.update({place: start.offset for place, start in starts.items()})
        self._still -= starts.keys()
        self._asleep |= starts.keys()
        # Nothing is fetched of them before the first commit: a pause after that would throw it away.
        before = frozenset(self._claims.values()) if self._read_only is None else self._read_only
        self._read_only = before - claims.keys()
        self._listener.assigned(claims)
        consumer.incremental_assign([TopicPartition(*place, start.offset) for place, start in starts.items()])
        self._pause_as_wanted()

    def _on_revoke(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        claims = self._leave(partitions)
        try:
            self._know_group()
            if claims:  # else they were never told of: nobody has a last word on them, or should wait to say it
                self.commit(self._listener.revoked(claims))
        finally:
            for claim in claims:
                self._claims.pop((claim.topic, claim.partition), None)
            consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        claims = self._leave(partitions)
        self._group = None
        self._lost_at = self._clock()
        # Only there is each member told of each rebalance, though it gets no partitions.
        self._out_since = self._lost_at if self._classic else None
        for claim in claims:
            self._claims.pop((claim.topic, claim.partition), None)
        self._listener.lost(claims)
        consumer.incremental_unassign(partitions)

    def _leave(self, partitions: list[TopicPartition]) -> list[Claim]:
        found = (self._claims.get((partition.topic, partition.partition)) for partition in partitions)
        return [claim for claim in found if claim is not None]

    def _on_commit(self, error: Any, partitions: list[TopicPartition]) -> None:
        accepted: dict[Claim, Commit] = {}
        refused: list[Claim] = []
        for partition in partitions:
            claim = self._claims.get((partition.topic, partition.partition))
            if claim is None or partition.offset < 0:
                continue
            if error is None and partition.error is None:
                accepted[claim] = Commit(partition.offset, partition.metadata or "")
            else:
                refused.append(claim)
        if refused:
            self._log.warning("commit refused", action="commit_refused", error=str(error or partitions[0].error))
        self._listener.committed(accepted, refused)
        if error is not None and error.code() == KafkaError.OFFSET_METADATA_TOO_LARGE:
            self._listener.metadata_refused()

    # ---- where to begin

    def _starts(self, consumer: Any, partitions: list[TopicPartition]) -> dict[tuple[str, int], Start]:
        """Where each partition begins: at the committed offset, else as `start` says.

        `start` decides for what was there when the group was joined: a partition that was added since is read from
        its beginning, or what was written before we noticed would be skipped.
        """
        if not partitions:
            return {}
        self._ask_until_s = self._clock() + self.max_poll_s / 2

        outage = self._was_cut_off()  # the answer may be held for longer than that counts
        committed = self._committed(consumer, partitions, outage)
        return {(each.topic, each.partition): self._start_at(consumer, each, outage) for each in committed}

    def _committed(self, consumer: Any, partitions: list[TopicPartition], outage: bool) -> list[TopicPartition]:
        """The group's offsets; after trouble with the broker those that it tells twice."""

        def look() -> list[TopicPartition]:
            told: list[TopicPartition] = consumer.committed(partitions, timeout=ASK_WITHIN_S)
            for partition in told:
                if partition.error is not None:  # else it would pass for one without an offset
                    raise KafkaException(partition.error)
            return told

        what, held = "the group's offsets cannot be read: ", HELD if self._transactional else ""
        asked_at = self._clock()
        found: list[TopicPartition] = self._ask(look, what, held)
        if outage or self._clock() - asked_at >= AT_ONCE_S:
            return told_twice(
                found,
                partial(self._ask, look, what, held),
                self._let_settle,
                lambda _: self._clock() >= self._ask_until_s,
            )
        return found

    def _let_settle(self) -> None:
        for _ in range(SETTLE_STEPS):
            if self._leaving():
                raise _Leaving
            time.sleep(ASK_AGAIN_S)

    def _start_at(self, consumer: Any, partition: TopicPartition, outage: bool) -> Start:
        offset = partition.offset
        if offset < 0:
            return Start(self._fresh_start(consumer, partition))
        try:
            progress = decode(partition.metadata, offset)
        except ValueError as error:
            self._log.error("answers may be repeated", action="metadata_unreadable", error=str(error))
            return Start(offset, None, offset)
        # A process died over it: what came later, it cannot have seen.
        end = self._bounds(consumer, partition)[1] if progress.open else offset
        return Start(offset, progress, end, outage)

    def _was_cut_off(self) -> bool:
        return self._clock() - self._lost_at <= self._outage_s or self._reachable.was_long_down(self._outage_s)

    def _bounds(self, consumer: Any, partition: TopicPartition) -> tuple[int, int]:
        place = TopicPartition(partition.topic, partition.partition)
        low, high = self._ask(
            lambda: consumer.get_watermark_offsets(place, timeout=ASK_WITHIN_S),
            f"the bounds of {place.topic}-{place.partition} cannot be read: ",
        )
        return int(low), int(high)

    def _ask(self, look: Callable[[], Any], what: str, in_vain: str = "") -> Any:
        """What the broker says; again, where time may mend it.

        All questions of an assignment together have half of the time until the group takes us for dead.

        A broker that restarts, a coordinator that moves, a partition so new that only the member which shares them out
        knows of it: clients and brokers have dozens of codes for them, and few for what must be mended by people.

        Args:
            in_vain: what to do where it has not told by then.

        Raises:
            _Leaving: the worker ends.
        """
        while True:
            if self._leaving():
                raise _Leaving
            try:
                return look()
            except KafkaException as raised:
                error = raised.args[0]
                if error.code() in _REMEDY or error.fatal() or self._clock() > self._ask_until_s:
                    never = in_vain if error.code() == KafkaError._TIMED_OUT else ""
                    raise self._ended(error, what, never or RESTART) from raised
                self._log.warning(what + error.str(), action="asked_again", code=error.name())
                time.sleep(ASK_AGAIN_S)

    def _join(self) -> None:
        """Join the group, if it is known how many partitions each topic has, where `start` asks for it.

        Must not be called from a callback: the client aborts the process.
        """
        for topic in self._topics if self._start != "earliest" else ():
            try:
                found = self._consumer.list_topics(topic, timeout=COUNT_WITHIN_S).topics[topic]
            except KafkaException as error:
                self._log.warning("partitions not counted", action="not_counted", topic=topic, error=str(error))
                return  # polls go on, and tell what people must mend
            self._known[topic] = len(found.partitions)
        self._consumer.subscribe(
            self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        self._subscribed = True

    def _fresh_start(self, consumer: Any, partition: TopicPartition) -> int:
        where = f"{partition.topic}-{partition.partition}"
        added = partition.partition >= self._known.get(partition.topic, partition.partition + 1)
        start = "earliest" if added else self._start
        if start == "fail":
            raise KafkaFailure(
                f"the group has no committed offset for {where} and delivery.start is fail; commit one with "
                "kafka-consumer-groups.sh --reset-offsets, or set delivery.start to earliest or latest"
            )
        low, high = self._bounds(consumer, partition)
        self._log.info("no committed offset", action="fresh_start", partition=where, start=start)
        return low if start == "earliest" else high


def _code(error: Any) -> int:
    """What an error is about. In a record's place the client says only that it is fatal, and the rest in its text."""
    code = int(error.code())
    if code != KafkaError._FATAL:
        return code
    return next((known for known in _REMEDY if KafkaError(known).str() in error.str()), code)
