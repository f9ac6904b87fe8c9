"""What a worker says last of the partitions that it gives back."""

import pytest

from forebay_consumer.books import Books
from forebay_consumer.commits import Commits
from forebay_consumer.errors import DeviceLost, DrainTimeout, FatalError, KafkaFailure
from forebay_consumer.expiry import NO_EXPIRY
from forebay_consumer.failure import Failure
from forebay_consumer.feed import Feed
from forebay_consumer.flow import Flow
from forebay_consumer.intake.base import Start
from forebay_consumer.ledger import Ledger
from forebay_consumer.metrics import Metrics
from forebay_consumer.progress import Progress, Trial, decode
from forebay_consumer.record import Claim
from forebay_consumer.trials import Trials
from forebay_consumer.window import Rules, Window
from forebay_consumer.worker import Keeper
from support.consumer import make_record

CLAIM = Claim("requests", 0, 1)
EARLIER, THIS = "f" * 16, "0123456789abcdef"


class Kept:
    """A worker that runs record 0 alone, which was on trial in another life."""

    def __init__(self, *, outage: bool = False) -> None:
        self.ledger, self.trials, self.failure, metrics = Ledger(), Trials(2, 4, THIS), Failure(), Metrics()
        self.commits = Commits(self.ledger, self.trials, 1.0)
        self.books = Books(self.ledger, self.trials, self.commits, Flow(10, 10**6), metrics)
        feed = Feed(Window(Rules()), self.ledger.takes, expiry=NO_EXPIRY)
        self.keeper = Keeper(self.ledger, self.trials, self.commits, self.books, feed, metrics, self.failure, 10.0)
        found = Progress(True, 1, Trial(0, 1), life=EARLIER)
        self.keeper.assigned({CLAIM: Start(0, found, 1, outage)})
        self.trials.admit(self.ledger.take([make_record(0)]))

    def runs(self) -> None:
        self.books.committed(self.commits.due(0.0), ())
        assert [record.offset for record in self.trials.admit([])[0]] == [0]


def test_a_worker_that_no_record_ended_says_that_it_counts_for_no_death() -> None:
    kept = Kept()
    kept.runs()
    kept.failure.report(KafkaFailure("no right to write"))
    (parting,) = kept.keeper.revoked([CLAIM]).values()
    assert decode(parting.metadata, parting.offset) == Progress(True, 1, Trial(0, 1), life=THIS)


@pytest.mark.parametrize(
    "error", [DeviceLost("a broken context"), FatalError("the model's"), MemoryError(), DrainTimeout("a pass hangs")]
)
def test_a_worker_that_a_record_may_have_ended_says_nothing_more(error: Exception) -> None:
    kept = Kept()
    kept.runs()
    kept.failure.report(error)
    assert kept.keeper.revoked([CLAIM]) == {}


def test_a_trial_of_before_an_outage_that_was_noticed_counts_for_no_death() -> None:
    kept = Kept(outage=True)
    (commit,) = kept.commits.due(0.0).values()
    assert decode(commit.metadata, commit.offset).trial == Trial(0, 1), "its first, not its second"
