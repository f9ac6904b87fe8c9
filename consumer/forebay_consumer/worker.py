"""The stages of a worker, joined: poll → preprocess → window → forward → publish → done → commit."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from typing import Final

import structlog

from forebay_consumer.clock import Clock, monotonic
from forebay_consumer.errors import DrainTimeout
from forebay_consumer.failure import Failure
from forebay_consumer.feed import Feed
from forebay_consumer.flow import Flow
from forebay_consumer.health import Health, HealthServer
from forebay_consumer.instance import Instances
from forebay_consumer.intake.base import Intake
from forebay_consumer.ledger import Ledger
from forebay_consumer.metrics import Metrics
from forebay_consumer.preprocess import Preprocess
from forebay_consumer.record import Claim, Record
from forebay_consumer.replies import Replies
from forebay_consumer.shutdown import Shutdown

TURN_S: Final = 0.05


class Keeper:
    """What the intake tells of the assignment, carried over to ledger, window and flow. Runs on the intake's thread."""

    def __init__(
        self, ledger: Ledger, flow: Flow, feed: Feed, metrics: Metrics, failure: Failure, drain_s: float
    ) -> None:
        self._ledger = ledger
        self._flow = flow
        self._feed = feed
        self._metrics = metrics
        self._failure = failure
        self._drain_s = drain_s
        self._log = structlog.get_logger()

    def assigned(self, starts: Mapping[Claim, int]) -> None:
        for claim, start in starts.items():
            self._ledger.open(claim, start)
        self._changed("assigned", starts)

    def revoked(self, claims: Collection[Claim]) -> Mapping[Claim, int]:
        self._ledger.revoking(claims)
        self.give_up([item.record for item in self._feed.drop()], "revoked")
        if not self._failure.happened:
            self._ledger.wait_answered(claims, self._drain_s)
        watermarks = self._ledger.watermarks(claims)
        self._ledger.close(claims)
        self._changed("revoked", claims)
        return watermarks

    def lost(self, claims: Collection[Claim]) -> None:
        self._ledger.close(claims)
        self.give_up([item.record for item in self._feed.drop()], "lost")
        self._changed("lost", claims)

    def committed(self, accepted: Mapping[Claim, int], refused: Collection[Claim]) -> None:
        for claim, offset in accepted.items():
            self._ledger.accepted(claim, offset)
        for claim in refused:
            self._ledger.refused(claim)
        self._metrics.commits.labels("accepted").inc(bool(accepted))
        self._metrics.commits.labels("refused").inc(bool(refused))

    def answered(self, records: Sequence[Record]) -> None:
        """The broker confirmed the replies to these records."""
        self._ledger.done(records)
        self._flow.leave(records)

    def give_up(self, records: Sequence[Record], reason: str) -> None:
        """These records end here unanswered; whoever owns their partition next runs them."""
        if records:
            self._ledger.drop(records)
            self._flow.leave(records)
            self._metrics.dropped.labels(reason).inc(len(records))

    def _changed(self, kind: str, claims: Collection[Claim]) -> None:
        self._metrics.rebalances.labels(kind).inc()
        partitions = [f"{claim.topic}-{claim.partition}" for claim in claims]
        self._log.info("assignment changed", action=kind, partitions=partitions)


class Worker:
    """Runs until it is asked to stop and has answered what it holds, or until something fatal happens."""

    def __init__(
        self,
        intake: Intake,
        preprocess: Preprocess,
        feed: Feed,
        instances: Instances,
        replies: Replies,
        ledger: Ledger,
        flow: Flow,
        health: Health,
        server: HealthServer,
        metrics: Metrics,
        failure: Failure,
        shutdown: Shutdown,
        commit_interval_s: float,
        max_uncommitted: int,
        clock: Clock = monotonic,
    ) -> None:
        self._intake = intake
        self._preprocess = preprocess
        self._feed = feed
        self._instances = instances
        self._replies = replies
        self._ledger = ledger
        self._flow = flow
        self._health = health
        self._server = server
        self._metrics = metrics
        self._failure = failure
        self._shutdown = shutdown
        self._commit_interval_s = commit_interval_s
        self._max_uncommitted = max_uncommitted
        self._clock = clock
        self._commit_at = 0.0
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
                    self._health.beat()  # the load may have taken longer than a turn ever may
                    self._health.started = True
                    stages.callback(self._intake.close)  # before the threads end: the next owner need not wait for them
                    self._intake.open()
                    self._log.info("serving", action="serving")
                    while not self._shutdown.asked:
                        self._turn()
                    self._drain()
            except BaseException as error:
                self._failure.report(error)  # the stages see it, and wait for nothing more
                raise

    def _turn(self) -> None:
        if self._ledger.uncovered >= self._max_uncommitted:
            self._intake.serve()  # commits are being refused; their reports come while we poll
        else:
            records = self._intake.poll(self._flow.wait_for_room(TURN_S))  # the first at once, then what is local
            if records:
                self._ledger.take(records)
                self._flow.enter(records)
                self._preprocess.submit(records)  # returns at once; its threads fill the window
        self._keep()

    def _keep(self) -> None:
        """What every turn ends with: commits when they are due, a sign of life, and the end if a stage failed."""
        self._failure.check()
        self._health.beat()
        now = self._clock()
        if now < self._commit_at:
            return
        self._commit_at = now + self._commit_interval_s
        for claim, position in self._intake.positions().items():
            self._ledger.advance(claim, position)
        self._intake.commit(self._ledger.commits())
        snapshot = self._intake.snapshot
        self._health.joined, self._health.reachable = snapshot.joined, snapshot.reachable
        self._metrics.lagging(snapshot.lag)
        self._metrics.assigned.set(len(snapshot.lag))
        self._metrics.in_flight.set(self._flow.rows)
        self._metrics.in_flight_bytes.set(self._flow.bytes)
        self._metrics.uncommitted.set(self._ledger.uncovered)

    def _drain(self) -> None:
        """Take nothing more, answer what is held, and poll on until the commit is accepted or time is over."""
        self._health.draining = True
        self._log.info("draining", action="draining", rows=self._flow.rows)
        self._feed.drain()
        while self._flow.rows or not self._ledger.settled():
            if not self._shutdown.left_s:
                raise DrainTimeout(f"{self._flow.rows} rows were not answered in time; raise limits.shutdown_ms")
            self._intake.serve()
            self._keep()
        self._log.info("drained", action="drained")
