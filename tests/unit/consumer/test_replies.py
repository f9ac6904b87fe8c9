"""What becomes of outcomes when their producer has a fatal error; a producer that is told what to do stands for it."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

import forebay_schemas as schemas
from forebay_consumer import replies as module
from forebay_consumer.clock import Clock, monotonic
from forebay_consumer.errors import FatalError
from forebay_consumer.failure import Failure
from forebay_consumer.messages import Writer
from forebay_consumer.metrics import Metrics
from forebay_consumer.record import Record, Success
from forebay_consumer.replies import Replies
from forebay_consumer.routes import Routes
from forebay_consumer.send_off import FIRST_PAUSE_S
from support.consumer import ManualClock, make_record
from support.worker import wait_until

SEQUENCE = KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER


class FakeProducer:
    """Takes messages; confirms `confirms` of them, then has a fatal error in the call named `dies_in`.

    Before, it refuses each of `oversize` once, for its size or a neighbour's.

    As librdkafka does: first an exception out of whatever serves callbacks, then reports that all is purged.
    """

    def __init__(
        self,
        confirms: int = 10**6,
        dies_in: str = "",
        code: int = SEQUENCE,
        room: int = 10**6,
        oversize: Iterable[int] = (),
    ) -> None:
        self._oversize = list(oversize)
        self.taken: list[int] = []
        self._waiting: deque[tuple[int, Callable[[Any, Any], None]]] = deque()
        self._confirms = confirms
        self._dies_in = dies_in
        self._code = code
        self._room = room
        self._ended = False
        self._told = False

    def produce(
        self, topic: str, value: bytes, key: str, partition: int, on_delivery: Callable[[Any, Any], None], **_: Any
    ) -> None:
        if self._ended:
            raise KafkaException(KafkaError(KafkaError._FATAL))
        if len(self._waiting) == self._room:
            raise BufferError
        self.taken.append(int(key))
        self._waiting.append((int(key), on_delivery))
        self._die("produce")

    def poll(self, _: float) -> int:
        return self._serve("poll")

    def flush(self, _: float) -> int:
        return self._serve("flush")

    def purge(self) -> None:
        self._ended = True

    def _serve(self, call: str) -> int:
        while self._waiting and self._waiting[0][0] in self._oversize and not self._ended:
            key, report = self._waiting.popleft()
            self._oversize.remove(key)
            report(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), None)
        while self._waiting and self._confirms and not self._ended:
            self._confirms -= 1
            self._waiting.popleft()[1](None, None)
        if self._waiting:
            self._die(call)
        if self._ended and not self._told:
            self._told = True
            raise KafkaException(KafkaError(self._code, fatal=True))
        while self._ended and self._waiting:
            self._waiting.popleft()[1](KafkaError(KafkaError._PURGE_QUEUE), None)
        return 0

    def _die(self, call: str) -> None:
        self._ended = self._ended or (call == self._dies_in and not self._confirms)


class Site:
    """A stage whose producers are given, one after the other."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, producers: Sequence[FakeProducer], clock: Clock = monotonic
    ) -> None:
        waiting = iter(producers)
        monkeypatch.setattr(module, "make_client", lambda *_: next(waiting))
        self.failure = Failure()
        self.done: list[int] = []
        self.gone: list[int] = []
        self.owned = {0}
        self.metrics = Metrics()
        self.replies = Replies(
            {},
            Writer(Routes(["replies"]), None, schemas.Model("m", "1"), {}),
            owns=lambda claim: claim.partition in self.owned,
            done=lambda records: self.done.extend(record.offset for record in records),
            gave_up=lambda records, _: self.gone.extend(record.offset for record in records),
            metrics=self.metrics,
            failure=self.failure,
            clock=clock,
        )

    def publish(self, offsets: Sequence[int]) -> None:
        self.replies.publish([success(make_record(offset)) for offset in offsets])


def success(record: Record) -> Success:
    envelope, _ = schemas.read_request(record)
    return Success(record, schemas.Envelope(str(record.offset)), [envelope.id], {})


@pytest.mark.parametrize(
    ("confirms", "dies_in", "room"),
    [
        pytest.param(0, "poll", 99, id="while reports are served"),
        pytest.param(3, "poll", 99, id="after some were confirmed"),
        pytest.param(0, "produce", 99, id="while messages are handed to it"),
        pytest.param(0, "poll", 4, id="while it has no room"),
    ],
)
def test_what_an_ended_producer_did_not_confirm_is_produced_in_order_by_the_next(
    monkeypatch: pytest.MonkeyPatch, confirms: int, dies_in: str, room: int
) -> None:
    first, second = FakeProducer(confirms, dies_in, room=room), FakeProducer(room=room)
    site = Site(monkeypatch, [first, second])
    with site.replies:
        site.publish(range(10))
        wait_until(lambda: len(site.done) == 10, "all are confirmed", 10)
    assert site.done == list(range(10))
    assert second.taken == list(range(confirms, 10))
    assert not site.failure.happened
    assert site.metrics.producer_rebuilds._value.get() == 1


def test_messages_that_were_to_travel_alone_travel_together_again_and_are_not_taken_for_oversize(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = Site(monkeypatch, [FakeProducer(0, "flush", oversize=[0, 1]), FakeProducer(oversize=[0, 1])])
    with site.replies:
        site.publish([0, 1])
        wait_until(lambda: sorted(site.done) == [0, 1], "both are confirmed", 10)
    assert site.metrics.requests.labels("ok", "")._value.get() == 2


def test_what_was_lost_meanwhile_is_given_up_and_not_produced_again(monkeypatch: pytest.MonkeyPatch) -> None:
    second = FakeProducer()
    site = Site(monkeypatch, [FakeProducer(0, "produce"), second])
    monkeypatch.setattr(site.metrics.producer_rebuilds, "inc", site.owned.clear)
    with site.replies:
        site.publish([0, 1])
        wait_until(lambda: site.gone == [0, 1], "both are given up", 10)
    assert (second.taken, site.done) == ([], [])


@pytest.mark.parametrize(
    ("code", "producers", "remedy"),
    [
        pytest.param(SEQUENCE, module.REBUILDS + 1, "restart the worker", id="again and again"),
        pytest.param(KafkaError.CLUSTER_AUTHORIZATION_FAILED, 1, "grant Write", id="one that no new one would help"),
    ],
)
def test_the_worker_ends_and_is_told_the_remedy_where_a_new_producer_does_not_help(
    monkeypatch: pytest.MonkeyPatch, code: int, producers: int, remedy: str
) -> None:
    site = Site(monkeypatch, [FakeProducer(0, "poll", code) for _ in range(producers)])
    with site.replies:
        site.publish([0, 1])
        assert site.failure.wait(10)
    with pytest.raises(FatalError, match=remedy):
        site.failure.check()
    assert site.done == []


class SlowProducer(FakeProducer):
    """Confirms nothing before it is told to, and counts the flushes."""

    def __init__(self) -> None:
        super().__init__(confirms=0)
        self.flushed: list[int] = []

    def flush(self, timeout_s: float) -> int:
        self.flushed.append(len(self.taken))
        return super().flush(timeout_s)

    def confirm(self, count: int) -> None:
        self._confirms = count


def test_what_the_client_holds_for_company_is_flushed_once_nothing_is_on_the_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    producer = SlowProducer()
    clock = ManualClock()
    site = Site(monkeypatch, [producer], clock)
    with site.replies:
        site.publish([0])
        wait_until(lambda: producer.flushed == [1], "the first goes at once", 10)
        site.publish([1, 2])
        wait_until(lambda: len(producer.taken) == 3, "more are handed to the client", 10)
        assert producer.flushed == [1]
        producer.confirm(1)
        wait_until(lambda: producer.flushed == [1, 3], "the others follow the first's confirmation", 10)
        producer.confirm(2)
        wait_until(lambda: site.done == [0, 1, 2], "all are confirmed", 10)


def test_a_flush_that_nothing_came_of_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    producer = SlowProducer()
    clock = ManualClock()
    site = Site(monkeypatch, [producer], clock)
    with site.replies:
        site.publish([0])
        wait_until(lambda: producer.flushed == [1], "it goes at once", 10)
        clock.advance(FIRST_PAUSE_S)
        wait_until(lambda: producer.flushed == [1, 1], "it goes again", 10)
        producer.confirm(1)
        wait_until(lambda: site.done == [0], "it is confirmed", 10)


class Elsewhere(FakeProducer):
    """Has no topic but those given, or may not write to others, as the client says of each message."""

    def __init__(self, code: int, *topics: str) -> None:
        super().__init__()
        self.sent: list[str] = []
        self._refusal = code
        self._topics = topics

    def produce(
        self, topic: str, value: bytes, key: str, partition: int, on_delivery: Callable[[Any, Any], None], **_: Any
    ) -> None:
        self.sent.append(topic)
        if topic not in self._topics:
            raise KafkaException(KafkaError(self._refusal))
        super().produce(topic, value, key, partition, on_delivery)


@pytest.mark.parametrize(
    "code", [KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED]
)
def test_a_topic_of_a_clients_choice_that_cannot_be_written_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr("forebay_consumer.messages.LOST_AFTER_S", 0.0)
    producer = Elsewhere(code, "replies")
    site = Site(monkeypatch, [producer])
    envelope = schemas.Envelope("0", reply_topic="mine")
    site.replies._writer = Writer(Routes(["replies", "mine"]), None, schemas.Model("m"), {})
    with site.replies:
        site.replies.publish([Success(make_record(0), envelope, ["out"], {})])
        site.publish([1])
        wait_until(lambda: len(site.done) == 2, "both are answered", 10)
    assert producer.sent.count("mine") == 1
    assert not site.failure.happened
