"""Request and reply over Kafka: `submit` gives a future, `request` waits."""

import itertools
import logging
import numbers
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from forebay_producer.config import ClientSettings, load
from forebay_producer.credentials import with_credentials
from forebay_producer.encode import Value, checked_headers, encode, request_id_of
from forebay_producer.errors import (
    BadRequest,
    BadSettings,
    BrokerUnavailable,
    ClientClosed,
    ClientQueueFull,
    ForebayError,
    NotDelivered,
    ReplyTimeout,
    RequestFailed,
)
from forebay_producer.waiting import Question, Waiting, finish
from forebay_schemas import Code, Failure, Result, read_reply
from forebay_schemas import headers as names

CONNECT_WITHIN_S: Final = 5.0
_NO_LEADER_YET: Final = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)
FLUSH_WITHIN_S: Final = 10.0
JOIN_WITHIN_S: Final = 10.0
NEW_PARTITIONS_EVERY_S: Final = 5.0  # well below any sensible timeout: an answer may already wait there
POLL_S: Final = 0.05
FAR_FUTURE_S: Final = 1e11  # a Unix time beyond it is one in milliseconds
SEND_OFF_S: Final = 0.005  # the broker confirms sooner as a rule; a busy core needs some for the flush to be seen

_log = logging.getLogger("forebay_producer")
_log.addHandler(logging.NullHandler())
_librdkafka_log = logging.getLogger("forebay_producer.librdkafka")
# One `kafka` setting serves both clients; librdkafka warns of every key that only the other one knows.
_librdkafka_log.addFilter(lambda record: "CONFWARN" not in record.getMessage())


class Client:
    """Sends requests and matches replies to them. Thread-safe; a context manager.

    Several clients share one reply topic: each reads all its partitions from where they ended at `open`, without a
    consumer group, and picks its own answers by a correlation id that no other client has. An answer that comes twice
    (delivery is at least once) counts once. Every request ends within its timeout.

        with Client(kafka={"bootstrap.servers": "localhost:9092"}) as client:
            print(client.request("What a lovely day").outputs)

    Args:
        settings: made by `load`; or give its fields as keyword arguments.
        config: a YAML file of settings, under the keyword arguments and the environment.
    Raises:
        BadSettings: a setting is unknown or not allowed. Nothing is connected before `open`.
    """

    def __init__(
        self, settings: ClientSettings | None = None, *, config: Path | str | None = None, **fields: Any
    ) -> None:
        if settings is not None and (config is not None or fields):
            raise BadSettings("give settings, or config and fields, not both")
        if settings is not None and not isinstance(settings, ClientSettings):
            raise BadSettings(
                f"settings: expected what forebay_producer.load gives, got a {type(settings).__name__}; "
                "a broker's address goes into kafka={'bootstrap.servers': ...}"
            )
        self._settings = settings or load(config, **fields)
        self._prefix = b""  # drawn by `open`: what is made before a fork would be the same in all children
        self._process = 0
        self._numbers = itertools.count()
        self._waiting = Waiting(self._settings.max_in_flight)
        self._undelivered: SimpleQueue[tuple[bytes, str]] = SimpleQueue()  # filled by delivery reports
        self._lifetime = threading.RLock()  # a signal's handler may close the client that its own thread opens
        self._closed = False
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self._producer: Any = None
        self._consumer: Any = None  # handed to the reply thread, its sole owner, which closes it
        self._partitions: set[int] = set()
        self._trouble = ""
        self._refused = ""
        self._unreadable = ""  # why answers may stay out, said once by librdkafka
        self._ended = ""  # why the producer cannot go on, said once by librdkafka

    # ---- lifetime

    def open(self) -> None:
        """Connect, and find where the reply topic ends, so that no answer can be missed. Open already: no effect.

        Raises:
            BrokerUnavailable: no broker answers within 5 s, or one of the topics cannot be read. May be tried again.
            BadSettings: librdkafka does not take a `kafka` setting, or a secret's file cannot be read.
            ClientClosed: it was closed, or opened in another process; make a new one.
        """
        with self._lifetime:
            if self._closed:
                raise ClientClosed("the client was closed; make a new one")
            self._refused = ""
            if self._producer is None:
                self._connect()
            self._check_process()

    def _connect(self) -> None:
        self._prefix, self._process = uuid.uuid4().bytes[:8], os.getpid()
        self._consumer = _made(Consumer, self._consumer_settings())
        try:
            deadline = time.monotonic() + CONNECT_WITHIN_S
            self._find_topic(self._settings.requests, deadline)
            self._follow_partitions(deadline, from_end=True)
            producer = _made(Producer, self._producer_settings())
            if self._closed:
                raise ClientClosed("the client was closed while it was opened")
        except BaseException:
            self._consumer.close()
            self._partitions = set()
            raise
        self._producer = producer
        self._threads = [
            threading.Thread(target=self._read_replies, name="forebay-replies", daemon=True),
            threading.Thread(target=self._serve_producer, name="forebay-producer", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _check_process(self) -> None:
        if self._process != os.getpid():  # its threads did not come along, so no request would ever end
            raise ClientClosed("the client was opened in another process; make and open one after the fork")

    def close(self) -> None:
        """Send what is queued, at most 10 s, and end. Answers still missing fail with `ClientClosed`. Again: no effect.

        Collect the futures first if you want their answers.
        """
        if self._process not in (0, os.getpid()):
            self._closed = True  # and no more: the parent's threads may have held any lock at the fork
            return
        with self._lifetime:
            was_closed, self._closed = self._closed, True
            producer = self._producer
        self._waiting.close()  # from here on no request is taken
        if was_closed or producer is None:
            return
        with suppress(KafkaException):  # it cannot go on; what it held is told below
            producer.flush(FLUSH_WITHIN_S)
        self._ending.set()
        for thread in self._threads:
            if thread is not threading.current_thread():  # closed by a future's callback
                # A signal's handler that closes may have stopped our caller with a lock that the thread waits for.
                thread.join(JOIN_WITHIN_S)
        for question in self._waiting.rest():
            finish(question, ClientClosed(f"the client was closed before {question.request_id} was answered"))
        self._producer = None  # and with it librdkafka's threads and connections, whoever still holds the client

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # ---- asking

    def submit(
        self,
        value: Value,
        *,
        request_id: str | None = None,
        key: str | bytes | None = None,
        model: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        deadline_s: float | None = None,
        headers: Mapping[str, str | bytes] | None = None,
        content_type: str | None = None,
        timeout_s: float | None = None,
    ) -> "Future[Result]":
        """Send one request.

        Args:
            value: a text (`str`), an encoded image (`bytes`), a JSON body (mapping), or several rows (sequence).
            request_id: 1 to 256 bytes of printable UTF-8; else the `id` of a JSON body, else one of its own. It is the
                reply's key and id. Two requests may have the same one; each gets an answer.
            key: the record's key, for your own partitioning.
            deadline_s: Unix time after which the worker shall not run it any more.
            headers: further ones; those of the contract that the client sets itself win.
            content_type: of a `str` or `bytes` that is to travel as it is; guessed for images otherwise.
            timeout_s: how long to wait for the answer; the settings' `timeout_s` by default.
        Returns:
            A future of the `Result`; it fails with `RequestFailed`, `ReplyTimeout`, `NotDelivered` or
            `ClientClosed`. Its callbacks run on a thread of the client and must not block. Cancelling it
            forgets the request; a worker may still run it.
        Raises:
            BadRequest: the value or an option cannot be sent.
            ClientQueueFull: `max_in_flight` requests stayed unanswered for the whole timeout. Blocks that long at most.
            NotDelivered: the client refuses it, as when it is larger than `message.max.bytes`.
            ClientClosed: it is not open.
        """
        if self._producer is None:
            raise ClientClosed(
                "the client is closed" if self._closed else "the client is not open; use it in a with statement"
            )
        self._check_process()
        # Of the caller's own content type: a text with parameters goes as JSON, and is no body for all that.
        chosen = request_id_of(value, request_id, content_type)
        body, content_type = encode(value, parameters, content_type)
        question = self._question(chosen, timeout_s)
        wire: dict[str, str | bytes] = {
            **checked_headers(headers),
            names.REQUEST_ID: question.request_id,
            names.CORRELATION_ID: question.correlation,
            names.CONTENT_TYPE: content_type,
            names.REPLY_TOPIC: self._settings.replies,
        }
        if model is not None:
            wire[names.MODEL] = model
        if deadline_s is not None:
            wire[names.DEADLINE_MS] = _deadline_ms(deadline_s)
        self._waiting.add(question, patient=self._may_block())
        try:
            self._produce(body, key, wire, question)
        except BaseException:
            self._waiting.take(question.correlation)
            raise
        return question.future

    def request(self, value: Value, **options: Any) -> Result:
        """Send one request and wait for its answer; arguments as `submit`.

        Raises:
            RequestFailed, ReplyTimeout, NotDelivered, BadRequest, ClientQueueFull, ClientClosed: as `submit`.
            RuntimeError: it is called in a future's callback, which would wait for itself.
        """
        if not self._may_block():
            raise RuntimeError("request() in a future's callback would wait for itself; use submit() there")
        future = self.submit(value, **options)
        if (producer := self._producer) is not None:
            self._serve(producer.flush, SEND_OFF_S)  # who waits has nothing more to send: no linger
        return future.result()

    @property
    def unanswered(self) -> int:
        """How many requests wait for an answer now."""
        return len(self._waiting)

    # ---- sending

    def _question(self, request_id: str | None, timeout_s: float | None) -> Question:
        timeout_s = self._settings.timeout_s if timeout_s is None else timeout_s
        if not _is_number(timeout_s) or not 0 < timeout_s <= threading.TIMEOUT_MAX:
            raise BadRequest(f"timeout_s={timeout_s!r:.40}: allowed are seconds above 0; nothing waits for ever")
        correlation = self._prefix + next(self._numbers).to_bytes(8)
        return Question(correlation, request_id or correlation.hex(), timeout_s, time.monotonic() + timeout_s)

    def _may_block(self) -> bool:
        """Not on our own threads, as in a future's callback: they are the ones that make room."""
        return threading.current_thread() not in self._threads

    def _produce(self, body: bytes, key: str | bytes | None, wire: Mapping[str, Any], question: Question) -> None:
        def report(error: KafkaError | None, _: Message) -> None:
            if error is None:
                question.confirmed = True
            else:
                self._undelivered.put((question.correlation, _told(error)))  # acted on outside the callback

        headers = list(wire.items())
        producer = self._producer
        if producer is None:
            raise ClientClosed("the client was closed meanwhile")
        while True:
            try:
                producer.produce(self._settings.requests, value=body, key=key, headers=headers, on_delivery=report)
            except BufferError:
                if time.monotonic() >= question.deadline or not self._may_block():
                    raise ClientQueueFull("librdkafka's queue is full; is the broker reachable? Send slower") from None
                if self._ending.wait(0.01):  # the producer's thread empties it
                    raise ClientClosed("the client was closed meanwhile") from None
            except KafkaException as error:
                raise NotDelivered(f"{self._settings.requests}: {self._ended or _told(error.args[0])}") from error
            except (TypeError, ValueError) as error:  # ValueError: half a surrogate pair in a key or header
                raise BadRequest(f"key or headers: {error}") from None
            else:
                return

    def _serve_producer(self) -> None:
        producer = self._producer
        while not self._ending.is_set():
            self._serve(producer.poll, POLL_S)
            while not self._undelivered.empty():
                correlation, text = self._undelivered.get()
                if question := self._waiting.take(correlation):
                    text = self._ended or text
                    finish(question, NotDelivered(f"the broker did not confirm the request: {text}"))
            for question in self._waiting.expired(time.monotonic()):
                finish(question, _timed_out(question, self._settings, self._unreadable))

    def _serve(self, serve: Callable[[float], object], timeout_s: float) -> None:
        try:
            serve(timeout_s)
        except KafkaException as error:  # said once: nothing can be sent any more, though answers may still come
            self._ended = f"{_told(error.args[0])}; then make a new client"
            _log.error("request topic %s: %s", self._settings.requests, self._ended)

    # ---- answers; the consumer is touched on this thread only

    def _read_replies(self) -> None:
        try:
            self._read_on()
        finally:
            self._consumer.close()
            self._consumer = None  # it holds the client, by its callback

    def _read_on(self) -> None:
        look_again = time.monotonic() + NEW_PARTITIONS_EVERY_S
        while not self._ending.is_set():
            try:
                first = self._consumer.poll(POLL_S)
                if first is not None:
                    for message in (first, *self._consumer.consume(500, 0)):
                        self._take(message)
                if time.monotonic() >= look_again:
                    self._follow_partitions(time.monotonic() + 1, from_end=False)
                    look_again = time.monotonic() + NEW_PARTITIONS_EVERY_S
            except (KafkaException, BrokerUnavailable) as error:
                look_again = time.monotonic() + NEW_PARTITIONS_EVERY_S
                _log.warning("reply topic %s: %s", self._settings.replies, error)
            except Exception:  # of one record: the others' answers are to come all the same
                _log.exception("reply topic %s: a record could not be read", self._settings.replies)

    def _take(self, message: Message) -> None:
        if (error := message.error()) is not None:
            if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                self._unreadable = f"{error.str()}; grant Read on the reply topic {self._settings.replies!r}"
            if error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:  # no group is joined, and none need be allowed
                _log.warning("reply topic %s: %s", self._settings.replies, error)
            return
        self._unreadable = ""
        try:
            correlation = names.last_values(names.of_message(message)).get(names.CORRELATION_ID, b"")
        except SystemError:  # a stranger's header name that is not UTF-8
            return
        # Most replies are other clients': they cost no JSON.
        if not correlation.startswith(self._prefix) or (question := self._waiting.take(correlation)) is None:
            return
        finish(question, _read(message, question))

    # ---- finding topics, on the thread that owns the consumer

    def _find_topic(self, topic: str, deadline: float) -> list[int]:
        servers = self._settings.kafka.get("bootstrap.servers")
        try:
            found = self._consumer.list_topics(topic, timeout=_left(deadline)).topics[topic]
        except KafkaException as error:
            if (message := self._consumer.poll(0)) is not None:  # serves `_on_error`, which knows why
                self._take(message)
            if self._refused:
                raise BrokerUnavailable(
                    f"{servers} does not let us in: {self._refused}; check sasl.* and ssl.* of kafka"
                ) from error
            raise BrokerUnavailable(
                f"no Kafka broker answers at {servers} ({self._trouble or error.args[0].str()}); is it running there? "
                "Give its address as bootstrap.servers"
            ) from error
        if found.error is not None and found.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            right = "Write" if topic == self._settings.requests else "Read"
            raise BrokerUnavailable(f"topic {topic!r} at {servers}: {found.error.str()}; grant {right} on it")
        if found.error is not None:
            raise BrokerUnavailable(f"topic {topic!r} is not there at {servers}: {found.error.str()}; create it first")
        return list(found.partitions)

    def _follow_partitions(self, deadline: float, *, from_end: bool) -> None:
        """Read partitions that are not read yet: from their end at first, from their beginning when added later."""
        topic = self._settings.replies
        fresh = []
        for partition in self._find_topic(topic, deadline):
            if partition not in self._partitions:
                wanted = TopicPartition(topic, partition)
                first, end = self._bounds(wanted, deadline)
                fresh.append(TopicPartition(topic, partition, end if from_end else first))
        if fresh:
            self._consumer.incremental_assign(fresh)
            self._partitions |= {partition.partition for partition in fresh}

    def _bounds(self, partition: TopicPartition, deadline: float) -> tuple[int, int]:
        """First and end offset. A partition that was made a moment ago has no leader yet: asked again until then."""
        while True:
            try:
                first, end = self._consumer.get_watermark_offsets(partition, timeout=_left(deadline))
                return int(first), int(end)
            except KafkaException as error:
                text = error.args[0].str()
                if error.args[0].code() not in _NO_LEADER_YET or time.monotonic() >= deadline:
                    raise BrokerUnavailable(
                        f"{partition.topic} [{partition.partition}] cannot be read: {text}"
                    ) from error
                self._ending.wait(0.05)

    # ---- settings of the two Kafka clients; what PROMISED names stands last

    def _consumer_settings(self) -> dict[str, Any]:
        return {
            "log_level": 4,
            "fetch.wait.max.ms": 100,
            **self._settings.kafka,
            "enable.auto.commit": False,
            # Should the log be cut under us: answers read twice count once, answers jumped over would be missed.
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "group.id": f"forebay-client-{self._prefix.hex()}",  # the client wants one; no group is joined
            "error_cb": self._on_error,
        }

    def _producer_settings(self) -> dict[str, Any]:
        return {
            "log_level": 4,
            "linger.ms": 2,
            # Before the answer's timeout, so that the caller learns which of the two ways was blocked.
            "delivery.timeout.ms": round(1000 * min(30.0, max(1.0, 0.8 * self._settings.timeout_s))),
            "partitioner": "murmur2_random",
            **self._settings.kafka,
            "enable.idempotence": True,
            "acks": "all",
        }

    def _on_error(self, error: KafkaError) -> None:
        if error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL):
            self._refused = error.str()
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # that one does not say why
            self._trouble = error.str()


def _made(kind: Any, settings: Mapping[str, Any]) -> Any:
    try:
        return kind(with_credentials(settings), logger=_librdkafka_log)
    except KafkaException as error:
        raise BadSettings(f"kafka: {error.args[0].str()}") from None
    except (TypeError, ValueError) as error:
        raise BadSettings(f"kafka: {error}") from None


def _told(error: KafkaError) -> str:
    """An error with what to do, where it is a right that is missing."""
    refused = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)
    return f"{error.str()}{'; grant Write on the request topic' if error.code() in refused else ''}"


def _left(deadline: float) -> float:
    return max(0.1, deadline - time.monotonic())


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _deadline_ms(deadline_s: float) -> str:
    if not (_is_number(deadline_s) and 0 <= deadline_s < FAR_FUTURE_S):
        raise BadRequest(f"deadline_s={deadline_s!r:.40}: expected a Unix time in seconds, as of time.time()")
    return str(round(deadline_s * 1000))


def _timed_out(question: Question, settings: ClientSettings, unreadable: str) -> ReplyTimeout:
    waited = f"no answer within {question.timeout_s:g} s"
    if unreadable:
        return ReplyTimeout(f"{waited}: {unreadable}")
    if question.confirmed:
        return ReplyTimeout(
            f"{waited}; does a worker read {settings.requests!r}, and do its topics.replies list {settings.replies!r}?"
        )
    return ReplyTimeout(f"{waited}; the broker has not confirmed the request either")


def _read(message: Message, question: Question) -> Result | ForebayError:
    try:
        reply = read_reply(message.key(), message.value(), names.of_message(message))
    except Exception as error:  # a stranger may write what he likes: whoever asked is to hear of it
        return RequestFailed(Failure(question.request_id, Code.INTERNAL, f"{error}" or type(error).__name__))
    return RequestFailed(reply) if isinstance(reply, Failure) else reply
