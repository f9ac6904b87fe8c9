"""The intake's errors: whichever way the client tells of its end, the worker's last word names the remedy."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from forebay_consumer.errors import FatalError
from forebay_consumer.flow import Room
from forebay_consumer.intake import group as module
from forebay_consumer.intake.base import Start
from forebay_consumer.intake.group import GroupIntake
from forebay_consumer.progress import Progress, encode
from support.consumer import ManualClock

FENCED = KafkaError(KafkaError.FENCED_INSTANCE_ID, fatal=True)
# As a consumer's poll gives it: that it is fatal is the code, what it is about is in the text.
FENCED_RECORD = KafkaError(
    KafkaError._FATAL, f"Fatal error: {KafkaError(KafkaError.FENCED_INSTANCE_ID).str()}: so it is"
)
ENDED = KafkaError(KafkaError._FATAL, fatal=True)
AWAY = KafkaError(KafkaError._TIMED_OUT)
NO_GROUP = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)
NO_TOPIC = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)


class FakeMessage:
    def __init__(self, error: KafkaError) -> None:
        self._error = error

    def error(self) -> KafkaError:
        return self._error


class FakeRecord:
    """A lone request, written long ago."""

    def __getattr__(self, name: str) -> Callable[[], Any]:
        told = {"topic": "requests", "partition": 0, "offset": 5, "value": b"text", "timestamp": (1, 1_000)}
        return lambda: told.get(name)


class FakePosition:
    """One whose committed offset the broker refused to tell."""

    topic, partition, offset, error = "requests", 0, -1001, NO_TOPIC


class FakeConsumer:
    """Its first poll assigns a partition; `gives` says what each call then does, where that is not the usual."""

    def __init__(self, **gives: Callable[[], Any]) -> None:
        self._gives = gives
        self._on_assign: Any = None
        self._assigned = False

    def subscribe(self, topics: list[str], *, on_assign: Any, **_: Any) -> None:
        self._on_assign = on_assign

    def poll(self, _: float) -> Any:
        if not self._assigned:
            self._assigned = True
            self._on_assign(self, [TopicPartition("requests", 0)])
            return None
        return self._give("poll", None)

    def consume(self, *_: Any) -> Any:
        return self._give("consume", [])

    def committed(self, partitions: list[TopicPartition], **_: Any) -> Any:
        return self._give("committed", [TopicPartition("requests", 0, 5)])

    def get_watermark_offsets(self, *_: Any, **__: Any) -> Any:
        return self._give("bounds", (0, 9))

    def memberid(self) -> str | None:
        return None

    def position(self, _: Any) -> Any:
        return self._give("position", [])

    def pause(self, _: Any) -> None:
        self._give("pause", None)

    def resume(self, _: Any) -> None:
        self._give("resume", None)

    def list_topics(self, *_: Any, **__: Any) -> Any:
        return self._give("topics", None)

    def incremental_unassign(self, _: Any) -> None:
        pass

    def incremental_assign(self, _: Any) -> None:
        self._give("assign", None)

    def _give(self, call: str, usual: Any) -> Any:
        return self._gives.get(call, lambda: usual)()


def raising(error: KafkaError) -> Callable[[], Any]:
    def call() -> Any:
        raise KafkaException(error)

    return call


class Nobody:
    """Listens to nothing."""

    def __getattr__(self, _: str) -> Callable[..., Any]:
        return lambda *_: {}


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits here between two answers."""
    monkeypatch.setattr(module, "SETTLE_STEPS", 0)


def opened(monkeypatch: pytest.MonkeyPatch, consumer: FakeConsumer) -> GroupIntake:
    monkeypatch.setattr(module, "make_client", lambda *_: consumer)
    intake = GroupIntake({"group.id": "mine"}, ["requests"], "earliest", Nobody(), 1)
    intake.open()
    return intake


@pytest.mark.parametrize(
    ("consumer", "remedy"),
    [
        pytest.param(FakeConsumer(poll=raising(FENCED)), "its own group.instance.id", id="poll raises"),
        pytest.param(FakeConsumer(poll=lambda: FakeMessage(FENCED_RECORD)), "its own group.instance.id", id="a record"),
        pytest.param(
            FakeConsumer(poll=lambda: FakeMessage(KafkaError(KafkaError._FATAL, "Fatal error: else"))),
            "restart the worker",
            id="a record, about something else",
        ),
        pytest.param(
            FakeConsumer(poll=lambda: FakeMessage(KafkaError(KafkaError._TRANSPORT)), consume=raising(FENCED)),
            "its own group.instance.id",
            id="consume raises",
        ),
        pytest.param(FakeConsumer(position=raising(FENCED)), "its own group.instance.id", id="position raises"),
        pytest.param(FakeConsumer(pause=raising(FENCED)), "its own group.instance.id", id="pause raises"),
        pytest.param(FakeConsumer(assign=raising(FENCED)), "its own group.instance.id", id="assign raises"),
        pytest.param(FakeConsumer(committed=raising(NO_GROUP)), "grant Read on the group mine", id="no group"),
        pytest.param(FakeConsumer(committed=raising(ENDED)), "restart the worker", id="the client's end"),
        pytest.param(
            FakeConsumer(committed=lambda: [FakePosition()]),
            "grant Read on the request topics requests",
            id="no offset of one partition",
        ),
        pytest.param(
            FakeConsumer(committed=lambda: [TopicPartition("requests", 0)], bounds=raising(NO_TOPIC)),
            "grant Read on the request topics requests",
            id="no bounds",
        ),
    ],
)
def test_the_clients_end_is_the_workers_and_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch, consumer: FakeConsumer, remedy: str
) -> None:
    monkeypatch.setattr(module, "ASK_AGAIN_S", math.nan)  # no sleep takes it: nothing of this is asked again
    intake = opened(monkeypatch, consumer)

    def turns() -> None:
        for _ in range(2):
            intake.poll(Room(10, 10**6))
        intake.serve()

    with pytest.raises(FatalError, match=remedy):
        turns()


@pytest.mark.parametrize(
    ("code", "transactional", "remedy"),
    [
        pytest.param(KafkaError._TIMED_OUT, True, "a transaction that nobody ends may hold them", id="held"),
        pytest.param(KafkaError._TIMED_OUT, False, "restart the worker", id="no transactions"),
        pytest.param(KafkaError._TRANSPORT, True, "restart the worker", id="no broker"),
        pytest.param(KafkaError.GROUP_AUTHORIZATION_FAILED, True, "grant Read on the group mine", id="not allowed"),
    ],
)
def test_a_transaction_is_blamed_only_for_offsets_that_a_broker_does_not_tell(
    code: int, transactional: bool, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "make_client", lambda *_: FakeConsumer(committed=raising(KafkaError(code))))
    now = iter(range(0, 10**6, 1000))
    intake = GroupIntake(
        {"group.id": "mine"},
        ["requests"],
        "earliest",
        Nobody(),
        1,
        transactional=transactional,
        clock=lambda: next(now),
    )
    intake.open()
    with pytest.raises(FatalError, match=f"^Kafka: the group's offsets cannot be read: .*; {remedy}"):
        intake.poll(Room(1, 1))


@pytest.mark.parametrize("call", ["committed", "bounds"])
def test_what_a_broker_cannot_tell_yet_at_an_assignment_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(module, "ASK_AGAIN_S", 0.0)
    answers = {"committed": [TopicPartition("requests", 0)], "bounds": (0, 9)}
    client = [KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._UNKNOWN_PARTITION, KafkaError._DESTROY_BROKER]
    errors = iter([*client, KafkaError.NOT_COORDINATOR])

    def away() -> Any:
        if (code := next(errors, None)) is not None:
            raise KafkaException(KafkaError(code))
        return answers[call]

    gives = {"committed": lambda: answers["committed"], call: away}
    intake = opened(monkeypatch, FakeConsumer(**gives))
    intake.poll(Room(10, 10**6))
    assert intake.snapshot.joined
    assert next(errors, None) is None


OLD, NONE, TRUE = (TopicPartition("requests", 0, offset) for offset in (2, -1001, 5))


@pytest.mark.parametrize(
    ("trouble", "answers"),
    [
        pytest.param("asked in vain", [NONE, TRUE, TRUE], id="asked in vain"),
        pytest.param("told late", [NONE, OLD, TRUE, TRUE], id="told late"),
        pytest.param("lost", [OLD, TRUE, TRUE], id="lost"),
        pytest.param("down", [NONE, TRUE, TRUE], id="down for long"),
        pytest.param("lost", [NONE, NONE], id="a group that has none"),
        pytest.param("", [NONE], id="no trouble"),
    ],
)
def test_after_trouble_with_the_broker_a_groups_offsets_are_those_it_tells_twice(
    trouble: str, answers: list[TopicPartition], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coordinator may answer before it has read its log: then without the offsets, or with old ones."""
    monkeypatch.setattr(module, "ASK_AGAIN_S", 0.0)
    clock, left = ManualClock(100.0), list(answers)
    vain = trouble == "asked in vain"

    def committed() -> list[TopicPartition]:
        nonlocal vain
        if vain:
            vain = False
            clock.advance(module.AT_ONCE_S)
            raise KafkaException(AWAY)
        if trouble == "told late" and len(left) == len(answers):
            clock.advance(module.AT_ONCE_S)
        return [left.pop(0)]

    consumer = Noting(committed=committed)
    monkeypatch.setattr(module, "make_client", lambda *_: consumer)
    intake = GroupIntake({"group.id": "mine"}, ["requests"], "earliest", Nobody(), 1, clock=clock)
    intake.open()
    if trouble == "lost":
        intake._on_lost(consumer, [TopicPartition("requests", 3)])
    elif trouble == "down":
        intake._client_error(KafkaError(KafkaError._ALL_BROKERS_DOWN))
        clock.advance(10.0)
    intake.poll(Room(1, 1))
    assert left == []
    assert [said for said in consumer.said if said[0] == "assign"] == [("assign", 0, max(0, answers[-1].offset))]


class Noting(FakeConsumer):
    """Notes what the client is told of a partition."""

    def __init__(self, **gives: Callable[[], Any]) -> None:
        super().__init__(**gives)
        self.said: list[Any] = []

    def incremental_assign(self, places: list[TopicPartition]) -> None:
        self.said += [("assign", place.partition, place.offset) for place in places]

    def pause(self, places: list[TopicPartition]) -> None:
        self.said += [("pause", place.partition) for place in places]

    def incremental_unassign(self, places: list[TopicPartition]) -> None:
        self.said += [("unassign", place.partition) for place in places]

    def commit(self, **_: Any) -> None:
        self.said.append("commit")


def test_who_is_to_end_waits_for_no_second_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE_STEPS", 10**6)
    leaving: list[bool] = []

    def committed() -> list[TopicPartition]:
        assert not leaving, "asked again"
        leaving.append(True)
        return [TRUE]

    consumer = Noting(committed=committed)
    monkeypatch.setattr(module, "make_client", lambda *_: consumer)
    intake = GroupIntake({"group.id": "mine"}, ["requests"], "earliest", Nobody(), 1, leaving=lambda: bool(leaving))
    intake.open()
    intake._lost_at = intake._clock()
    intake.serve()
    assert consumer.said == [("assign", 0, OFFSET_END), ("pause", 0)]


@pytest.mark.parametrize("asked", ["before", "committed", "bounds"])
def test_who_is_to_end_waits_no_more_for_where_an_assignment_begins(
    asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client has the partition all the same, unread, to give it back; nobody else ever hears of it."""
    monkeypatch.setattr(module, "ASK_AGAIN_S", 0.0)
    leaving = [True] if asked == "before" else []
    looks: list[str] = []
    told: list[str] = []

    def look(call: str, usual: Any) -> Any:
        assert call not in looks, "asked again"
        looks.append(call)
        if call == asked:
            leaving.append(True)
            raise KafkaException(AWAY)
        return usual

    class Told:
        def __getattr__(self, name: str) -> Callable[..., Any]:
            def noted(*_: Any) -> Any:
                told.append(name)
                return {}

            return noted

    consumer = Noting(
        committed=lambda: look("committed", [TopicPartition("requests", 0)]), bounds=lambda: look("bounds", (0, 9))
    )
    monkeypatch.setattr(module, "make_client", lambda *_: consumer)
    intake = GroupIntake({"group.id": "mine"}, ["requests"], "earliest", Told(), 1, leaving=lambda: bool(leaving))
    intake.open()
    intake.serve()
    assert looks == {"before": [], "committed": ["committed"], "bounds": ["committed", "bounds"]}[asked]
    assert intake.snapshot.assigned == 0
    intake._on_revoke(consumer, [TopicPartition("requests", 0)])  # as `close` does
    assert consumer.said == [("assign", 0, OFFSET_END), ("pause", 0), ("unassign", 0)]
    assert told == []


def test_no_question_at_an_assignment_outlasts_a_stop_by_long(monkeypatch: pytest.MonkeyPatch) -> None:
    timeouts: list[float] = []

    class Timed(FakeConsumer):
        def committed(self, partitions: list[TopicPartition], **given: Any) -> Any:
            timeouts.append(given["timeout"])
            return [TopicPartition("requests", 0)]

        def get_watermark_offsets(self, *_: Any, timeout: float = 0.0, cached: bool = False) -> Any:
            if not cached:
                timeouts.append(timeout)
            return 0, 9

    opened(monkeypatch, Timed()).poll(Room(1, 1))
    assert timeouts == [module.ASK_WITHIN_S] * 2
    assert module.ASK_WITHIN_S <= 5.0


def test_what_was_assigned_is_fetched_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's thread for the leader may sleep for a second; what asks the leader something wakes it."""
    asked: list[str] = []

    def bounds() -> tuple[int, int]:
        asked.append("bounds")
        return 0, 9

    intake = opened(monkeypatch, FakeConsumer(resume=lambda: asked.append("resume"), bounds=bounds))
    intake.poll(Room(1, 1))
    asked.clear()
    intake.read_only(None)  # they are paused from their assignment on
    intake.read_only([])
    intake.read_only(None)
    assert asked == ["resume", "bounds", "resume", "resume"], "once"


def test_a_leader_that_is_away_is_no_reason_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(0, 9)]
    intake = opened(monkeypatch, FakeConsumer(bounds=lambda: answers[0] if answers else raising(AWAY)()))
    intake.poll(Room(1, 1))
    answers.clear()
    intake.read_only(None)


def test_who_we_are_in_the_group_is_known_before_the_offsets_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be held for long; meanwhile the transactions of other partitions need the new generation."""
    known: list[Any] = []

    class Member(FakeConsumer):
        def memberid(self) -> str:
            return "member"

        def consumer_group_metadata(self) -> str:
            return "new generation"

    def committed() -> list[TopicPartition]:
        known.append(intake.group_metadata)
        return [TopicPartition("requests", 0, 5)]

    monkeypatch.setattr(module, "make_client", lambda *_: Member(committed=committed))
    intake = GroupIntake({"group.id": "mine"}, ["requests"], "earliest", Nobody(), 1, transactional=True)
    intake.open()
    intake.poll(Room(1, 1))
    assert known == ["new generation"]


def test_a_partition_of_which_nothing_was_delivered_yet_is_shown_with_its_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client knows no position before: a worker that restarts in a quiet hour has its partitions all the same."""
    intake = opened(monkeypatch, FakeConsumer())
    intake.poll(Room(1, 1))
    intake.poll(Room(1, 1))
    assert intake.snapshot.assigned == 1
    assert [*intake.snapshot.lag.values()] == [4]


@pytest.mark.parametrize(
    ("cut_off", "since_s", "outage"),
    [
        pytest.param("", 0, False, id="never"),
        pytest.param("lost", 15, True, id="lost"),
        pytest.param("lost", 25, False, id="lost long ago"),
        pytest.param("down", 1, False, id="a blip"),
        pytest.param("down", 5, True, id="no broker"),
    ],
)
def test_an_assignment_soon_after_an_outage_is_told_as_such(
    cut_off: str, since_s: float, outage: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within two sessions of 10 s; one that breaks no connection shows only in what is lost."""
    told: list[Start] = []
    open_ = TopicPartition("requests", 0, 5, "fb1 open +3 trial +0x1")
    consumer = FakeConsumer(committed=lambda: [open_])
    monkeypatch.setattr(module, "make_client", lambda *_: consumer)
    clock, listener = ManualClock(100.0), Nobody()
    monkeypatch.setattr(listener, "assigned", lambda starts: told.extend(starts.values()), raising=False)
    intake = GroupIntake({"group.id": "mine"}, ["requests"], "earliest", listener, 1, clock=clock)
    intake.open()
    if cut_off == "lost":
        intake._on_lost(consumer, [TopicPartition("requests", 3)])
    elif cut_off == "down":
        intake._client_error(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    clock.advance(since_s)
    intake.poll(Room(1, 1))
    assert [start.outage for start in told] == [outage]


def test_a_client_that_does_not_come_back_after_a_loss_is_unready_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer, clock = FakeConsumer(), ManualClock(100.0)
    monkeypatch.setattr(module, "make_client", lambda *_: consumer)
    intake = GroupIntake({"group.id": "mine"}, ["requests"], "earliest", Nobody(), 1, clock=clock)
    intake.open()

    def joined() -> bool:
        intake.poll(Room(1, 1))
        return intake.snapshot.joined

    assert joined()
    intake._on_lost(consumer, [TopicPartition("requests", 0)])
    clock.advance(intake.max_poll_s)
    intake._reachable.up = False
    monkeypatch.setattr(intake._reachable, "ask", lambda _: None)
    assert not joined()
    intake._reachable.up = True
    clock.advance(intake.max_poll_s + module.REJOIN_SPARE_S)
    intake.poll(Room(1, 1))
    clock.advance(1)
    with pytest.raises(FatalError, match="for 331 s the group 'mine' has given none, though brokers answer; restart"):
        intake.poll(Room(1, 1))


def test_who_gets_partitions_back_after_a_loss_is_ready_again(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer, clock = FakeConsumer(), ManualClock(100.0)
    monkeypatch.setattr(module, "make_client", lambda *_: consumer)
    intake = GroupIntake({"group.id": "mine"}, ["requests"], "earliest", Nobody(), 1, clock=clock)
    intake.open()
    intake.poll(Room(1, 1))
    intake._on_lost(consumer, [TopicPartition("requests", 0)])
    intake._on_assign(consumer, [])  # there are more workers than partitions
    clock.advance(10 * intake.max_poll_s)
    intake.poll(Room(1, 1))
    assert intake.snapshot.joined


def test_the_prefetch_is_never_more_than_the_client_takes() -> None:
    intake = GroupIntake({"group.id": "mine"}, ["requests"], "earliest", Nobody(), 2**40)
    Consumer({**intake._settings, "bootstrap.servers": "127.0.0.1:1", "log_level": 0}).close()


def test_the_linger_of_a_partitions_first_delivery_begins_with_its_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as lag until it is delivered, and was alone all the same: its own time is no time that it waited."""
    given = iter([None, FakeRecord()])
    intake = opened(monkeypatch, FakeConsumer(bounds=lambda: (0, 6), poll=lambda: next(given)))
    for _ in range(2):
        assert intake.poll(Room(10, 10**6)) == []
    assert [*intake.snapshot.lag.values()] == [1]
    (record,) = intake.poll(Room(10, 10**6))
    assert record.queue_s is not None
    assert record.since_s > 0 > record.since_s - record.queue_s


class Fresh(Noting):
    """A group without offsets, which is assigned a partition that was added."""

    def poll(self, _: float) -> Any:
        if self._on_assign is not None and not self._assigned:
            self._assigned = True
            self._on_assign(self, [TopicPartition("requests", 7)])

    def committed(self, partitions: list[TopicPartition], **_: Any) -> Any:
        return [TopicPartition(each.topic, each.partition) for each in partitions]


@pytest.mark.parametrize("start", ["latest", "fail"])
def test_nothing_is_assigned_before_it_is_known_what_was_there_at_the_start(
    start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a partition that is added later would pass for one that was there, and be read from its end."""
    answers = [AWAY, AWAY, None]

    def topics() -> Any:
        if (error := answers.pop(0)) is not None:
            raise KafkaException(error)
        return SimpleNamespace(topics={"requests": SimpleNamespace(partitions={0: None})})

    consumer = Fresh(topics=topics)
    monkeypatch.setattr(module, "make_client", lambda *_: consumer)
    intake = GroupIntake({"group.id": "mine"}, ["requests"], start, Nobody(), 1)
    intake.open()
    assert intake.poll(Room(1, 1)) == []
    assert consumer.said == []
    intake.poll(Room(1, 1))
    assert ("assign", 7, 0) in consumer.said


class Slow(Noting):
    """Each question takes so long on the clock, and has no answer at first."""

    def __init__(self, clock: ManualClock, seconds: float, answers_after: int) -> None:
        super().__init__()
        self._clock, self._seconds, self._left = clock, seconds, answers_after

    def committed(self, *_: Any, **__: Any) -> Any:
        self._clock.advance(self._seconds)
        self._left -= 1
        if self._left >= 0:
            raise KafkaException(AWAY)
        return [TopicPartition("requests", 0, 5, encode(Progress(hi=9, open=True), 5))]

    def get_watermark_offsets(self, *_: Any, **__: Any) -> Any:
        self._clock.advance(self._seconds)
        raise KafkaException(AWAY)


def test_an_outage_before_the_offsets_were_asked_for_counts_however_long_that_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starts: list[Start] = []

    class Told:
        def __getattr__(self, name: str) -> Callable[..., Any]:
            return lambda given=(): starts.extend(given.values()) if name == "assigned" else {}

    clock = ManualClock(100.0)
    consumer = Slow(clock, 100.0, 0)
    consumer.get_watermark_offsets = lambda *_, **__: (0, 9)  # type: ignore[method-assign]
    monkeypatch.setattr(module, "make_client", lambda *_: consumer)
    intake = GroupIntake({"group.id": "mine"}, ["requests"], "earliest", Told(), 1, clock=clock)
    intake.open()
    intake._lost_at = clock()
    intake.serve()
    assert [start.outage for start in starts] == [True]


def test_all_questions_of_an_assignment_together_leave_the_group_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_AGAIN_S", 0.0)
    clock = ManualClock(100.0)
    consumer = Slow(clock, 5.0, 20)
    monkeypatch.setattr(module, "make_client", lambda *_: consumer)
    intake = GroupIntake({"group.id": "mine"}, ["requests"], "earliest", Nobody(), 1, clock=clock)
    intake.open()
    with pytest.raises(FatalError, match="the bounds of requests-0 cannot be read"):
        intake.serve()
    assert clock() - 100.0 <= intake.max_poll_s / 2 + 10.0
