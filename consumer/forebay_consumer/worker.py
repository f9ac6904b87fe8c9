"""The stages of a worker, joined: poll → preprocess → window → forward → publish → done → commit."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

import structlog

from forebay_consumer.books import Books
from forebay_consumer.clock import Clock, monotonic
from forebay_consumer.commits import Commits
from forebay_consumer.errors import DrainTimeout
from forebay_consumer.existing import Outlets
from forebay_consumer.failure import Failure
from forebay_consumer.feed import Feed
from forebay_consumer.flow import Flow, Room
from forebay_consumer.garbage import collector_spared
from forebay_consumer.health import Health, HealthServer
from forebay_consumer.instance import Instances
from forebay_consumer.intake.base import Intake, Start
from forebay_consumer.ledger import Ledger
from forebay_consumer.metrics import Metrics
from forebay_consumer.pace import Pace
from forebay_consumer.preprocess import Preprocess
from forebay_consumer.progress import Commit, Progress
from forebay_consumer.record import Claim, Fault, Record
from forebay_consumer.roles import Admission, Book, Endings, Settlement, Stage
from forebay_consumer.shutdown import Shutdown
from forebay_consumer.transactions import Transactions
from forebay_consumer.trials import Trials
from forebay_schemas import Code, read_request

TURN_S: Final = 0.05
TRIAL_TURN_S: Final = 0.002  # the client serves a commit's report within a poll, and polls on until its time is over
LOOK_EVERY_S: Final = 0.1
OUTLETS_AGAIN_S: Final = 1.0
_ONE: Final = Room(rows=1, bytes=1)


def poisoned(record: Record, lives: int) -> Fault:
    """The answer to a record that ended the process whenever it ran alone."""
    envelope, _ = read_request(record)
    message = f"the worker's process ended {lives} times while it ran this request alone"
    return Fault(record, envelope, Code.POISON, message, "trial", lives)


class Keeper:
    """What the intake tells of the assignment, carried over to ledger, window and flow. Runs on the intake's thread."""

    def __init__(
        self,
        ledger: Ledger,
        trials: Trials,
        commits: Commits,
        books: Books,
        feed: Feed,
        metrics: Metrics,
        failure: Failure,
        drain_s: float,
    ) -> None:
        self._ledger = ledger
        self._trials = trials
        self._commits = commits
        self._books = books
        self._feed = feed
        self._metrics = metrics
        self._failure = failure
        self._drain_s = drain_s
        self._log = structlog.get_logger()

    def assigned(self, starts: Mapping[Claim, Start]) -> None:
        for claim, start in starts.items():
            found = start.progress
            if found is None:
                self._metrics.unreadable.inc()
                found = Progress()
            self._ledger.open(claim, start.offset, found.done)
            self._trials.open(claim, start.offset, found, start.end, start.outage)
        self._changed("assigned", starts)

    def revoked(self, claims: Collection[Claim]) -> Mapping[Claim, Commit]:
        self._ledger.revoking(claims)
        self._books.give_up([item.record for item in self._feed.drop()], "revoked")
        parting: Mapping[Claim, Commit] = {}
        if not self._failure.happened:
            # What is held was not let in, so nobody waits for it.
            self._ledger.wait_answered(claims, self._drain_s, held=self._trials.held(claims))
        if not self._failure.happened or self._failure.blameless:  # else what is inside may be what ends us
            parting = self.part(claims)
        self._end(claims, "revoked")
        return parting

    def part(self, claims: Collection[Claim]) -> Mapping[Claim, Commit]:
        """The last word on these assignments, for the intake to commit."""
        return self._commits.parting(claims)

    def lost(self, claims: Collection[Claim]) -> None:
        self._end(claims, "lost")
        self._books.give_up([item.record for item in self._feed.drop()], "lost")

    def committed(self, accepted: Mapping[Claim, Commit], refused: Collection[Claim]) -> None:
        self._books.committed(accepted, refused)

    def metadata_refused(self) -> None:
        self._books.metadata_refused()

    def _end(self, claims: Collection[Claim], kind: str) -> None:
        self._books.forget(self._trials.close(claims), kind)
        self._ledger.close(claims)
        self._changed(kind, claims)

    def _changed(self, kind: str, claims: Collection[Claim]) -> None:
        self._metrics.rebalances.labels(kind).inc()
        partitions = [f"{claim.topic}-{claim.partition}" for claim in claims]
        self._log.info("assignment changed", action=kind, partitions=partitions)


class TransactionalKeeper(Keeper):
    """The same where transactions commit: the last word on an assignment goes with its last answers."""

    def __init__(self, transactions: Transactions, *args: Any) -> None:
        super().__init__(*args)
        self._transactions = transactions

    def part(self, claims: Collection[Claim]) -> Mapping[Claim, Commit]:
        self._transactions.part(claims)
        return {}

    def _end(self, claims: Collection[Claim], kind: str) -> None:
        super()._end(claims, kind)
        self._books.forget(self._transactions.forget(claims), kind)


class Worker:
    """Runs until it is asked to stop and has answered what it holds, or until something fatal happens.

    Args:
        max_uncommitted: with so many records uncovered, none is polled.
        poisoned: the answer to a record that is not let run.
        outlets: without them no group is joined.
    """

    def __init__(
        self,
        intake: Intake,
        preprocess: Preprocess,
        feed: Feed,
        instances: Instances,
        replies: Stage,
        ledger: Book,
        trials: Admission,
        commits: Settlement,
        books: Endings,
        flow: Flow,
        pace: Pace,
        health: Health,
        server: HealthServer,
        metrics: Metrics,
        failure: Failure,
        shutdown: Shutdown,
        max_uncommitted: int,
        poisoned: Callable[[Record], Fault],
        outlets: Outlets,
        clock: Clock = monotonic,
    ) -> None:
        self._intake = intake
        self._preprocess = preprocess
        self._feed = feed
        self._instances = instances
        self._replies = replies
        self._ledger = ledger
        self._trials = trials
        self._commits = commits
        self._books = books
        self._flow = flow
        self._pace = pace
        self._health = health
        self._server = server
        self._metrics = metrics
        self._failure = failure
        self._shutdown = shutdown
        self._max_uncommitted = max_uncommitted
        self._poisoned = poisoned
        self._outlets = outlets
        self._clock = clock
        self._look_at = 0.0
        self._log = structlog.get_logger()

    def serve(self) -> None:
        """Serve until asked to stop, and until all that was held is answered and committed.

        This is the intake's thread; nobody else touches the Kafka consumer.

        Raises:
            FatalError: nothing was committed but what is answered.
        """
        with ExitStack() as stages:
            for stage in (self._server, self._replies, self._instances, self._preprocess):
                stages.enter_context(stage)
            self._log.info("listening", action="listening", port=self._server.port)
            try:
                if self._instances.wait_ready(lambda: self._shutdown.asked):
                    stages.enter_context(collector_spared())
                    self._health.beat()  # the load may have taken longer than a turn ever may
                    self._health.started = True
                    if self._wait_outlets():
                        stages.callback(self._intake.close)  # before the threads end: the next owner need not wait
                        self._intake.open()
                        self._log.info("serving", action="serving")
                        while not self._shutdown.asked:
                            self._turn()
                        self._drain()
            except BaseException as error:
                self._failure.report(error)  # the stages see it, and wait for nothing more
                raise

    def _wait_outlets(self) -> bool:
        """Join no group before all topics for answers are there; False when asked to stop first."""
        told: Mapping[str, str] = {}
        while (missing := self._outlets.missing()) and not self._shutdown.asked:
            if missing != told:
                told = missing
                self._log.error("topics are missing: create them", action="topics_missing", topics=missing)
            self._failure.check()
            self._health.beat()
            self._shutdown.wait(OUTLETS_AGAIN_S)
        return not self._shutdown.asked

    def _turn(self) -> None:
        # With too many uncovered commits are being refused; their reports come while we poll.
        # Of suspects the one to try may not be polled yet, and none goes in before.
        full = self._ledger.uncovered >= self._max_uncommitted and not (
            self._trials.suspicious and self._trials.choosing
        )
        self._take(self._intake.serve() if full else self._poll())
        self._keep()

    def _take(self, polled: Sequence[Record]) -> None:
        records = self._ledger.take(polled)
        if len(records) < len(polled):
            self._feed.passed(polled)  # some were answered in an earlier life
        self._flow.enter(records)
        self._let_in(records)  # also without any: what is held already may be what commits wait for

    def _poll(self) -> list[Record]:
        """The first record at once, then what is local; while there are suspects, one at a time, and no waiting."""
        unread = self._trials.unread()
        if (self._trials.opening or (self._trials.suspicious and not self._trials.choosing)) and not self._flow.room():
            unread = ()  # what is awaited is the report on a commit, or the end of a trial
        self._intake.read_only(unread)
        if self._trials.suspicious:
            return self._intake.poll(_ONE, wait_s=TRIAL_TURN_S)
        if self._trials.opening:
            return self._intake.poll(self._flow.room() or _ONE, wait_s=TRIAL_TURN_S)
        if not self._flow.room() and (self._starved() or self._commits.stuck):
            return self._intake.serve()  # what they wait for comes only while we poll
        self._pace.rest()
        room = self._flow.wait_for_room(TURN_S)
        room = Room(min(room.rows, self._max_uncommitted - self._ledger.uncovered), room.bytes)
        polled = self._intake.poll(room)
        self._pace.polled(len(polled), room.rows)
        return polled

    def _starved(self) -> bool:
        """Whether nothing goes on before a commit is heard of: all that is inside waits for it, or for company."""
        held = self._trials.held()
        return held > 0 and self._flow.rows - held <= self._feed.rows

    def _let_in(self, records: Sequence[Record]) -> None:
        run, poison = self._trials.admit(records)
        if poison:  # first: what runs beside it may end the process, and of a queue this may be the last delivery
            self._log.error("poison found", action="poison", offsets=[record.offset for record in poison])
            self._replies.publish([self._poisoned(record) for record in poison])
            self._feed.passed(poison)
        if run:
            self._preprocess.submit(run)  # returns at once; its threads fill the window
        if self._trials.suspicious:
            self._trials.reached(self._intake.positions())

    def _keep(self) -> None:
        """What every turn ends with: commits when they are due, a sign of life, and the end if a stage failed."""
        self._failure.check()
        self._health.beat()
        now = self._clock()
        looks = now >= self._look_at
        if looks:
            self._look_at = now + LOOK_EVERY_S
            for claim, position in self._intake.positions().items():
                self._ledger.advance(claim, position)
        self._intake.commit(self._commits.due(now))
        if looks:
            self._show()

    def _show(self) -> None:
        snapshot = self._intake.snapshot
        self._health.joined = snapshot.joined
        self._health.reachable = snapshot.reachable and self._replies.reachable
        self._metrics.lagging(snapshot.lag)
        self._metrics.assigned.set(snapshot.assigned)
        self._metrics.in_flight.set(self._flow.rows)
        self._metrics.in_flight_bytes.set(self._flow.bytes)
        self._metrics.uncommitted.set(self._ledger.uncovered)
        self._metrics.suspicious.set(self._trials.suspicious)

    def _drain(self) -> None:
        """Take nothing more, answer what is held, and poll on until the commit is accepted or time is over."""
        self._health.draining = True
        self._log.info("draining", action="draining", rows=self._flow.rows)
        self._feed.drain()
        self._books.forget(self._trials.finish(), "shutdown")
        while self._flow.rows or not self._commits.settled():
            if not self._shutdown.left_s:
                raise DrainTimeout(
                    f"{self._flow.rows} rows were not answered in time; raise limits.shutdown_ms"
                    if self._flow.rows
                    else "all is answered, but the last commit was not accepted: Kafka is away, or refuses it"
                )
            self._take(self._intake.serve())
            self._keep()
        self._log.info("drained", action="drained")
