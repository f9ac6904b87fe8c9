"""What is held under locks: each record ends once, and what is not started in time is released."""

import threading
from collections.abc import Iterable

from forebay_consumer.locks import End, Ended, Hold, Locks
from forebay_consumer.record import Record
from support.consumer import ManualClock, make_record


def _poll(
    locks: Locks, offsets: Iterable[int], epoch: int = 1, closes_s: float = float("inf")
) -> tuple[Hold, list[Record]]:
    records = [make_record(offset, epoch=epoch) for offset in offsets]
    return locks.open(records, closes_s), records


def _given_out(locks: Locks, hold: Hold) -> list[tuple[int, End]]:
    return [(ended.record.offset, ended.end) for ended in locks.wait(hold, 0)]


def test_what_a_poll_brought_is_given_on_once() -> None:
    locks = Locks()
    _, records = _poll(locks, range(3))
    assert locks.fresh(0) == records
    assert locks.fresh(0) == []
    assert locks.take(records) == records


def test_each_end_is_given_out_once_and_the_hold_is_over_after_the_last() -> None:
    locks = Locks()
    hold, (first, second) = _poll(locks, range(2))
    locks.done([first])
    assert locks.wait(hold, 0) == [Ended(first, End.ANSWERED)]
    assert hold.left == 1
    locks.drop([second])
    assert locks.wait(hold, 0) == [Ended(second, End.RELEASED)]
    assert hold.left == 0


def test_two_polls_of_one_partition_end_apart() -> None:
    locks = Locks()
    early, (first,) = _poll(locks, [7], epoch=1)
    late, (again,) = _poll(locks, [7], epoch=2)  # its lock had run out, and it came to another of our consumers
    locks.done([again])
    assert _given_out(locks, early) == []
    assert _given_out(locks, late) == [(7, End.ANSWERED)]
    locks.done([first])
    assert _given_out(locks, early) == [(7, End.ANSWERED)]


def test_a_hold_takes_until_its_time_and_is_owned_until_it_is_closed() -> None:
    clock = ManualClock()
    locks = Locks(clock)
    hold, (record,) = _poll(locks, [0], closes_s=6.0)
    locks.fresh(0)
    clock.advance(5.9)
    assert not locks.overdue()
    assert locks.takes(record.claim)
    clock.advance(0.1)
    assert locks.overdue()
    assert not locks.overdue(), "told once"
    assert not locks.takes(record.claim)
    assert locks.owns(record.claim), "who has run it answers it"
    locks.close(hold)
    assert not locks.owns(record.claim)


def test_what_nobody_took_in_time_is_released_and_not_given_on() -> None:
    clock = ManualClock()
    locks = Locks(clock)
    hold, _ = _poll(locks, range(2), closes_s=6.0)
    _poll(locks, [9], epoch=2, closes_s=20.0)
    clock.advance(6.0)
    locks.overdue()
    assert _given_out(locks, hold) == [(0, End.RELEASED), (1, End.RELEASED)]
    assert [record.offset for record in locks.fresh(0)] == [9]


def test_once_finishing_nothing_is_started_and_a_late_poll_is_released_whole() -> None:
    locks = Locks()
    held, (record,) = _poll(locks, [0])
    locks.fresh(0)
    waiting, _ = _poll(locks, [1], epoch=2)
    locks.finish()
    late, _ = _poll(locks, [2], epoch=3)
    assert not locks.takes(record.claim)
    assert _given_out(locks, held) == [], "it is with somebody, who ends it"
    assert _given_out(locks, waiting) == [(1, End.RELEASED)]
    assert _given_out(locks, late) == [(2, End.RELEASED)]
    assert locks.fresh(0) == []


def test_settled_when_every_hold_is_closed() -> None:
    locks = Locks()
    hold, records = _poll(locks, range(2))
    assert locks.uncovered == 2
    locks.done(records)
    assert locks.untold(records[0])
    locks.told(locks.wait(hold, 0))
    assert locks.uncovered == 0
    assert not locks.untold(records[0])
    assert not locks.settled(), "its consumer has not come round yet"
    locks.close(hold)
    assert locks.settled()
    assert locks.settled()


def test_an_end_of_a_closed_hold_is_ignored() -> None:
    locks = Locks()
    hold, records = _poll(locks, [0])
    locks.close(hold)
    locks.done(records)
    assert _given_out(locks, hold) == []


def test_a_wait_ends_with_the_first_end_and_with_a_stop() -> None:
    locks = Locks()
    hold, (first, _) = _poll(locks, range(2))
    seen: list[list[Ended]] = []

    def consumer() -> None:
        seen.append(locks.wait(hold, 60))
        seen.append(locks.wait(hold, 60))

    thread = threading.Thread(target=consumer, daemon=True)
    thread.start()
    locks.done([first])
    locks.stop()
    thread.join(30)
    assert not thread.is_alive()
    assert sum(map(len, seen)) == 1


def test_what_has_waited_in_the_client_for_too_long_is_released_at_once() -> None:
    locks = Locks(ManualClock(7.0))
    hold, _ = _poll(locks, range(2), closes_s=6.0)
    assert _given_out(locks, hold) == [(0, End.RELEASED), (1, End.RELEASED)]
    assert locks.fresh(0) == []
    assert not locks.stalled


def test_after_a_release_polling_is_of_no_use_until_something_is_answered() -> None:
    locks = Locks()
    _, (running, waiting) = _poll(locks, range(2))
    locks.fresh(0)
    locks.drop([waiting])
    locks.stall()
    before = locks.stalled
    assert before
    locks.done([running])
    assert not locks.stalled


def test_after_a_release_of_all_that_was_held_polling_goes_on() -> None:
    locks = Locks()
    hold, records = _poll(locks, range(2))
    locks.drop(records)
    locks.stall()
    before = locks.stalled
    assert before
    locks.close(hold)
    assert not locks.stalled


def test_with_nothing_held_polling_goes_on() -> None:
    locks = Locks()
    locks.stall()
    assert not locks.stalled, "no answer would tell when to poll again"


def test_on_its_last_delivery_a_record_is_not_released_but_left_to_be_answered() -> None:
    """Released, the broker would drop it without a word."""
    clock = ManualClock(10)
    locks = Locks(clock)
    hold, (last, other) = _poll(locks, range(2))
    last.last = True
    locks.finish()
    assert _given_out(locks, hold) == [(1, End.RELEASED)]
    assert locks.fresh(0) == [last]
    late = make_record(2, epoch=2)
    late.last = True
    closed = locks.open([late, make_record(3, epoch=2)], 5.0)
    assert _given_out(locks, closed) == [(3, End.RELEASED)]
    assert locks.fresh(0) == [late]
    assert other.offset == 1


def test_nothing_is_settled_while_a_poll_may_bring_something() -> None:
    locks = Locks()
    assert locks.begin_poll()
    locks.finish()
    assert not locks.settled()
    assert not locks.begin_poll()
    locks.end_poll()
    assert locks.settled()
