"""From outcomes to confirmed replies: encode, produce, and let the delivery report mark the record done.

A record is done when the broker has confirmed all that is owed for it: its reply and, where one is kept, its dead
letter. There is no flush per batch.

A fatal error ends the producer, not the worker: what it had not confirmed is produced again, in order, by a new one.
Some of it may be in the topic already, which repeats an answer and loses none.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Final, Self

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from forebay_consumer.clock import Clock, monotonic
from forebay_consumer.errors import KafkaFailure
from forebay_consumer.failure import Failure
from forebay_consumer.kafka_settings import make_client, producer_settings
from forebay_consumer.messages import Message, Owed, Writer
from forebay_consumer.metrics import Metrics
from forebay_consumer.reachable import Reachable
from forebay_consumer.rebuilds import Rebuilds
from forebay_consumer.record import Claim, Outcome, Record
from forebay_consumer.send_off import SendOff

BUSY_WAIT_S: Final = 0.002  # while reports are awaited; they end it
SEND_OFF_S: Final = 0.001  # most time of one flush; the client's thread sees it within microseconds if its core is free
IDLE_WAIT_S: Final = 0.1
AGAIN_AFTER_S: Final = 0.5
ALONE_TIMEOUT_S: Final = 10.0
LAST_REPORTS_S: Final = 1.0  # of a producer that ended
REBUILDS: Final = 5
REBUILDS_WITHIN_S: Final = 300.0

_NO_TOPIC: Final = frozenset([KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART])
SIZE: Final = frozenset([KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE])
# What becomes of the messages of a producer that ended.
_ORPHANED: Final = frozenset([KafkaError._FATAL, KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT])
REMEDIES: Final[Mapping[int, str]] = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "grant Write on it to this principal",
    # Write on any topic lets an idempotent producer in; the right of that name was for brokers before 2.8.
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "grant Write on the reply topics to this principal",
    KafkaError._AUTHENTICATION: "check sasl.* and ssl.* of the kafka settings",
}


class Replies:
    """The stage and its thread, the only one to touch the producer. A context manager.

    Args:
        owns: whether results of an assignment may still be published; late ones are dropped.
        done: told of the records whose replies are confirmed.
        gave_up: told of the records whose outcomes were dropped.
    """

    def __init__(
        self,
        kafka: Mapping[str, Any],
        writer: Writer,
        owns: Callable[[Claim], bool],
        done: Callable[[Sequence[Record]], None],
        gave_up: Callable[[Sequence[Record], str], None],
        metrics: Metrics,
        failure: Failure,
        clock: Clock = monotonic,
    ) -> None:
        self._settings = producer_settings(kafka)
        self._writer = writer
        self._owns = owns
        self._done = done
        self._gave_up = gave_up
        self._metrics = metrics
        self._failure = failure
        self._clock = clock
        self._log = structlog.get_logger()
        self._chunks: SimpleQueue[Sequence[Outcome] | None] = SimpleQueue()
        self._confirmed: list[Owed] = []  # filled by delivery reports, emptied after each producer poll
        self._failed: list[tuple[Message, Any]] = []  # likewise
        self._again: list[tuple[float, Message]] = []  # not before that moment
        self._unconfirmed: dict[Message, None] = {}  # given to the producer and not reported on, in that order
        self._send_off = SendOff(clock)
        self._ended_by: Any = None  # the producer's fatal error, until there is a new producer
        self._rebuilds = Rebuilds(REBUILDS, REBUILDS_WITHIN_S, clock)
        self._thread = threading.Thread(target=failure.guard(self._run, "replies"), name="replies", daemon=True)
        self._producer: Any = None
        self._reachable = Reachable(writer.reply_topic, clock)

    @property
    def reachable(self) -> bool:
        """The producer's last word was not that all brokers are down."""
        return self._reachable.up

    def list_topics(self, topic: str, timeout: float) -> Any:
        """As `Producer.list_topics`, which may be called from any thread, while this is entered."""
        return self._producer.list_topics(topic, timeout=timeout)

    def publish(self, outcomes: Sequence[Outcome]) -> None:
        """Hand outcomes over; returns at once."""
        self._chunks.put(outcomes)

    def __enter__(self) -> Self:
        self._producer = self._make_producer()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._chunks.put(None)
        self._thread.join()

    # ---- the thread

    def _run(self) -> None:
        while True:
            try:
                chunk = self._chunks.get_nowait() if self._unconfirmed else self._chunks.get(timeout=self._idle_s())
            except Empty:
                if self._send_off.due(self._unconfirmed):
                    self._flush(SEND_OFF_S)
                elif self._unconfirmed:
                    self._poll(BUSY_WAIT_S)
            else:
                if chunk is None:
                    break
                self._send_chunk(chunk)
            self._serve(0)
            self._reachable.ask(self._producer)
        # What is unconfirmed now stays uncommitted, and is run again by the next owner.
        self._producer.purge()
        self._poll(0)

    def _idle_s(self) -> float:
        return BUSY_WAIT_S if self._again else IDLE_WAIT_S

    def _send_chunk(self, outcomes: Sequence[Outcome]) -> None:
        dropped = []
        asked: Claim | None = None
        owned = False
        for outcome in outcomes:
            record = outcome.record
            if record.claim is not asked:  # a chunk is mostly of one assignment, which is asked for once
                asked = record.claim
                owned = self._owns(asked)
            if owned:
                for message in self._writer.messages(outcome):
                    self._produce(message)
            else:
                dropped.append(record)
        if dropped:
            self._gave_up(dropped, "late")

    def _produce(self, message: Message) -> None:
        while True:
            try:
                # By place: names cost a tenth of the call.
                self._producer.produce(
                    message.topic,
                    message.value,
                    message.key,
                    message.partition,
                    partial(self._report, message),
                    headers=message.headers,
                )
            except BufferError:  # the client's queue is full: wait for reports, as the flow does for room
                self._poll(0.05)
                if self._failure.happened:
                    return
            except KafkaException as raised:
                self._report(message, raised.args[0])
                return
            else:
                self._unconfirmed[message] = None
                return

    def _report(self, message: Message, error: Any, _: Any = None) -> None:
        """A delivery report; runs inside the producer's poll, so it only takes note."""
        if error is None:
            self._unconfirmed.pop(message, None)
            owed = message.owed
            owed.missing -= 1
            if owed.missing == 0:
                self._confirmed.append(owed)
        elif self._ended_by is not None or error.code() in _ORPHANED:
            self._unconfirmed[message] = None  # it keeps its place, until there is a new producer
            self._ended_by = self._ended_by or error
        else:
            self._unconfirmed.pop(message, None)
            self._failed.append((message, error))

    def _serve(self, timeout_s: float) -> None:
        self._poll(timeout_s)
        if self._ended_by is not None:
            self._rebuild()
        if self._failed:
            failed, self._failed = self._failed, []
            for message, error in failed:
                self._judge(message, error)
        if self._again:
            self._retry()
        if self._confirmed:
            confirmed, self._confirmed = self._confirmed, []
            self._metrics.publish.observe(self._clock() - confirmed[0].since_s)
            self._metrics.answered(Counter([owed.code for owed in confirmed]), self._writer.keeps)
            self._done([owed.record for owed in confirmed])

    def _retry(self) -> None:
        now = self._clock()
        due = [message for moment, message in self._again if moment <= now]
        self._again = [(moment, message) for moment, message in self._again if moment > now]
        for message in due:
            self._produce_again(message)

    def _produce_again(self, message: Message) -> None:
        if self._owns(message.owed.record.claim):
            self._produce(message)
        elif not message.owed.given_up:  # its other message may be late too
            message.owed.given_up = True
            self._gave_up([message.owed.record], "late")

    # ---- the client, and its end

    def _make_producer(self) -> Any:
        # The intake hears the same from its own client, but not while it leaves Kafka alone for want of room.
        return make_client(Producer, {**self._settings, "error_cb": self._reachable.heard})

    def _poll(self, timeout_s: float) -> None:
        self._serving(self._producer.poll, timeout_s)

    def _flush(self, timeout_s: float) -> None:
        self._serving(self._producer.flush, timeout_s)

    def _serving(self, serve: Callable[[float], Any], timeout_s: float) -> None:
        """Serve callbacks; a fatal error comes as an exception, whatever callbacks there are, and is noted."""
        try:
            serve(timeout_s)
        except KafkaException as raised:
            self._ended_by = raised.args[0]  # more telling than what the messages got

    def _rebuild(self) -> None:
        """Take a new producer, and give it all that the ended one did not confirm.

        Raises:
            KafkaFailure: no new producer would fare better, or there were too many.
        """
        # Its queue is purged by the client; what is on the wire may be confirmed yet, and need not be produced again.
        self._flush(LAST_REPORTS_S)
        self._producer.purge()
        self._poll(0)
        error, self._ended_by = self._ended_by, None
        if error.code() in REMEDIES or not self._rebuilds.another():
            raise ended(error)
        self._log.error(
            "the producer ended, a new one takes over",
            action="producer_rebuilt",
            code=error.name(),
            error=error.str(),
            again=len(self._unconfirmed),
        )
        self._metrics.producer_rebuilds.inc()
        self._producer = self._make_producer()
        again, self._unconfirmed = self._unconfirmed, {}
        for message in again:
            message.alone = False  # it travels with neighbours again
            self._produce_again(message)

    # ---- what the broker refused

    def _judge(self, message: Message, error: Any) -> None:
        code = error.code()
        if (instead := elsewhere(self._writer, message, code)) is not None:
            for other in instead:
                self._produce(other)
        elif code in REMEDIES:
            raise KafkaFailure(f"Kafka: {message.topic}: {error.str()}; {REMEDIES[code]}")
        elif code in SIZE:
            self._too_large(message)
        elif code == KafkaError._UNKNOWN_PARTITION and message.partition >= 0:
            message.partition = -1  # the reply still reaches its topic
            self._produce(message)
        else:
            # Timeouts, brokers away, a topic that is not there yet. The outcome may be unknown: a repeated reply is
            # allowed, a missing one is not.
            self._log.warning("reply not delivered", action="delivery_failed", topic=message.topic, code=error.name())
            self._again.append((self._clock() + AGAIN_AFTER_S, message))

    def _too_large(self, message: Message) -> None:
        """The client never splits a batch, so one oversize message fails its neighbours: each is sent alone once."""
        if not message.alone:
            message.alone = True
            self._flush(ALONE_TIMEOUT_S)
            self._produce(message)
            self._flush(ALONE_TIMEOUT_S)
        else:
            for other in self._writer.instead(message):
                self._produce(other)


def elsewhere(writer: Writer, message: Message, code: int) -> list[Message] | None:
    """What is sent in its place where nobody but one client is to blame for what the broker said of a reply."""
    if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        return writer.astray(message, "may not be written to by this worker")
    if code in _NO_TOPIC and writer.lost(message):
        return writer.astray(message, "is not there")
    return None


def ended(error: Any) -> KafkaFailure:
    """What ends the producer, in words that say what to do."""
    remedy = REMEDIES.get(error.code(), "see the brokers' logs, and restart the worker")
    return KafkaFailure(f"Kafka: the producer cannot go on: {error.str()}; {remedy}")
