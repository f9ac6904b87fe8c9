"""Request and reply over Kafka: `submit` gives a future, `request` waits."""

import heapq
import itertools
import logging
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import Future, InvalidStateError
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

from forebay_producer.config import ClientSettings, load
from forebay_producer.encode import Value, encode
from forebay_producer.errors import (
    BrokerUnavailable,
    ClientClosed,
    ForebayError,
    NotDelivered,
    QueueFull,
    ReplyTimeout,
    RequestFailed,
)
from forebay_schemas import Failure, Result, read_reply
from forebay_schemas import headers as names

CONNECT_WITHIN_S: Final = 5.0
NEW_PARTITIONS_EVERY_S: Final = 30.0
POLL_S: Final = 0.05

_log = logging.getLogger("forebay_producer")
_log.addHandler(logging.NullHandler())


class Client:
    """Sends requests and matches replies to them. Thread-safe; a context manager.

    Several clients share one reply topic: each reads all its partitions from where they ended at `open`, without a
    consumer group, and picks its own answers by a correlation id that no other client has. An answer that comes twice
    (delivery is at least once) counts once.

        with Client(kafka={"bootstrap.servers": "localhost:9092"}) as client:
            print(client.request("What a lovely day").outputs)

    Args:
        settings: made by `load`; or give its fields as keyword arguments.
    """

    def __init__(self, settings: ClientSettings | None = None, *, config: Path | None = None, **fields: Any) -> None:
        self._settings = settings or load(config, **fields)
        self._prefix = uuid.uuid4().bytes[:8]
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._waiting: dict[bytes, tuple[str, Future[Result]]] = {}
        self._deadlines: list[tuple[float, bytes, float]] = []
        self._undelivered: list[tuple[bytes, str]] = []
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._producer: Any = None
        self._consumer: Any = None
        self._partitions: set[int] = set()

    def open(self) -> None:
        """Connect, and find where the reply topic ends, so that no answer can be missed.

        Raises:
            BrokerUnavailable: no broker answers within 5 s, or one of the topics does not exist.
        """
        kafka = {"log_level": 4, **self._settings.kafka}
        self._consumer = Consumer(
            {
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 100,
                # assign() needs a name, but no group is joined and nothing is committed.
                "group.id": f"forebay-client-{self._prefix.hex()}",
                **kafka,
            },
            logger=_log,
        )
        self._partitions = set()
        try:
            self._find_topic(self._settings.requests)
            self._follow_partitions(from_end=True)
        except BaseException:
            self._consumer.close()
            raise
        self._producer = Producer(
            {
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 2,
                "delivery.timeout.ms": 30_000,
                "partitioner": "murmur2_random",
                **kafka,
            },
            logger=_log,
        )
        self._threads = [
            threading.Thread(target=self._read_replies, name="forebay-replies", daemon=True),
            threading.Thread(target=self._serve_producer, name="forebay-producer", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Send what is queued, and end; answers still missing fail with `ClientClosed`. Again has no effect."""
        if self._closing.is_set() or self._producer is None:
            return
        self._producer.flush(10)
        self._closing.set()
        for thread in self._threads:
            thread.join()
        self._consumer.close()
        with self._lock:
            left, self._waiting = list(self._waiting.values()), {}
        for id_, future in left:
            _fail(future, ClientClosed(f"the client was closed before {id_} was answered"))

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

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
        timeout_s: float | None = None,
    ) -> "Future[Result]":
        """Send one request.

        Args:
            value: a text (`str`), an encoded image (`bytes`), a JSON body (mapping), or several rows (sequence).
            request_id: 1 to 256 bytes of printable UTF-8; one of its own by default. Comes back as the reply's id.
            key: the record's key, for your own partitioning.
            deadline_s: Unix time after which the worker shall not run it any more.
            timeout_s: how long to wait for the answer; the settings' `timeout_s` by default.
        Returns:
            A future of the `Result`; it fails with `RequestFailed`, `ReplyTimeout`, `NotDelivered` or
            `ClientClosed`. Its callbacks run on a thread of the client and must not block.
        Raises:
            QueueFull: the client's queue stayed full for the whole timeout.
            ClientClosed: it is not open.
            TypeError: the value cannot be sent.
        """
        if self._producer is None or self._closing.is_set():
            raise ClientClosed("the client is not open; use it in a with statement")
        body, content_type = encode(value, parameters)
        timeout_s = self._settings.timeout_s if timeout_s is None else timeout_s
        correlation = self._prefix + next(self._numbers).to_bytes(8)
        id_ = request_id or correlation.hex()
        wire: dict[str, str | bytes] = {
            **(headers or {}),
            names.REQUEST_ID: id_,
            names.CORRELATION_ID: correlation,
            names.CONTENT_TYPE: content_type,
            names.REPLY_TOPIC: self._settings.replies,
        }
        if model is not None:
            wire[names.MODEL] = model
        if deadline_s is not None:
            wire[names.DEADLINE_MS] = str(round(deadline_s * 1000))
        future: Future[Result] = Future()
        deadline = time.monotonic() + timeout_s
        with self._lock:
            self._waiting[correlation] = id_, future
            heapq.heappush(self._deadlines, (deadline, correlation, timeout_s))
        try:
            self._produce(body, key, wire, correlation, deadline)
        except BaseException:
            self._forget(correlation)
            raise
        return future

    def request(self, value: Value, **options: Any) -> Result:
        """Send one request and wait for its answer; arguments as `submit`.

        Raises:
            RequestFailed, ReplyTimeout, NotDelivered, QueueFull, ClientClosed, TypeError: as `submit`.
        """
        return self.submit(value, **options).result()

    # ---- sending

    def _produce(
        self, body: bytes, key: str | bytes | None, wire: Mapping[str, Any], correlation: bytes, deadline: float
    ) -> None:
        def report(error: Any, _: Any) -> None:
            if error is not None:
                self._undelivered.append((correlation, error.str()))  # acted on outside the client's callback

        while True:
            try:
                self._producer.produce(
                    self._settings.requests, value=body, key=key, headers=list(wire.items()), on_delivery=report
                )
            except BufferError:
                if time.monotonic() >= deadline:
                    raise QueueFull("the client's queue stayed full; send slower, or wait for answers") from None
                self._closing.wait(0.01)  # the producer's thread empties it
            except KafkaException as error:
                raise NotDelivered(f"{self._settings.requests}: {error.args[0].str()}") from error
            else:
                return

    def _serve_producer(self) -> None:
        while not self._closing.is_set():
            self._producer.poll(POLL_S)
            if self._undelivered:
                failed, self._undelivered = self._undelivered, []
                for correlation, text in failed:
                    self._finish(correlation, NotDelivered(f"the broker did not confirm the request: {text}"))

    # ---- answers; the consumer is touched on this thread only

    def _read_replies(self) -> None:
        look_again = time.monotonic() + NEW_PARTITIONS_EVERY_S
        while not self._closing.is_set():
            try:
                first = self._consumer.poll(POLL_S)
                if first is not None:
                    for message in (first, *self._consumer.consume(500, 0)):
                        self._take(message)
                if time.monotonic() >= look_again:
                    look_again = time.monotonic() + NEW_PARTITIONS_EVERY_S
                    self._follow_partitions(from_end=False)
            except (KafkaException, BrokerUnavailable) as error:
                _log.warning("reply topic: %s", error)
            self._expire()

    def _take(self, message: Message) -> None:
        if message.error() is not None:
            _log.warning("reply topic: %s", message.error())
            return
        try:
            found = names.last_values(message.headers())
        except SystemError:  # a stranger's header name that is not UTF-8
            return
        correlation = found.get(names.CORRELATION_ID, b"")
        if not correlation.startswith(self._prefix):
            return
        try:
            reply = read_reply(message.key(), message.value(), message.headers())
        except ValueError as error:
            _log.warning("unreadable reply: %s", error)
            return
        self._finish(correlation, RequestFailed(reply) if isinstance(reply, Failure) else reply)

    def _expire(self) -> None:
        now = time.monotonic()
        late: list[tuple[bytes, float]] = []
        with self._lock:
            while self._deadlines and self._deadlines[0][0] <= now:
                _, correlation, timeout_s = heapq.heappop(self._deadlines)
                if correlation in self._waiting:
                    late.append((correlation, timeout_s))
        for correlation, timeout_s in late:
            self._finish(correlation, ReplyTimeout(f"no answer within {timeout_s:g} s; is a worker running?"))

    def _finish(self, correlation: bytes, outcome: Result | ForebayError) -> None:
        waiting = self._forget(correlation)
        if waiting is None:  # answered before, or given up
            return
        _, future = waiting
        if isinstance(outcome, ForebayError):
            _fail(future, outcome)
        else:
            try:
                future.set_result(outcome)
            except InvalidStateError:  # cancelled in the meantime
                return

    def _forget(self, correlation: bytes) -> tuple[str, "Future[Result]"] | None:
        with self._lock:
            return self._waiting.pop(correlation, None)

    def _find_topic(self, topic: str) -> list[int]:
        servers = self._settings.kafka.get("bootstrap.servers")
        try:
            found = self._consumer.list_topics(topic, timeout=CONNECT_WITHIN_S).topics[topic]
        except KafkaException as error:
            raise BrokerUnavailable(
                f"no Kafka broker answers at {servers} ({error.args[0].str()}); is it running at this address?"
            ) from error
        if found.error is not None:
            raise BrokerUnavailable(f"topic {topic!r} is not there at {servers}: {found.error.str()}; create it first")
        return list(found.partitions)

    def _follow_partitions(self, *, from_end: bool) -> None:
        """Read partitions that are not read yet: from their end at first, from their beginning when added later."""
        topic = self._settings.replies
        fresh = []
        for partition in self._find_topic(topic):
            if partition not in self._partitions:
                ends = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=CONNECT_WITHIN_S)
                fresh.append(TopicPartition(topic, partition, ends[1] if from_end else ends[0]))
        if fresh:
            self._partitions |= {partition.partition for partition in fresh}
            self._consumer.incremental_assign(fresh)


def _fail(future: "Future[Result]", error: ForebayError) -> None:
    try:
        future.set_exception(error)
    except InvalidStateError:  # cancelled in the meantime
        return
