"""What is committed when."""

from collections.abc import Collection

import pytest

from forebay_consumer.commits import AGAIN_AFTER_S, AGAIN_AT_MOST_S, Commits
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


class Broker:
    """Refuses all of a commit in which one of the `bad` is."""

    def __init__(self, *places: int, bad: Collection[int] = (), turn_s: float = 0.01) -> None:
        self.claims = [Claim("requests", place, 1) for place in places]
        self.bad = set(bad)
        self.asked: list[list[int]] = []
        self.now = 0.0
        self._turn_s = turn_s
        self._ledger, trials = Ledger(), Trials(2, ahead=100, life="0" * 16)
        self._commits = Commits(self._ledger, trials, interval_s=0.2)
        for claim in self.claims:
            self._ledger.open(claim, 0)
            trials.open(claim, 0, Progress(), 0)

    def answer(self) -> None:
        """One more of each."""
        for claim in self.claims:
            offset = self._ledger.marks([claim])[claim].offset
            self._ledger.done(self._ledger.take([make_record(offset, partition=claim.partition)]))

    def go_on(self, for_s: float) -> None:
        until = self.now + for_s
        while self.now < until:
            self.now += self._turn_s
            if commits := self._commits.due(self.now):
                places = sorted(claim.partition for claim in commits)
                self.asked.append(places)
                well = not self.bad.intersection(places)
                self._commits.accepted(commits if well else {})
                self._commits.refused([] if well else list(commits))

    def uncovered(self) -> int:
        return self._ledger.uncovered


def test_one_assignment_that_is_refused_holds_up_no_other() -> None:
    broker = Broker(0, 1, 2, bad=[1])
    broker.go_on(3.0)
    for _ in range(5):
        broker.answer()
        broker.go_on(0.5)
    assert broker.uncovered() == 5, "those of the refused one"
    assert broker.asked[0] == [0, 1, 2]
    assert [0, 2] in broker.asked[-8:]


@pytest.mark.parametrize("turn_s", [0.01, 0.2], ids=["turns shorter than the interval", "as long"])
def test_of_those_that_were_all_refused_none_waits_for_the_others_to_rest(turn_s: float) -> None:
    broker = Broker(0, 1, 2, turn_s=turn_s)
    broker.go_on(0.5)
    broker.bad.update([0, 1, 2])
    broker.answer()
    broker.go_on(0.3)
    broker.bad.clear()
    for _ in range(20):
        broker.answer()
        broker.go_on(0.2)
    assert broker.uncovered() <= 2 * len(broker.claims)


@pytest.mark.parametrize("bad", [0, 7, 56, 96, 199])
def test_many_that_were_refused_for_a_while_are_soon_accepted_again_though_one_is_bad(bad: int) -> None:
    broker = Broker(*range(200), bad=range(200), turn_s=0.05)
    broker.go_on(1.0)
    broker.bad = {bad}
    broker.go_on(3 * AGAIN_AT_MOST_S)
    broker.answer()
    broker.go_on(6 * AGAIN_AT_MOST_S)
    assert broker.uncovered() == 1
    assert len(broker.asked) < len(broker.claims) / 2, "far fewer than one by one"


def test_the_order_of_those_that_were_refused_is_their_own() -> None:
    """And not that of a set of them, which differs from process to process."""
    asked = []
    for places in (range(200), reversed(range(200))):
        broker = Broker(*places, bad=range(200), turn_s=0.05)
        broker.go_on(1.0)
        broker.bad = {7}
        broker.go_on(3 * AGAIN_AT_MOST_S)
        asked.append(broker.asked)
    assert asked[0] == asked[1]


def test_what_is_refused_is_asked_again_more_and_more_seldom_until_it_is_accepted() -> None:
    broker = Broker(0, bad=[0])
    broker.go_on(1.5 * AGAIN_AFTER_S)
    assert len(broker.asked) == 2
    broker.go_on(10.0)
    assert 10 / AGAIN_AT_MOST_S <= len(broker.asked) <= 10 / AGAIN_AT_MOST_S + 6
    broker.bad.clear()
    broker.answer()
    broker.go_on(AGAIN_AT_MOST_S + 0.5)
    assert broker.uncovered() == 0
    broker.bad.add(0)
    asked = len(broker.asked)
    broker.answer()
    broker.go_on(0.6)
    assert len(broker.asked) >= asked + 2, "and then as soon as at first"
