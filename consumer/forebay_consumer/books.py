"""What is inside the worker, and what becomes of it, entered wherever it is counted."""

from collections.abc import Collection, Mapping, Sequence

import structlog

from forebay_consumer.commits import Commits
from forebay_consumer.flow import Flow
from forebay_consumer.ledger import Ledger
from forebay_consumer.metrics import Metrics
from forebay_consumer.progress import Commit
from forebay_consumer.record import Claim, Record
from forebay_consumer.trials import Trials


class Books:
    """Thread-safe, as all the parts are that it writes to."""

    def __init__(self, ledger: Ledger, trials: Trials, commits: Commits, flow: Flow, metrics: Metrics) -> None:
        self._ledger = ledger
        self._trials = trials
        self._commits = commits
        self._flow = flow
        self._metrics = metrics
        self._log = structlog.get_logger()

    def answered(self, records: Sequence[Record]) -> None:
        """The broker confirmed the replies to these records."""
        self._ledger.done(records)
        self._flow.leave(records)
        self._trials.ended(records)

    def ready(self, records: Sequence[Record]) -> None:
        """The answers to these records wait for a transaction; what could end the process is over."""
        self._ledger.ready(records)
        self._trials.ended(records)

    def ready_again(self, records: Sequence[Record]) -> None:
        """These were withdrawn from the next transaction, and may now be in one."""
        self._ledger.ready(records)

    def published(self, records: Sequence[Record]) -> None:
        """A transaction carried the answers of these records, which were `ready`."""
        self._ledger.published(records)
        self._flow.leave(records)

    def give_up(self, records: Sequence[Record], reason: str) -> None:
        """These records, which were let in, end here unanswered; whoever owns their partition next runs them."""
        if records:
            self.forget(records, reason)
            self._trials.ended(records, ran=reason == "late")

    def forget(self, records: Sequence[Record], reason: str) -> None:
        """The same of records that were polled and not let in, or of `ready` ones."""
        if records:
            self._ledger.drop(records)
            self._flow.leave(records)
            self._metrics.dropped.labels(reason).inc(len(records))

    def committed(self, accepted: Mapping[Claim, Commit], refused: Collection[Claim]) -> None:
        """The broker's word on a commit."""
        self._commits.accepted(accepted)
        self._commits.refused(refused)
        self._metrics.commits.labels("accepted").inc(bool(accepted))
        self._metrics.commits.labels("refused").inc(bool(refused))

    def metadata_refused(self) -> None:
        """The broker does not keep so long a text beside an offset."""
        allowed = self._commits.say_less()
        self._log.warning(
            "the broker refuses so long a text beside an offset; raise offset.metadata.max.bytes to 4096",
            action="metadata_refused",
            next_characters=allowed,
        )
