"""Exactly-once: replies, dead letters and the offset behind what they answer become visible together, or not at all.

The broker keeps one offset per partition, so a transaction may carry only the answers of a partition's records from
its offset on, without a gap; later answers wait here in memory. One transaction is open at a time, and while the
thread waits for the broker the instances run their next passes. What a transaction that failed was to carry is still
here and goes into the next: nothing is read or run again.

All that the worker tells the group's coordinator goes this way, the claims of what is let in too: an ordinary commit
could overtake a transaction, and set its offset back.

A commit whose fate was unknown for a while is asked for until it is known, and then the producer begins anew with a
higher epoch: the broker might still hold the first request, and would end the next transaction by it
(Jepsen, Bufstream 0.1.0). After an aborted transaction it begins anew, too: with the old epoch the first message of the
next one can be reported delivered and not be in the log [2 of 7 aborts after a lost connection, librdkafka 2.16.0]. It
looks as if it took the sequence number of a message that the broker has, and passed for its repetition.
"""

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import cycle
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Final, Self
from uuid import uuid4

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AclOperation, AdminClient

from forebay_consumer.books import Books
from forebay_consumer.clock import Clock, monotonic
from forebay_consumer.commits import Commits
from forebay_consumer.errors import KafkaFailure
from forebay_consumer.failure import Failure
from forebay_consumer.kafka_settings import admin_settings, consumer_settings, make_client, transactional_settings
from forebay_consumer.messages import Message, Writer
from forebay_consumer.metrics import Metrics
from forebay_consumer.progress import HELD, Commit
from forebay_consumer.reachable import Reachable
from forebay_consumer.record import Claim, Outcome, Record
from forebay_consumer.replies import REMEDIES, SIZE, elsewhere, ended
from forebay_consumer.told_twice import SETTLE_S, told_twice

IDLE_WAIT_S: Final = 0.1
TRIAL_WAIT_S: Final = 0.005
CALL_S: Final = 2.0  # how long one call to the broker blocks before we look around and go on with it
AGAIN_AFTER_S: Final = 0.05  # a transaction, at first
AGAIN_AT_MOST_S: Final = 1.0
MESSAGE_AGAIN_AFTER_S: Final = 0.5
INIT_AGAIN_AFTER_S: Final = 0.2
MAKE_AGAIN_AFTER_S: Final = 1.0
PART_SPARE_S: Final = 10.0
RIGHTS_WITHIN_S: Final = 2.0
PROD_EVERY_S: Final = 0.5
HUNG_AFTER_S: Final = 8.0  # a call took up to 4 s before it saw that its 2 s were over [measured]
MOST_RENEWALS: Final = 5  # of the producer, without a transaction committed between
ALONE_TIMEOUT_S: Final = 10.0
HELD_S: Final = 30.0  # beyond its timeout, until an open transaction counts as one that nobody ends

_PURGED: Final = frozenset([KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT])
# Why a transaction ended is told by the first of these, or, to who comes later, by the others.
_UNEXPLAINED: Final = frozenset(
    [KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.OPERATION_NOT_ATTEMPTED, KafkaError._STATE]
)
_NOT_ALLOWED: Final = frozenset([KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED])
_FENCED: Final = frozenset([KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED])


class _Answer:
    """The messages of one record, which a transaction is to carry."""

    __slots__ = ("messages", "record")

    def __init__(self, record: Record, messages: list[Message]) -> None:
        self.record = record
        self.messages = messages


class _Parting:
    """The last transaction of some assignments, which the intake waits for."""

    def __init__(self, claims: Collection[Claim]) -> None:
        self.claims = frozenset(claims)
        self.over = threading.Event()


class _Aborted(Exception):
    """The transaction had no effect; what is to be done about it is done."""


class _Unknown(Exception):
    """The producer ended while the broker was asked to commit: it may have, or not."""


class _Hung(Exception):
    """A call to the client does not come back; another takes the place of its producer."""


class _Leaving(Exception):
    """Nothing is owed any more, and whoever waits for a broker need not."""


class _Line:
    """A thread for calls that may never come back; then it is left behind."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], SimpleQueue[BaseException | None]] | None] = SimpleQueue()
        threading.Thread(target=self._run, name="transaction", daemon=True).start()

    def call(self, work: Callable[[], Any]) -> "SimpleQueue[BaseException | None]":
        """Gets what `work` raises, or None, once it is over."""
        answer: SimpleQueue[BaseException | None] = SimpleQueue()
        self._calls.put((work, answer))
        return answer

    def end(self) -> None:
        self._calls.put(None)

    def _run(self) -> None:
        while (order := self._calls.get()) is not None:
            work, answer = order
            try:
                work()
            except BaseException as error:
                answer.put(error)
            else:
                answer.put(None)


class Transactions:
    """The stage and its thread, the only one to touch the producer. A context manager.

    Args:
        transactional_id: no other process may use it at the same time; None makes one that is ours alone.
        part_within_s: how long `part` tries again what the broker refuses.
        owns: whether results of an assignment may still be published; late ones are dropped.
        withdraw: told of answers that must wait, though they were `ready`.
        hurried: whether a transaction begins as soon as there is anything to carry.
        group: who we are in the group, as of the intake's last poll; None before it has joined.
    """

    def __init__(
        self,
        kafka: Mapping[str, Any],
        transactional_id: str | None,
        writer: Writer,
        commits: Commits,
        books: Books,
        owns: Callable[[Claim], bool],
        withdraw: Callable[[Sequence[Record]], None],
        hurried: Callable[[], bool],
        group: Callable[[], Any],
        metrics: Metrics,
        failure: Failure,
        part_within_s: float,
        clock: Clock = monotonic,
    ) -> None:
        self._alone = transactional_id is None
        self._id = transactional_id or f"{kafka['group.id']}-{uuid4().hex}"
        self._settings = transactional_settings(kafka, self._id)
        self._timeout_s = int(self._settings["transaction.timeout.ms"]) / 1000
        self._asking = {**consumer_settings(kafka), "enable.auto.commit": False}
        self._admin = admin_settings(kafka)
        self._part_within_s = part_within_s
        self._writer = writer
        self._commits = commits
        self._books = books
        self._owns = owns
        self._withdraw = withdraw
        self._hurried = hurried
        self._group = group
        self._metrics = metrics
        self._failure = failure
        self._clock = clock
        self._log = structlog.get_logger()
        self._orders: SimpleQueue[Sequence[Outcome] | _Parting | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._held: dict[Claim, dict[int, _Answer]] = {}  # under the lock, with what the ledger owns
        self._parting: frozenset[Claim] = frozenset()  # under the lock: nothing more is said of these
        self._later: list[tuple[float, Record]] = []  # answers that are not ready again before that moment
        self._failed: list[tuple[Message, Any]] = []  # filled by delivery reports
        self._not_before_s = 0.0
        self._pause_s = AGAIN_AFTER_S
        self._stopping = False
        self._leaving = False
        self.stuck = False  # the last transaction had no effect, or the open one waits; any thread may read it
        self._judged = False  # a message is known that made the last transaction fail
        self._mended = False  # what made the last transaction fail is replaced
        self._renewals = 0  # since a transaction was committed
        self._ended = False  # the producer cannot go on
        self._doubtful = False  # what the broker has of our epoch may differ from what the client believes
        self._thread = threading.Thread(target=failure.guard(self._run, "replies"), name="replies", daemon=True)
        self._line = _Line()
        self._topics: Iterator[str] = cycle([writer.reply_topic])  # those of the open transaction
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
        self._orders.put(outcomes)

    def wake(self) -> None:
        """There may be something to commit beside outcomes; returns at once."""
        self._orders.put(())

    def part(self, claims: Collection[Claim]) -> None:
        """Carry what is ready of these assignments, say that nothing of them is inside, and then nothing more.

        Blocks until no transaction with anything of them is open; not when what has happened ended this thread, or may
        be a record's fault. Nor where the thread waits for a broker for much longer than it may take: all the group
        would wait. Offsets that were sent by then are waited for by the next owner, and later ones are refused, since
        they come of an old generation.
        """
        parting = _Parting(claims)
        until_s = self._clock() + self._timeout_s + self._part_within_s + PART_SPARE_S  # one may be open by now
        self._orders.put(parting)
        while not parting.over.wait(IDLE_WAIT_S):
            if self._failure.happened and not (self._failure.blameless and self._thread.is_alive()):
                break
            if self._clock() > until_s:
                self._log.error("partitions are left without a last word", action="part_given_up")
                with self._lock:
                    self._parting |= parting.claims
                break

    def forget(self, claims: Iterable[Claim]) -> list[Record]:
        """Drop the answers of assignments that the ledger no longer owns; gives back whose they were."""
        dropped: list[Record] = []
        with self._lock:
            for claim in claims:
                dropped += (answer.record for answer in self._held.pop(claim, {}).values())
                self._parting -= {claim}
        return dropped

    def __enter__(self) -> Self:
        self._producer = self._make()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leaving = True
        self._orders.put(None)
        self._thread.join()
        self._line.end()

    # ---- the thread

    def _run(self) -> None:
        with suppress(_Leaving):
            self._serve()

    def _serve(self) -> None:
        self._init()
        while not self._stopping:
            partings = self._take(self._wait_s())
            self._ready_again()
            if self._clock() >= self._not_before_s:
                group = self._group()  # before the assignment is looked at: the broker refuses what is older than it
                self._carry(self._commits.due(self._clock()), group)
            for parting in partings:
                self._part(parting)
            self._listen()
            if self._ended:
                self._begin_anew()
            self._reachable.ask(self._producer)

    def _wait_s(self) -> float:
        now = self._clock()
        moments = [moment for moment, _ in self._later]
        if self._not_before_s > now:
            moments.append(self._not_before_s)
        return max(0.0, min([IDLE_WAIT_S, *(moment - now for moment in moments)]))

    def _take(self, timeout_s: float) -> list[_Parting]:
        """Take all orders that there are: the next transaction carries what it can of them."""
        partings = []
        claimed = False
        try:
            order = self._orders.get(timeout=timeout_s)
            while True:
                if order is None:
                    self._stopping = True
                elif isinstance(order, _Parting):
                    partings.append(order)
                else:
                    self._hold(order)
                # An answer on trial goes with the claim of the next trial, which the intake makes at once.
                claimed = claimed or not order or self._hurried()
                order = self._orders.get_nowait() if claimed else self._orders.get(timeout=TRIAL_WAIT_S)
        except Empty:
            return partings

    def _hold(self, outcomes: Sequence[Outcome]) -> None:
        answers = [_Answer(outcome.record, self._writer.messages(outcome)) for outcome in outcomes]
        ready, late = [], []
        with self._lock:
            for answer in answers:
                claim = answer.record.claim
                if self._owns(claim):
                    self._held.setdefault(claim, {})[answer.record.offset] = answer
                    ready.append(answer.record)
                else:
                    late.append(answer.record)
        if ready:
            self._books.ready(ready)
        self._books.give_up(late, "late")

    def _ready_again(self) -> None:
        now = self._clock()
        if due := [record for moment, record in self._later if moment <= now]:
            self._later = [(moment, record) for moment, record in self._later if moment > now]
            self._books.ready_again(due)

    def _part(self, parting: _Parting) -> None:
        until_s = self._clock() + self._part_within_s
        while not self._carry(self._commits.parting(parting.claims), self._group()) and self._clock() < until_s:
            self._failure.wait(self._pause_s)
            self._failure.check()
        with self._lock:  # but for what was given up, and forgotten, meanwhile
            self._parting |= {claim for claim in parting.claims if self._owns(claim)}
        parting.over.set()

    # ---- one transaction

    def _carry(self, commits: Mapping[Claim, Commit], group: Any) -> bool:
        """Commit these offsets with the answers below them; whether the broker did.

        Args:
            group: who we were in the group when these assignments were ours.
        """
        commits, answers = self._covered(commits)
        if not commits:
            return True
        since_s, self._judged, self._mended = self._clock(), False, False
        try:
            if group is None:
                raise _Aborted
            self._transact(commits, answers, group)
            done = True
        except _Aborted:
            done = False
        except _Unknown:
            self.stuck = True  # until it is known: who waits for it is to poll on
            self._begin_anew()  # the broker ends the old transaction first, in one way or the other
            done = self._happened(commits, answers)
        self.stuck = not done
        if done:
            self._pause_s, self._renewals = AGAIN_AFTER_S, 0
            self._books.committed(commits, ())
            self._published(answers, self._clock() - since_s)
        else:
            if self._mended:  # with another message in place of the one that failed, the next may well succeed
                self._pause_s = AGAIN_AFTER_S
            self._not_before_s = self._clock() + self._pause_s
            self._pause_s = min(2 * self._pause_s, AGAIN_AT_MOST_S)
            self._books.committed({}, list(commits))
        if self._doubtful:
            self._begin_anew()
        return done

    def _covered(self, commits: Mapping[Claim, Commit]) -> tuple[Mapping[Claim, Commit], list[_Answer]]:
        """Those of the commits that may be made, and the answers that go with them, in order per partition."""
        with self._lock:
            # Of an assignment that was lost meanwhile the answers are gone: its offset alone would lose requests.
            mine = {
                claim: commit for claim, commit in commits.items() if self._owns(claim) and claim not in self._parting
            }
            answers = [
                held[offset]
                for claim, commit in mine.items()
                if (held := self._held.get(claim))
                for offset in sorted(held)
                if offset < commit.offset
            ]
        return mine, answers

    def _happened(self, commits: Mapping[Claim, Commit], answers: Sequence[_Answer]) -> bool:
        """Whether the group's offsets are past answers whose transaction was neither confirmed nor refused."""
        asked = {answer.record.claim for answer in answers}

        def mine() -> list[Claim]:
            # Offsets of what another owns by now tell nothing of ours, and move on.
            return [claim for claim in asked if self._owns(claim)]

        if not mine():
            return False
        asker, looker = (
            self._patiently(partial(make_client, Consumer, {**self._asking, "isolation.level": level}))
            for level in ("read_committed", "read_uncommitted")
        )

        def passed(found: list[TopicPartition]) -> bool:
            offsets = {(place.topic, place.partition): place.offset for place in found}
            claims = mine()
            return bool(claims) and all(
                offsets[claim.topic, claim.partition] >= commits[claim].offset for claim in claims
            )

        def ask() -> list[TopicPartition]:
            places = [TopicPartition(claim.topic, claim.partition) for claim in mine()]
            return self._ask(asker, looker, places) if places else []

        try:
            # A broker that is just back may not know of it yet, but tells of none that was not made.
            found = told_twice(ask(), ask, self._let_settle, lambda told: passed(told) or not mine())
        finally:
            asker.close()
            looker.close()
        happened = passed(found)
        self._log.warning("a transaction's fate was asked for", action="fate_asked", committed=happened)
        return happened

    def _let_settle(self) -> None:
        self._failure.wait(SETTLE_S)
        self._check()

    def _ask(self, asker: Any, looker: Any, places: list[TopicPartition]) -> list[TopicPartition]:
        """The group's offsets, once no transaction holds them; while the group has no coordinator, until it has one.

        Args:
            looker: is told the offsets whoever holds them.
        Raises:
            KafkaFailure: they are held for longer than any transaction of ours may take. So they can be for ever: a
                broker that is killed may forget to end a transaction [Kafka 4.3, KAFKA-20734].
        """
        held_s = self._timeout_s + HELD_S
        since_s: float | None = None
        while True:
            try:
                return _committed(asker, places)
            except KafkaException as raised:
                error = raised.args[0]
                if error.fatal() or error.code() in (*REMEDIES, KafkaError.GROUP_AUTHORIZATION_FAILED):
                    raise self._fatal(error) from raised
                since_s = (since_s or self._clock()) if _can_tell(looker, places) else None
                if since_s is not None and self._clock() - since_s > held_s:
                    named = ", ".join(f"{place.topic}-{place.partition}" for place in places)
                    raise KafkaFailure(f"Kafka: the group's offsets of {named} cannot be read: {HELD}") from raised
                self._log.warning("waiting for the broker", action="transaction_waits", error=error.str())
                self._failure.wait(AGAIN_AFTER_S)
                self._check()

    def _published(self, answers: Sequence[_Answer], took_s: float) -> None:
        with self._lock:  # those of an assignment that was lost meanwhile are counted out already
            mine = [
                answer for answer in answers if self._held.get(answer.record.claim, {}).pop(answer.record.offset, 0)
            ]
        if not mine:
            return
        self._metrics.publish.observe(took_s)
        self._metrics.answered(Counter(answer.messages[0].owed.code for answer in mine), self._writer.keeps)
        self._books.published([answer.record for answer in mine])

    def _transact(self, commits: Mapping[Claim, Commit], answers: Sequence[_Answer], group: Any) -> None:
        offsets = [
            TopicPartition(claim.topic, claim.partition, commit.offset, commit.metadata)
            for claim, commit in commits.items()
        ]
        producer, asked = self._producer, False
        try:
            producer.begin_transaction()
            topics = {message.topic for answer in answers for message in answer.messages}
            self._topics = cycle(sorted(topics | {self._writer.reply_topic}))
            for answer in answers:
                self._produce(answer)
            self._insist(lambda timeout_s: producer.send_offsets_to_transaction(offsets, group, timeout_s))
            asked = True
            self._insist(producer.commit_transaction)
        except KafkaException as raised:
            self._abort(raised.args[0])
            if asked and self._ended:
                raise _Unknown from raised
            if raised.args[0].code() in _UNEXPLAINED and not self._judged:
                self._look_for_forbidden(answers)
            raise _Aborted from raised
        except _Hung as hung:
            self._give_producer_up("a call to the client does not come back")
            raise (_Unknown if asked else _Aborted) from hung
        except _Aborted:
            self._abort()
            if not self._judged:
                self._look_for_forbidden(answers)
            raise

    def _look_for_forbidden(self, answers: Sequence[_Answer]) -> None:
        """Judge the messages to topics that may not be written to: a transaction ends by one, and no report says which.

        Raises:
            KafkaFailure: it is a topic of the worker's own.
        """
        topics = sorted({message.topic for answer in answers for message in answer.messages})
        admin = self._patiently(partial(make_client, AdminClient, self._admin))
        asked = admin.describe_topics(
            TopicCollection(topics), include_authorized_operations=True, request_timeout=RIGHTS_WITHIN_S
        )
        forbidden = {topic for topic, told in asked.items() if _may_not_write(told)}
        refusal = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
        for message in [message for answer in answers for message in answer.messages if message.topic in forbidden]:
            self._judge(message, refusal)

    def _produce(self, answer: _Answer) -> None:
        queue = list(answer.messages)
        while queue:
            message = queue.pop(0)
            try:
                self._send(message)
            except KafkaException as raised:
                error = raised.args[0]
                if error.code() in SIZE:  # larger than the client takes: nothing was queued
                    instead = self._replace(answer, message, self._writer.instead(message))
                    queue = [*instead, *(queue if message in instead else ())]
                elif error.code() == KafkaError._UNKNOWN_PARTITION and message.partition >= 0:
                    message.partition = -1  # the reply still reaches its topic
                    queue.insert(0, message)
                elif error.fatal() or error.txn_requires_abort():
                    raise
                elif error.code() == KafkaError._STATE:  # an earlier message failed: its report says why
                    raise _Aborted from raised
                else:
                    self._failed.append((message, error))
                    raise _Aborted from raised

    def _send(self, message: Message) -> None:
        def report(error: Any, _: Any) -> None:  # runs inside the client's calls, so it only takes note
            if error is not None:
                self._failed.append((message, error))

        if message.alone:
            self._producer.flush(ALONE_TIMEOUT_S)
        while True:
            try:
                self._producer.produce(
                    message.topic,
                    value=message.value,
                    key=message.key,
                    headers=message.headers,
                    partition=message.partition,
                    on_delivery=report,
                )
            except BufferError:
                self._producer.poll(0.05)
                self._failure.check()
            else:
                break
        if message.alone:
            self._producer.flush(ALONE_TIMEOUT_S)

    def _insist(self, call: Callable[[float], Any]) -> None:
        """Call again while the client says that only time is wanting: it goes on where it was.

        Raises:
            KafkaException: anything else, which ends the transaction or the producer.
            _Hung: the producer is not to be used any more.
        """
        while True:
            try:
                self._returned(self._line.call(lambda: call(CALL_S)))
            except KafkaException as raised:
                error = raised.args[0]
                if error.fatal() or error.txn_requires_abort() or not error.retriable():
                    raise
                self._doubtful = self.stuck = True
                self._log.warning("waiting for the broker", action="transaction_waits", error=error.str())
                self._check()
            else:
                return

    def _check(self) -> None:
        """While something is waited for: whether to go on."""
        self._failure.check()
        if self._leaving:
            raise _Leaving

    def _returned(self, answer: "SimpleQueue[BaseException | None]") -> None:
        """Wait for a call to return; meanwhile ask for metadata.

        The client's `send_offsets_to_transaction` ignores its timeout, and may wait for ever for a change of some
        connection after a broker's restart [librdkafka #5456, #5511]; another request may open that one.
        """
        hung_s = self._clock() + HUNG_AFTER_S
        while True:
            try:
                error = answer.get(timeout=PROD_EVERY_S)
            except Empty:
                self.stuck = True
                self._check()
                if self._clock() > hung_s:
                    raise _Hung from None
                try:
                    # In turns: of a topic that was deleted the client asks no more by itself, and waits for it.
                    self._producer.list_topics(next(self._topics), timeout=PROD_EVERY_S)
                except KafkaException:
                    self._reachable.down()
                else:
                    self._reachable.up = True
            else:
                if error is not None:
                    raise error
                return

    def _abort(self, error: Any = None) -> None:
        """End the open transaction without effect, or find that the producer has ended.

        Args:
            error: why; None when the reason is known.
        """
        try:
            if error is not None:
                if error.fatal() or not error.txn_requires_abort():
                    raise KafkaException(error)
                self._log.warning("transaction aborted", action="aborted", code=error.name(), error=error.str())
            self._insist(self._producer.abort_transaction)
        except KafkaException as raised:
            self._check_ended(raised)
        except _Hung:
            self._give_producer_up("a call to the client does not come back")
        else:
            self._doubtful = True
            self._listen()
        if error is not None and error.code() == KafkaError.OFFSET_METADATA_TOO_LARGE:
            self._books.metadata_refused()

    def _check_ended(self, raised: KafkaException) -> None:
        """A producer that cannot go on is followed by another, where that helps.

        The coordinator ends a transaction that takes longer than its timeout, and its producer with it.
        """
        error = raised.args[0]
        shared = error.code() in _FENCED and not self._alone
        if shared or error.code() in (*REMEDIES, *_NOT_ALLOWED) or self._renewals >= MOST_RENEWALS:
            raise self._fatal(error) from raised
        self._give_producer_up(error.str())

    def _give_producer_up(self, why: str) -> None:
        self._log.warning("producer ended", action="producer_ended", error=why)
        self._renewals += 1
        self._doubtful = self._ended = True
        self._failed.clear()

    def _begin_anew(self) -> None:
        self._log.warning("producer begins anew", action="producer_renewed")
        self._take_another()
        self._init()

    def _take_another(self) -> None:
        """Leave the producer, and have it let go of the messages whose reports it owes: it keeps them for ever."""
        with suppress(KafkaException):
            self._producer.purge()  # waits for the client's threads, not for a broker
            self._producer.poll(0)
        self._failed.clear()
        self._line.end()
        self._line, self._producer = _Line(), self._patiently(self._make)

    def _patiently(self, make: Callable[[], Any]) -> Any:
        """A client once more: where one was made before, what is missing now, such as a token, comes back."""
        while True:
            try:
                return make()
            except KafkaFailure as failure:
                self._log.warning("no client yet", action="client_waits", error=str(failure))
                self._failure.wait(MAKE_AGAIN_AFTER_S)
                self._check()

    def _init(self) -> None:
        """Get an epoch; ends what an earlier producer of our id left open.

        A coordinator that moves, or still ends that, is asked again, whether or not the client calls it retriable.

        Raises:
            KafkaFailure: it is not allowed, or an earlier transaction is not ended for longer than any may take.
        """
        held_s = self._timeout_s + HELD_S
        since_s: float | None = None
        while True:
            try:
                self._returned(self._line.call(lambda: self._producer.init_transactions(CALL_S)))
            except KafkaException as raised:
                error = raised.args[0]
                if error.fatal() or error.code() in (*REMEDIES, *_NOT_ALLOWED, *_FENCED):
                    raise self._fatal(error) from raised
                concurrent = error.code() == KafkaError.CONCURRENT_TRANSACTIONS
                since_s = (since_s or self._clock()) if concurrent else None
                if since_s is not None and self._clock() - since_s > held_s:
                    raise KafkaFailure(
                        f"Kafka: an earlier transaction of the transactional id {self._id!r} does not end; find it "
                        "with kafka-transactions.sh find-hanging, end it with abort, and start the worker again"
                    ) from raised
                self._log.warning("waiting for the broker", action="transaction_waits", error=error.str())
                self._failure.wait(INIT_AGAIN_AFTER_S)
                self._check()
            except _Hung:
                self._take_another()
            else:
                break
        self._doubtful = self._ended = False

    # ---- what the broker refused

    def _listen(self) -> None:
        try:
            self._producer.poll(0)
        except KafkaException as raised:
            self._check_ended(raised)
        failed, self._failed = self._failed, []
        large = max((_size(message) for message, error in failed if error.code() in SIZE), default=0)
        for message, error in failed:
            # Not what the abort purged for another's sake, nor what failed for a neighbour of more than twice its size.
            if error.code() not in _PURGED and (error.code() not in SIZE or 2 * _size(message) >= large):
                self._judge(message, error)

    def _judge(self, message: Message, error: Any) -> None:
        record = message.owed.record
        with self._lock:
            answer = self._held.get(record.claim, {}).get(record.offset)
        if answer is None or message not in answer.messages:
            return  # of a producer that was left behind: what it had is published, or given up
        code, self._judged = error.code(), True
        if (instead := elsewhere(self._writer, message, code)) is not None:
            self._replace(answer, message, instead)
        elif code in REMEDIES:
            raise KafkaFailure(f"Kafka: {message.topic}: {error.str()}; {REMEDIES[code]}")
        elif code in SIZE:
            self._too_large(answer, message)
        elif code == KafkaError._UNKNOWN_PARTITION and message.partition >= 0:
            message.partition = -1
        else:
            # Its topic is away, or its broker: what others wait for should not wait for it.
            self._log.warning("reply not delivered", action="delivery_failed", topic=message.topic, code=error.name())
            self._withdraw([record])
            self._later.append((self._clock() + MESSAGE_AGAIN_AFTER_S, record))

    def _too_large(self, answer: _Answer, message: Message) -> None:
        """The client never splits a batch, so one oversize message fails its neighbours: each is sent alone once."""
        if message.alone:
            self._replace(answer, message, self._writer.instead(message))
        else:
            message.alone = True

    def _replace(self, answer: _Answer, message: Message, instead: list[Message]) -> list[Message]:
        """Put what is sent for a message into its place; gives what is new."""
        self._mended = True
        kept = message in instead  # it was changed itself
        answer.messages[:] = [
            *(other for other in answer.messages if other is not message and kept),
            *instead,
        ]
        return instead

    def _make(self) -> Any:
        return make_client(Producer, {**self._settings, "error_cb": self._reachable.heard})

    def _fatal(self, error: Any) -> KafkaFailure:
        if error.code() in _FENCED:
            return KafkaFailure(
                f"Kafka: {error.str()}; either another process uses the transactional id {self._id!r}: give every "
                "worker its own delivery.transactional_id, or none; or the broker was away for longer than "
                "transaction.timeout.ms: a restart goes on from what it committed"
            )
        if error.code() in _NOT_ALLOWED:
            return KafkaFailure(
                f"Kafka: {error.str()}; grant Write on the transactional id {self._id!r}, or on its prefix, to this "
                "principal"
            )
        return ended(error)


def _size(message: Message) -> int:
    headers = message.headers or ()
    return len(message.value or b"") + sum(len(name) + len(value or b"") for name, value in headers)


def _may_not_write(told: Any) -> bool:
    """Of a topic that is there, as far as a broker says so within its time."""
    try:
        allowed = told.result().authorized_operations
    except KafkaException:
        return False
    # Only a list that is plainly one of rights counts: whoever gets it may describe the topic.
    return allowed is not None and AclOperation.DESCRIBE in allowed and AclOperation.WRITE not in allowed


def _can_tell(looker: Any, places: list[TopicPartition]) -> bool:
    try:
        _committed(looker, places)
    except KafkaException:
        return False
    return True


def _committed(asker: Any, places: list[TopicPartition]) -> list[TopicPartition]:
    """Raises KafkaException where some cannot be told yet: a transaction may be ending."""
    found: list[TopicPartition] = asker.committed(places, timeout=CALL_S)
    for place in found:
        if place.error is not None:
            raise KafkaException(place.error)
    return found
