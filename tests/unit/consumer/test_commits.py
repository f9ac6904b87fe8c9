"""What is committed when."""

from forebay_consumer.commits import Commits
from forebay_consumer.ledger import Ledger
from forebay_consumer.progress import Progress
from forebay_consumer.record import Claim
from forebay_consumer.trials import Trials
from support.consumer import make_record

CLAIM = Claim("requests", 0, 1)


def test_a_commit_waits_for_the_fate_of_the_one_before() -> None:
    ledger, trials = Ledger(), Trials(2, ahead=100, life="0" * 16)
    commits = Commits(ledger, trials, interval_s=0.2)
    ledger.open(CLAIM, 0)
    trials.open(CLAIM, 0, Progress(), 0)
    records = ledger.take([make_record(offset) for offset in range(3)])
    commits.accepted(commits.due(0.0))  # the opening one
    ledger.done(records[:1])
    first = commits.due(1.0)
    assert first[CLAIM].offset == 1
    ledger.done(records[1:2])
    assert commits.due(2.0) == {}, "sent again, the first would set the second back"
    commits.accepted(first)
    second = commits.due(3.0)
    assert second[CLAIM].offset == 2
    ledger.done(records[2:])
    commits.refused([CLAIM])
    assert commits.due(4.0)[CLAIM].offset == 3
