"""One turn of the intake's thread."""

from unittest.mock import MagicMock

import pytest

from forebay_consumer.flow import Flow, Room
from forebay_consumer.pace import FULL, Pace
from forebay_consumer.record import Record
from forebay_consumer.worker import Worker
from support.consumer import ManualClock, make_record


class Site(Flow):
    """A worker whose polls bring what they are told to; notes polls and rests in their order."""

    def __init__(self, *polls: int) -> None:
        super().__init__(10_000, 10_000_000)
        self.said: list[str] = []
        self.rooms: list[int] = []
        self._polls = iter(polls)
        intake = MagicMock(poll=self._poll)
        ledger = MagicMock(uncovered=0, take=list)
        self.intake = intake
        self.trials = trials = MagicMock(suspicious=False, opening=False, admit=lambda _: ([], []))
        others = [MagicMock() for _ in range(9)]
        self.worker = Worker(
            intake, others[0], others[1], others[2], others[3], ledger, trials, others[4], others[5], self,
            Pace(self, 1.0, clock=ManualClock()), others[6], others[7], others[8], MagicMock(), MagicMock(), 10_000,
            MagicMock(), MagicMock(), ManualClock(),
        )  # fmt: skip

    def _poll(self, room: Room, **_: object) -> list[Record]:
        self.said.append("poll")
        self.rooms.append(room.rows)
        return [make_record(offset) for offset in range(next(self._polls))]

    def wait_empty(self, timeout_s: float) -> None:
        self.said.append("rest")


def test_it_rests_after_a_poll_that_took_all_there_was_and_not_after_others() -> None:
    site = Site(1, FULL, 0, 2, 500)
    for _ in range(5):
        site.worker._turn()
    assert site.said == ["poll", "rest", "poll", "poll", "poll", "rest", "poll"]


@pytest.mark.parametrize(
    ("suspicious", "choosing", "opening", "reads_on"),
    [
        pytest.param(True, True, False, True, id="the next suspect may be one that was not polled yet"),
        pytest.param(True, False, False, False, id="a suspect runs"),
        pytest.param(False, False, True, False, id="the first commit is awaited"),
    ],
)
def test_with_no_room_only_who_chooses_a_suspect_reads_on(
    suspicious: bool, choosing: bool, opening: bool, reads_on: bool
) -> None:
    """After a death there may be thousands of suspects, of a megabyte each."""
    site = Site(0, 0)
    suspects = [make_record(0).claim]
    site.trials.configure_mock(suspicious=suspicious, choosing=choosing, opening=opening, unread=lambda: suspects)
    site.worker._turn()
    assert site.intake.read_only.call_args.args == (suspects,), "there is room"
    site.enter([make_record(0, size=10_000_000)])
    site.worker._turn()
    assert site.intake.read_only.call_args.args == ((suspects if reads_on else ()),)


@pytest.mark.parametrize(
    ("held", "waiting", "hears"),
    [
        pytest.param(10, 0, True, id="all waits for a commit"),
        pytest.param(6, 4, True, id="the others wait for company, which is held"),
        pytest.param(6, 3, False, id="one runs, and makes room"),
        pytest.param(0, 10, False, id="none is held: they go without company"),
    ],
)
def test_with_no_room_a_commit_is_heard_of_where_all_waits_for_it(held: int, waiting: int, hears: bool) -> None:
    site = Site(0)
    site.enter([make_record(offset, size=1_000_000) for offset in range(10)])
    site.trials.held = lambda: held
    site.worker._feed, site.worker._commits = MagicMock(rows=waiting), MagicMock(stuck=False)
    site.intake.serve.return_value = []
    site.worker._turn()
    assert site.intake.serve.called is hears


def test_too_much_uncommitted_does_not_keep_out_the_suspect_that_all_wait_for() -> None:
    site = Site(0)
    site.worker._ledger.uncovered = 10_000  # type: ignore[misc]
    site.trials.configure_mock(suspicious=True, choosing=False)
    site.worker._turn()
    assert site.said == []
    site.trials.configure_mock(choosing=True)
    site.worker._turn()
    assert site.said == ["poll"]


def test_no_more_is_polled_than_may_be_uncommitted() -> None:
    site = Site(0)
    site.worker._max_uncommitted, site.worker._ledger.uncovered = 10, 7  # type: ignore[misc]
    site.worker._turn()
    assert site.rooms == [3]


def test_nobody_waits_for_what_an_earlier_life_has_answered_or_is_poison() -> None:
    site = Site(3, 1)
    site.worker._ledger.take = lambda records: list(records)[:1]  # type: ignore[method-assign]
    site.worker._turn()
    assert [record.offset for record in site.worker._feed.passed.call_args.args[0]] == [0, 1, 2]  # type: ignore[attr-defined]
    poison = make_record(7)
    site.trials.admit = lambda _: ([], [poison])
    site.worker._turn()
    assert site.worker._feed.passed.call_args.args == ([poison],)  # type: ignore[attr-defined]


def test_poison_is_answered_before_anything_beside_it_runs() -> None:
    site, told = Site(0), MagicMock()
    site.worker._preprocess, site.worker._replies = told.preprocess, told.replies
    site.trials.admit = lambda _: ([make_record(1)], [make_record(0)])
    site.worker._turn()
    assert [call[0] for call in told.method_calls] == ["replies.publish", "preprocess.submit"]


def test_what_must_be_answered_is_answered_while_the_worker_drains() -> None:
    site = Site()
    last = make_record(7)
    site.trials.admit = lambda records: ([], list(records))
    site.intake.serve.side_effect = [[last], []]
    site.worker._commits.settled.side_effect = [False, True]  # type: ignore[attr-defined]
    answered: list[object] = []

    def publish(_: object) -> None:
        answered.append(site.worker._poisoned.call_args.args[0])  # type: ignore[attr-defined]
        site.leave([last])

    site.worker._replies.publish = publish  # type: ignore[method-assign, assignment]
    site.worker._drain()
    assert answered == [last]
    assert site.rows == 0
