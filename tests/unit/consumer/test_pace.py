"""Between polls that bring little the intake rests: while something is inside, or while more come fast."""

import threading

import pytest

from forebay_consumer.flow import Flow
from forebay_consumer.pace import FEW, GATHER_S, LOOK_S, REST_S, Pace
from support.consumer import ManualClock, make_record


class Resting(Flow):
    """Notes how long it was waited for."""

    def __init__(self) -> None:
        super().__init__(100, 10_000)
        self.waited: list[float] = []

    def wait_empty(self, timeout_s: float) -> None:
        self.waited.append(timeout_s)


@pytest.mark.parametrize(
    ("polled", "room", "waited"),
    [
        (0, 100, []),
        (1, 100, [REST_S]),
        (FEW - 1, 100, [REST_S]),
        (FEW, 100, []),
        (500, 1000, []),
        (2, 2, []),
        (2, 3, [REST_S]),
    ],
    ids=str,
)
def test_it_rests_after_a_poll_that_brought_few(polled: int, room: int, waited: list[float]) -> None:
    flow = Resting()
    pace = Pace(flow)
    pace.rest()
    assert not flow.waited
    pace.polled(polled, room)
    pace.rest()
    assert flow.waited == waited


class Polls:
    """Polls of a size at a steady rate, for longer than the rate is counted over; notes what is slept."""

    def __init__(self, records: int, per_s: float) -> None:
        self.clock = ManualClock()
        self.slept: list[float] = []
        self.flow = Resting()
        self.pace = Pace(self.flow, self.clock, self.slept.append)
        self.come(records, per_s)

    def come(self, records: int, per_s: float) -> None:
        until = self.clock() + 2.5 * LOOK_S
        while self.clock() < until:
            self.clock.advance(records / per_s)
            self.pace.polled(records, 1000)


ENOUGH = FEW / GATHER_S  # per second


def test_where_a_few_milliseconds_bring_enough_it_rests_until_they_are_there() -> None:
    polls = Polls(4, 2 * ENOUGH)
    polls.clock.advance(0.0005)
    polls.pace.rest()
    assert polls.slept == [pytest.approx(GATHER_S / 2 - 0.0005)]
    assert not polls.flow.waited, "whatever is inside"


def test_no_such_rest_is_longer_than_stated() -> None:
    polls = Polls(4, 1.001 * ENOUGH)
    polls.pace.rest()
    assert polls.slept == [pytest.approx(GATHER_S, rel=0.01)]


def test_what_comes_more_slowly_is_not_gathered() -> None:
    polls = Polls(4, 0.98 * ENOUGH)
    polls.pace.rest()
    assert not polls.slept
    assert polls.flow.waited == [REST_S]


def test_a_turn_that_took_long_needs_no_rest() -> None:
    polls = Polls(4, 2 * ENOUGH)
    polls.clock.advance(GATHER_S)
    polls.pace.rest()
    assert not polls.slept
    assert not polls.flow.waited


def test_a_burst_that_is_over_is_forgotten() -> None:
    polls = Polls(4, 2 * ENOUGH)
    polls.come(1, 100)
    polls.pace.rest()
    assert not polls.slept


def test_a_poll_that_brought_enough_is_followed_at_once() -> None:
    polls = Polls(FEW, 2 * ENOUGH)
    polls.pace.rest()
    assert not polls.slept
    assert not polls.flow.waited


def test_with_nothing_inside_nobody_waits() -> None:
    flow = Flow(100, 10_000)
    flow.wait_empty(3600)
    record = make_record()
    flow.enter([record])
    flow.leave([record])
    flow.wait_empty(3600)


def test_the_wait_is_over_when_the_last_leaves() -> None:
    flow = Flow(100, 10_000)
    records = [make_record(0), make_record(1)]
    flow.enter(records)
    waiting = threading.Thread(target=flow.wait_empty, args=(3600,))
    waiting.start()
    flow.leave(records[:1])
    waiting.join(0.1)
    assert waiting.is_alive()
    flow.leave(records[1:])
    waiting.join(60)
    assert not waiting.is_alive()


def test_the_wait_is_over_in_any_case() -> None:
    flow = Flow(100, 10_000)
    flow.enter([make_record()])
    flow.wait_empty(0.001)
    assert flow.rows == 1
