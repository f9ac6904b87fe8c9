"""Which deliveries of a share group are run, which are run alone, and which are answered unrun."""

from collections.abc import Collection, Sequence

import pytest

from forebay_consumer.deliveries import Deliveries, LockKeeper, answered_from, poisoned, runs_alone
from forebay_consumer.expiry import NO_EXPIRY
from forebay_consumer.feed import Feed
from forebay_consumer.flow import Flow
from forebay_consumer.locks import End, Locks
from forebay_consumer.metrics import Metrics
from forebay_consumer.record import Record
from forebay_consumer.window import Rules, Window
from forebay_schemas import Code
from support.consumer import ManualClock, make_item, make_record


@pytest.mark.parametrize(
    ("limit", "runs", "alone"),
    [
        pytest.param(2, [1], [], id="the least a broker allows"),
        pytest.param(3, [1, 2], [2], id="three"),
        pytest.param(5, [1, 2, 3], [3], id="a stock group's: one to spare"),
        pytest.param(10, [1, 2, 3, 4, 5, 6, 7, 8], [6, 7, 8], id="ours"),
    ],
)
def test_the_last_deliveries_are_never_run_and_the_later_ones_run_alone(
    limit: int, runs: list[int], alone: list[int]
) -> None:
    assert [delivery for delivery in range(1, limit + 1) if delivery < answered_from(limit)] == runs
    assert [delivery for delivery in runs if runs_alone(delivery, limit)] == alone


class Parts:
    """What lets records in, on one poll of theirs."""

    def __init__(self, records: Sequence[Record] = (), closes_s: float = 1e9, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock()
        self.locks = Locks(self.clock)
        self.feed = Feed(Window(Rules()), self.locks.takes, self.clock, expiry=NO_EXPIRY)
        self.flow = Flow(100, 1000)
        self.keeper = LockKeeper(self.locks, self.flow, self.feed, Metrics())
        self.deliveries = Deliveries(self.locks, self.feed, self.keeper)
        self.hold = self.locks.open(records, closes_s)
        self.flow.enter(self.locks.fresh(0))

    def answer(self, record: Record) -> None:
        self.keeper.answered([record])
        self.locks.told(self.locks.wait(self.hold, 0))


def _records(count: int, *, last: Collection[int] = (), alone: Collection[int] = ()) -> list[Record]:
    records = [make_record(offset) for offset in range(count)]
    for record in records:
        record.last, record.alone = record.offset in last, record.offset in alone
    return records


def test_what_is_on_its_last_deliveries_is_poison_and_the_rest_runs() -> None:
    records = _records(2, last=[1])
    assert Parts(records).deliveries.admit(records) == ([records[0]], [records[1]])


def test_what_is_to_run_alone_goes_in_when_the_broker_was_told_of_the_one_before() -> None:
    records = _records(3, alone=[0, 2])
    parts = Parts(records)
    assert parts.deliveries.admit(records) == ([records[1], records[0]], []), "others need not wait"
    assert parts.deliveries.suspicious
    parts.keeper.answered([records[0]])
    assert parts.deliveries.admit([]) == ([], []), "answered, and handed out again if the process died now"
    parts.locks.told(parts.locks.wait(parts.hold, 0))
    assert parts.deliveries.admit([]) == ([records[2]], [])
    assert not parts.deliveries.suspicious


def test_what_is_to_run_alone_waits_for_the_answers_to_what_is_not_run() -> None:
    records = _records(2, last=[0], alone=[1])
    parts = Parts(records)
    assert parts.deliveries.admit(records) == ([], [records[0]])
    parts.answer(records[0])
    assert parts.deliveries.admit([]) == ([records[1]], [])


def test_what_waits_to_run_alone_is_released_with_its_poll_and_at_the_end() -> None:
    records = _records(3, alone=[0, 1, 2])
    parts = Parts(records, closes_s=6.0)
    parts.deliveries.admit(records)
    parts.clock.advance(6.0)
    parts.keeper.sweep()
    parts.deliveries.admit([])
    assert [ended.record for ended in parts.locks.wait(parts.hold, 0)] == records[1:]
    assert parts.flow.rows == 1
    parts = Parts(records)
    parts.deliveries.admit(records)
    assert parts.deliveries.finish() == records[1:]


def test_poison_says_that_a_neighbour_may_be_the_cause() -> None:
    record = make_record(3, value=b"text", key=b"mine")
    record.delivery = 9
    fault = poisoned(record)
    assert (fault.code, fault.stage, fault.attempts, fault.envelope.id) == (Code.POISON, "delivery", 9, "mine")
    assert "9 times" in fault.message
    assert "another request" in fault.message


def test_what_waits_when_its_time_is_over_is_released_and_leaves_no_trace() -> None:
    late, early = make_item(1, epoch=1), make_item(2, epoch=2)
    parts = Parts([late.record], closes_s=6.0)
    other = parts.locks.open([early.record], closes_s=9.0)
    parts.flow.enter(parts.locks.fresh(0))
    assert parts.feed.put([late, early]) == []
    parts.clock.advance(6.0)
    parts.keeper.sweep()
    assert [ended.end for ended in parts.locks.wait(parts.hold, 0)] == [End.RELEASED]
    assert parts.locks.wait(other, 0) == []
    assert parts.locks.stalled
    assert parts.flow.rows == 1
    batch = parts.feed.pull()
    assert batch is not None
    assert batch.items == [early], "what was released is never run"


def test_a_slow_pass_alone_is_no_reason_to_poll_no_more() -> None:
    parts = Parts([make_record(1)], closes_s=6.0)
    parts.clock.advance(6.0)
    parts.keeper.sweep()
    assert not parts.locks.stalled


def test_finishing_gives_back_what_waits() -> None:
    item = make_item(1)
    parts = Parts([item.record])
    parts.feed.put([item])
    assert parts.deliveries.finish() == [item.record]
