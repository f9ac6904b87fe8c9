"""What a transaction is to carry, decided before any broker is asked."""

import gc
import weakref
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AclOperation

from forebay_consumer import transactions
from forebay_consumer.books import Books
from forebay_consumer.commits import Commits
from forebay_consumer.errors import FatalError, KafkaFailure
from forebay_consumer.failure import Failure
from forebay_consumer.flow import Flow
from forebay_consumer.ledger import Ledger
from forebay_consumer.messages import Writer
from forebay_consumer.metrics import Metrics
from forebay_consumer.progress import Commit, Progress
from forebay_consumer.record import Claim, Record, Success
from forebay_consumer.routes import Routes
from forebay_consumer.told_twice import SETTLE_S
from forebay_consumer.transactions import (
    AGAIN_AFTER_S,
    IDLE_WAIT_S,
    PART_SPARE_S,
    Transactions,
    _Leaving,
    _may_not_write,
)
from forebay_consumer.trials import Trials
from forebay_schemas import Model, read_request
from support.consumer import ManualClock, make_record

CLAIM = Claim("requests", 0, 1)


class Held:
    """A stage that is not started, with records taken and answers held."""

    def __init__(self, *offsets: int) -> None:
        metrics, failure = Metrics(), Failure()
        self.ledger, self.trials = Ledger(transactional=True), Trials(2, ahead=100, life="0" * 16)
        self.commits = Commits(self.ledger, self.trials, 0.0)
        self.ledger.open(CLAIM, 0)
        self.trials.open(CLAIM, 0, Progress(), 0)
        self.records = self.ledger.take([make_record(offset) for offset in offsets])
        self.stage: Any = Transactions(
            {"bootstrap.servers": "nowhere:9092", "group.id": "group"},
            None,
            Writer(Routes(["replies"]), None, Model("m"), {}),
            self.commits,
            Books(self.ledger, self.trials, self.commits, Flow(100, 1000), metrics),
            owns=self.ledger.owns,
            withdraw=self.ledger.withdraw,
            hurried=lambda: True,
            group=lambda: None,
            metrics=metrics,
            failure=failure,
            part_within_s=1.0,
        )

    def answer(self, *records: Record) -> None:
        self.stage._hold([Success(record, read_request(record)[0], ["out"], {}) for record in records])

    def next(self) -> tuple[dict[Claim, int], list[int]]:
        """The offsets of the next transaction, and those of the answers in it."""
        asked = self.commits.due(0.0)
        commits, answers = self.stage._covered(asked)
        self.commits.refused(asked)
        return {claim: commit.offset for claim, commit in commits.items()}, [one.record.offset for one in answers]


def test_answers_go_in_order_up_to_the_first_that_is_missing() -> None:
    held = Held(0, 1, 2, 3)
    first, second, third, fourth = held.records
    held.answer(fourth, second, first)
    assert held.next() == ({CLAIM: 2}, [0, 1])
    held.answer(third)
    assert held.next() == ({CLAIM: 4}, [0, 1, 2, 3])


def test_without_its_answers_an_offset_is_not_committed() -> None:
    held = Held(0, 1)
    held.answer(*held.records)
    commits = held.commits.due(0.0)
    held.ledger.close([CLAIM])  # lost, by the intake, after the offset was asked for
    assert held.stage.forget([CLAIM]) == held.records
    assert held.stage._covered(commits) == ({}, [])


def test_after_the_last_word_on_an_assignment_nothing_more_is_said_of_it() -> None:
    held = Held(0)
    held.stage._parting = frozenset([CLAIM])
    held.answer(*held.records)
    assert held.next() == ({}, [])


def test_a_late_answer_is_counted_out() -> None:
    held = Held(0)
    held.ledger.close([CLAIM])
    held.answer(*held.records)
    assert held.stage._held == {}


def test_a_report_on_what_is_published_already_changes_nothing() -> None:
    held = Held(0, 1)
    held.answer(*held.records)
    with held.stage._lock:
        message = held.stage._held[CLAIM].pop(0).messages[0]
    held.stage._judge(message, KafkaError(KafkaError._MSG_TIMED_OUT))  # by a producer that was left behind
    assert held.stage._later == []
    assert held.next()[0] == {CLAIM: 2}


class Client:
    """A producer whose group's coordinator is away for its first transaction; notes what is asked of it."""

    def __init__(self, said: list[str], name: str, *, fails: bool = False) -> None:
        self._said = said
        self._name = name
        self._fails = fails

    def __getattr__(self, call: str) -> Any:
        def noted(*_: Any, **__: Any) -> None:
            self._said.append(f"{self._name} {call}")
            if self._fails and call == "send_offsets_to_transaction":
                raise KafkaException(KafkaError(KafkaError._TRANSPORT, "away", txn_requires_abort=True))

        return noted


def test_after_an_aborted_transaction_another_producer_carries_the_answers() -> None:
    """The broker might take what the old one sends next for a repetition, and drop it."""
    said: list[str] = []
    held = Held(0)
    held.answer(*held.records)
    held.stage._producer = Client(said, "first", fails=True)
    held.stage._make = lambda: Client(said, "second")
    assert not held.stage._carry(held.commits.due(0.0), "group")
    assert held.stage._carry(held.commits.due(0.0), "group")
    held.stage._line.end()
    assert said == [
        "first begin_transaction",
        "first produce",
        "first send_offsets_to_transaction",
        "first abort_transaction",
        "first poll",
        "first purge",
        "first poll",
        "second init_transactions",
        "second begin_transaction",
        "second produce",
        "second send_offsets_to_transaction",
        "second commit_transaction",
    ]


class Asked:
    """A consumer of the group, which is told its offsets after a while; a call takes 2 s."""

    def __init__(self, clock: ManualClock, after_s: float) -> None:
        self._clock = clock
        self._at_s = clock() + after_s

    def committed(self, places: list[Any], **_: Any) -> list[Any]:
        self._clock.advance(2)
        if self._clock() < self._at_s:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return places


def test_offsets_that_a_transaction_holds_for_ever_are_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, stage = ManualClock(100.0), Held(0).stage
    monkeypatch.setattr(stage, "_clock", clock)
    monkeypatch.setattr(stage._failure, "wait", lambda _: False)
    places = [TopicPartition("requests", 0, 7)]
    assert stage._ask(Asked(clock, 3640), Asked(clock, 3600), places) == places  # without a coordinator for an hour
    with pytest.raises(FatalError, match=r"offsets of requests-0 cannot be read: .* kafka-transactions\.sh abort"):
        stage._ask(Asked(clock, 3660), Asked(clock, 3600), places)


@pytest.mark.parametrize(
    ("offsets", "happened"),
    [
        pytest.param([2], True, id="committed"),
        pytest.param([-1001, 2], True, id="told none, while the log was not read"),
        pytest.param([-1001, 0, 2], True, id="told none, then an old one, likewise"),
        pytest.param([0, 0], False, id="aborted"),
    ],
)
def test_a_transaction_had_no_effect_only_where_a_broker_says_so_twice(
    offsets: list[int], happened: bool, unhurried: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its answers would go out again: it is asked for when a broker was away, and may just be back."""
    left = list(offsets)
    told = SimpleNamespace(committed=lambda *_, **__: [TopicPartition("requests", 0, left.pop(0))], close=lambda: None)
    monkeypatch.setattr(transactions, "make_client", lambda *_: told)
    unhurried.answer(*unhurried.records)
    commits, answers = unhurried.stage._covered({CLAIM: Commit(2, "")})
    began_s = unhurried.stage._clock()
    assert unhurried.stage._happened(commits, answers) is happened
    assert left == []
    assert unhurried.stage._clock() - began_s == SETTLE_S * (len(offsets) - 1)


@pytest.mark.parametrize("last", [5, 1], ids=["past ours", "not past ours"])
def test_what_another_owns_by_now_tells_nothing_of_a_transaction(
    last: int, unhurried: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner commits all the time: two answers alike may never come."""
    left = [0, last]
    owned = [True]

    def committed(*_: Any, **__: Any) -> list[Any]:
        owned[0] = len(left) == 2
        return [TopicPartition("requests", 0, left.pop(0))]

    monkeypatch.setattr(transactions, "make_client", lambda *_: SimpleNamespace(committed=committed, close=list))
    unhurried.answer(*unhurried.records)
    commits, answers = unhurried.stage._covered({CLAIM: Commit(2, "")})
    monkeypatch.setattr(unhurried.stage, "_owns", lambda _: owned[0])
    assert not unhurried.stage._happened(commits, answers)
    assert left == []


class Watched:
    """What hangs on a delivery report, as a request does."""


def test_a_producer_that_is_left_lets_go_of_what_it_was_given() -> None:
    """The client keeps a callback, with all that hangs on it, until it has served the message's report."""
    held = Held(0)
    held.stage._producer = Producer({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})
    told: list[Any] = []
    watched = Watched()
    held.stage._producer.produce("t", b"v", on_delivery=lambda error, _, hangs=watched: told.append((error, hangs)))
    kept = weakref.ref(watched)
    del watched
    assert kept() is not None
    held.stage._make = lambda: None
    held.stage._take_another()
    held.stage._line.end()
    assert [error.code() for error, _ in told] == [KafkaError._PURGE_QUEUE]
    told.clear()
    gc.collect()
    assert kept() is None


class Over:
    """An event that is set after some looks."""

    def __init__(self) -> None:
        self.looks = 0

    def wait(self, _: float) -> bool:
        self.looks += 1
        return self.looks > 3


def test_who_waits_for_the_last_transaction_touches_no_producer() -> None:
    said: list[str] = []
    held, over = Held(0), Over()
    held.stage._producer = Client(said, "live")
    held.stage._orders = SimpleNamespace(put=lambda parting: setattr(parting, "over", over))
    held.stage.part([CLAIM])
    assert over.looks == 4
    assert said == []


@pytest.mark.parametrize(
    ("error", "alive", "looks"),
    [
        pytest.param(KafkaFailure("no heartbeat"), True, 4, id="it goes on"),
        pytest.param(KafkaFailure("fenced"), False, 1, id="it has ended"),
        pytest.param(FatalError("the model's"), True, 1, id="a record may be to blame"),
    ],
)
def test_whoever_ends_by_no_records_fault_waits_for_the_last_transaction(
    error: Exception, alive: bool, looks: int
) -> None:
    held, over = Held(0), Over()
    held.stage._orders = SimpleNamespace(put=lambda parting: setattr(parting, "over", over))
    held.stage._thread = SimpleNamespace(is_alive=lambda: alive)
    held.stage._failure.report(error)
    held.stage.part([CLAIM])
    assert over.looks == looks


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stage whose waits advance a clock."""
    held, clock = Held(0), ManualClock(100.0)
    monkeypatch.setattr(held.stage, "_clock", clock)
    monkeypatch.setattr(held.stage._failure, "wait", lambda s: clock.advance(s))
    yield held
    held.stage._line.end()


class Refused:
    """A producer that gets no epoch for a while; notes how often it asked."""

    def __init__(self, *codes: int, fatal: bool = False, retriable: bool = False) -> None:
        self._errors = [KafkaError(code, fatal=fatal, retriable=retriable) for code in codes]
        self.asked = 0

    def init_transactions(self, _: float) -> None:
        self.asked += 1
        if self.asked <= len(self._errors):
            raise KafkaException(self._errors[self.asked - 1])


MOVING = (
    KafkaError.CONCURRENT_TRANSACTIONS,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_COORDINATOR,
    KafkaError._TRANSPORT,
)


@pytest.mark.parametrize("retriable", [True, False])
def test_a_coordinator_that_moves_is_waited_for(unhurried: Held, retriable: bool) -> None:
    unhurried.stage._producer = client = Refused(*MOVING, retriable=retriable)
    unhurried.stage._init()
    assert client.asked == len(MOVING) + 1


@pytest.mark.parametrize(
    ("client", "told"),
    [
        pytest.param(Refused(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED), "grant Write", id="not allowed"),
        pytest.param(Refused(KafkaError.INVALID_TRANSACTION_TIMEOUT, fatal=True), "cannot go on", id="fatal"),
        pytest.param(
            Refused(*[KafkaError.CONCURRENT_TRANSACTIONS] * 500, retriable=True), "does not end", id="never ended"
        ),
    ],
)
def test_what_no_time_mends_ends_the_worker(unhurried: Held, client: Refused, told: str) -> None:
    unhurried.stage._producer = client
    with pytest.raises(KafkaFailure, match=told):
        unhurried.stage._init()


def test_who_is_to_leave_waits_for_no_broker(unhurried: Held) -> None:
    unhurried.stage._producer = client = Refused(*[KafkaError._TRANSPORT] * 100)
    unhurried.stage._leaving = True
    unhurried.stage._run()
    assert client.asked == 1


@pytest.mark.parametrize("comes_back", [True, False])
def test_who_is_to_leave_waits_for_no_call(unhurried: Held, comes_back: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay_consumer.transactions.PROD_EVERY_S", 0.0)
    away = KafkaError(KafkaError._TIMED_OUT, retriable=True)
    over = Event()

    def call(_: float) -> None:
        if not comes_back:
            over.wait(60)
        raise KafkaException(away)

    unhurried.stage._producer = Client([], "live")
    unhurried.stage._leaving = True
    with pytest.raises(_Leaving):
        unhurried.stage._insist(call)
    over.set()


def test_another_client_is_made_once_there_is_a_token_for_it(unhurried: Held) -> None:
    said: list[str] = []
    tokens = iter([KafkaFailure("no token"), KafkaFailure("no token"), Client(said, "second")])

    def make() -> Any:
        if isinstance(found := next(tokens), Exception):
            raise found
        return found

    unhurried.stage._producer, unhurried.stage._make = Client(said, "first"), make
    unhurried.stage._begin_anew()
    assert said[-1] == "second init_transactions"


def test_a_last_word_that_does_not_come_is_not_waited_for_for_ever(unhurried: Held) -> None:
    clock, looks = unhurried.stage._clock, []

    class Never:
        def wait(self, seconds: float) -> bool:
            looks.append(clock.advance(seconds))
            return False

    unhurried.stage._orders = SimpleNamespace(put=lambda parting: setattr(parting, "over", Never()))
    unhurried.stage.part([CLAIM])
    assert len(looks) * IDLE_WAIT_S == pytest.approx(unhurried.stage._timeout_s + 1.0 + PART_SPARE_S, rel=0.05)
    unhurried.answer(*unhurried.records)
    assert unhurried.next() == ({}, []), "and nothing more is said of it"


def test_a_topic_that_is_waited_for_is_asked_for(unhurried: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one that was deleted the client asks no more by itself, and waits until the messages expire."""
    asked: list[str] = []

    class Waiting(Client):
        def list_topics(self, topic: str, **_: Any) -> None:
            asked.append(topic)
            if len(asked) == 4:
                answer.put(None)

    answer: SimpleQueue[BaseException | None] = SimpleQueue()
    unhurried.answer(*unhurried.records)
    unhurried.stage._held[CLAIM][0].messages[0].topic = "the-clients-own"
    unhurried.stage._producer = Waiting([], "live")
    assert unhurried.stage._carry(unhurried.commits.due(0.0), "group")
    monkeypatch.setattr("forebay_consumer.transactions.PROD_EVERY_S", 0.01)
    unhurried.stage._returned(answer)
    assert asked == ["replies", "the-clients-own"] * 2


@pytest.mark.parametrize("returns", [True, False], ids=["it is asked again", "it does not return"])
def test_who_has_no_room_is_told_while_a_transaction_waits(
    unhurried: Held, returns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody polls, and the group would wait for this member."""
    told: list[bool] = []
    begun, waits = Event(), Event()

    class Waiting(Client):
        def commit_transaction(self, _: float) -> None:
            if begun.is_set():
                told.append(unhurried.stage.stuck)
                return
            begun.set()
            if returns:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, retriable=True))
            waits.wait()

        def list_topics(self, *_: Any, **__: Any) -> None:
            if begun.is_set() and not returns:
                told.append(unhurried.stage.stuck)
                waits.set()

    monkeypatch.setattr("forebay_consumer.transactions.PROD_EVERY_S", 0.5 if returns else 0.01)
    monkeypatch.setattr(unhurried.stage, "_begin_anew", list)
    unhurried.answer(*unhurried.records)
    unhurried.stage._producer = Waiting([], "live")
    assert unhurried.stage._carry(unhurried.commits.due(0.0), "group")
    assert told
    assert all(told)
    assert not unhurried.stage.stuck


@pytest.mark.parametrize(("mended", "again_s"), [(True, AGAIN_AFTER_S), (False, 2 * AGAIN_AFTER_S)], ids=str)
def test_with_its_cause_replaced_the_next_transaction_comes_soon(unhurried: Held, mended: bool, again_s: float) -> None:
    unhurried.answer(*unhurried.records)
    unhurried.stage._producer = Client([], "first", fails=True)
    unhurried.stage._make = lambda: Client([], "second", fails=True)
    answer = unhurried.stage._held[CLAIM][0]
    if mended:
        unhurried.stage._listen = lambda: unhurried.stage._replace(answer, answer.messages[0], answer.messages[:])
    unhurried.stage._pause_s = 2 * AGAIN_AFTER_S  # of an outage before
    assert not unhurried.stage._carry(unhurried.commits.due(1000.0), "group")
    assert unhurried.stage._not_before_s - unhurried.stage._clock() == pytest.approx(again_s)


@pytest.mark.parametrize(
    ("allowed", "forbidden"),
    [
        pytest.param([AclOperation.DESCRIBE, AclOperation.READ], True, id="no Write"),
        pytest.param([AclOperation.DESCRIBE, AclOperation.WRITE], False, id="Write"),
        pytest.param([], False, id="no list of rights"),
        pytest.param(None, False, id="not told"),
    ],
)
def test_only_who_is_plainly_told_so_may_not_write(allowed: list[AclOperation] | None, forbidden: bool) -> None:
    told: Future[Any] = Future()
    told.set_result(SimpleNamespace(authorized_operations=allowed))
    assert _may_not_write(told) is forbidden


def test_a_broker_that_does_not_tell_forbids_nothing() -> None:
    told: Future[Any] = Future()
    told.set_exception(KafkaException(KafkaError(KafkaError._TIMED_OUT)))
    assert not _may_not_write(told)
