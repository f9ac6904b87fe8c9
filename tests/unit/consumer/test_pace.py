"""Between polls that bring little the intake rests: while something is inside, or while more come fast."""

import math
import threading

import pytest

from forebay_consumer.flow import Flow
from forebay_consumer.pace import FULL, GATHER_S, KEEPS, LOOK_S, MANY, PAUSE_S, REST_S, WORTH, Pace
from support.consumer import ManualClock, make_record


class Resting(Flow):
    """Notes how long it was waited for."""

    def __init__(self) -> None:
        super().__init__(100, 10_000)
        self.waited: list[float] = []

    def wait_empty(self, timeout_s: float) -> None:
        self.waited.append(timeout_s)


LINGER_S = 1.0


@pytest.mark.parametrize(
    ("polled", "room", "waited"),
    [
        (0, 100, []),
        (1, 100, [REST_S]),
        (FULL - 1, 1000, [REST_S]),
        (FULL, 1000, []),
        (500, 1000, []),
        (2, 2, []),
        (2, 3, [REST_S]),
    ],
    ids=str,
)
def test_it_rests_after_a_poll_that_took_all_there_was(polled: int, room: int, waited: list[float]) -> None:
    flow = Resting()
    pace = Pace(flow, LINGER_S, clock=ManualClock())
    pace.rest()
    assert not flow.waited
    pace.polled(polled, room)
    pace.rest()
    assert flow.waited == waited


def test_where_a_poll_brings_no_more_than_so_many_those_are_followed_at_once() -> None:
    flow = Resting()
    pace = Pace(flow, LINGER_S, 32, clock=ManualClock())
    for records in (32, 31):
        pace.polled(records, 100)
        pace.rest()
    assert flow.waited == [REST_S]


@pytest.mark.parametrize(("linger_s", "waited"), [(0.0, []), (REST_S / 2, [REST_S / 2])], ids=str)
def test_no_rest_is_longer_than_a_request_may_wait_for_company(linger_s: float, waited: list[float]) -> None:
    flow = Resting()
    pace = Pace(flow, linger_s, clock=ManualClock())
    pace.polled(1, 100)
    pace.rest()
    assert flow.waited == waited


ENOUGH = WORTH / GATHER_S  # per second


class Polls:
    """Polls at a steady rate; notes what is slept between them."""

    def __init__(self, records: int, per_s: float, *, linger_s: float = LINGER_S, room: int = 1000) -> None:
        self.clock = ManualClock()
        self.slept: list[float] = []
        self.flow = Resting()
        self.room = room
        self.pace = Pace(self.flow, linger_s, clock=self.clock, sleep=self.slept.append)
        self.come(records, per_s)

    def come(self, records: int, per_s: float, windows: float = 1.5) -> None:
        until = self.clock() + windows * LOOK_S
        while self.clock() < until:
            self.clock.advance(records / per_s)
            self.pace.polled(records, self.room)


@pytest.mark.parametrize("linger_s", [LINGER_S, 0.8 * GATHER_S], ids=str)
@pytest.mark.parametrize("records", [4, MANY - 1], ids=str)
def test_where_a_few_milliseconds_bring_a_good_batch_it_rests_for_them(records: int, linger_s: float) -> None:
    polls = Polls(records, 2 * ENOUGH, linger_s=linger_s)
    polls.clock.advance(0.0005)
    polls.pace.rest()
    assert polls.slept == [pytest.approx(min(GATHER_S, linger_s) - 0.0005)]
    assert not polls.flow.waited, "whatever is inside"


def test_it_rests_for_no_longer_than_many_take() -> None:
    polls = Polls(4, 2 * MANY / GATHER_S)
    polls.pace.rest()
    assert polls.slept == [pytest.approx(GATHER_S / 2, rel=0.02)]


def test_it_rests_for_no_more_than_there_is_room_for() -> None:
    polls = Polls(2, 2 * ENOUGH, room=WORTH // 2)
    polls.pace.rest()
    assert polls.slept == [pytest.approx(GATHER_S / 4, rel=0.02)]


def test_what_comes_more_slowly_is_not_gathered() -> None:
    polls = Polls(4, 0.9 * ENOUGH)
    polls.pace.rest()
    assert not polls.slept
    assert polls.flow.waited == [REST_S]


def test_with_little_linger_only_what_comes_faster_is_gathered() -> None:
    polls = Polls(4, 1.5 * ENOUGH, linger_s=GATHER_S / 2)
    polls.pace.rest()
    assert not polls.slept


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


def test_after_many_it_rests_no_longer_than_they_are_inside() -> None:
    polls = Polls(MANY, 2 * ENOUGH)
    polls.pace.rest()
    assert not polls.slept
    assert polls.flow.waited == [REST_S]


def test_a_poll_of_a_backlog_is_followed_at_once() -> None:
    polls = Polls(FULL, 20 * ENOUGH)
    polls.pace.rest()
    assert not polls.slept
    assert not polls.flow.waited


def gathers(polls: Polls) -> bool:
    before = len(polls.slept)
    polls.pace.rest()
    return len(polls.slept) > before


def pause_s(polls: Polls) -> float:
    """Gathering, which brings fewer from now on, is given up; for so long."""

    def until_gathering_is(wanted: bool, per_s: float) -> float:
        began = polls.clock()
        while gathers(polls) is not wanted and polls.clock() < began + 60:
            polls.come(4, per_s, windows=0.1)
        return polls.clock() - began

    assert gathers(polls)
    until_gathering_is(False, (KEEPS - 0.05) * 2 * ENOUGH)
    return until_gathering_is(True, 2 * ENOUGH)


def test_where_gathering_brings_fewer_it_is_left_alone_for_longer_and_longer() -> None:
    polls = Polls(4, 2 * ENOUGH)
    pauses = [pause_s(polls) for _ in range(3)]
    assert pauses == [pytest.approx(wanted_s, abs=3 * LOOK_S) for wanted_s in (PAUSE_S, 2 * PAUSE_S, 4 * PAUSE_S)]


def test_where_it_was_good_in_between_the_pauses_begin_anew() -> None:
    polls = Polls(4, 2 * ENOUGH)
    pauses = [pause_s(polls), pause_s(polls)]
    polls.come(4, 2 * ENOUGH, windows=5)
    pauses.append(pause_s(polls))
    assert pauses == [pytest.approx(wanted_s, abs=3 * LOOK_S) for wanted_s in (PAUSE_S, 2 * PAUSE_S, PAUSE_S)]


def left_alone() -> Polls:
    """Gathering was given up just now: it had brought fewer."""
    polls = Polls(4, 4 * ENOUGH)
    polls.come(4, 2 * ENOUGH, windows=2.6)
    return polls


@pytest.mark.parametrize(
    ("rate", "again"),
    [(4 * ENOUGH, False), (4.8 * ENOUGH, False), (2.4 * ENOUGH, False), (1.6 * ENOUGH, True), (6 * ENOUGH, True)],
    ids=["as-before", "a-little-more", "a-little-less", "less-than-gathered", "others-have-come"],
)
def test_the_pause_is_over_where_gathering_is_missed_or_others_have_come(rate: float, again: bool) -> None:
    polls = left_alone()
    assert not gathers(polls)
    polls.come(4, rate, windows=5)
    assert gathers(polls) is again


def test_one_look_that_says_so_does_not_end_it() -> None:
    polls = Polls(4, 3 * ENOUGH)
    polls.come(4, 1.5 * ENOUGH, windows=1.1)
    polls.come(4, 3 * ENOUGH, windows=1.1)
    assert gathers(polls)


def test_where_gathering_brings_as_many_it_goes_on() -> None:
    polls = Polls(4, 2 * ENOUGH)
    polls.come(4, (KEEPS + 0.05) * 2 * ENOUGH, windows=20)
    polls.pace.rest()
    assert polls.slept


def test_a_pause_of_the_clients_is_not_taken_for_gathering_that_brings_fewer() -> None:
    polls = Polls(4, 2 * ENOUGH)
    polls.clock.advance(5.0)
    polls.pace.polled(0, 1000)
    polls.come(4, 2 * ENOUGH, windows=2.5)
    polls.pace.rest()
    assert polls.slept


class Clients(Flow):
    """So many clients, each of which asks again a while after its answer; passes of `fixed_s + each_s × rows`."""

    def __init__(self, count: int, fixed_s: float, each_s: float, linger_s: float) -> None:
        super().__init__(10_000, 10_000_000)
        self.clock = ManualClock()
        self._costs = fixed_s, each_s
        self._come_s = [0.0] * count
        self._free_s = 0.0  # when the last pass is over
        self._pace = Pace(self, linger_s, clock=self.clock, sleep=self.clock.advance)

    def wait_empty(self, timeout_s: float) -> None:
        self.clock.advance(max(0.0, min(timeout_s, self._free_s - self.clock())))

    def answered(self, within_s: float) -> int:
        count = 0
        while self.clock() < within_s:
            self._pace.rest()
            if (soonest := min(self._come_s)) > self.clock():
                self.clock.advance(soonest - self.clock())
            asking = [place for place, come_s in enumerate(self._come_s) if come_s <= self.clock()]
            self._pace.polled(len(asking), 1000)
            fixed_s, each_s = self._costs
            self._free_s = max(self._free_s, self.clock()) + fixed_s + each_s * len(asking)
            for place in asking:
                self._come_s[place] = self._free_s + 0.0006 + 0.00002 * place
            self.clock.advance(0.0002)  # of the turn itself
            count += len(asking)
        return count


@pytest.mark.parametrize("fixed_s", [0.0002, 0.0006, 0.001, 0.002], ids=str)
@pytest.mark.parametrize("count", [1, 2, 4, 8, 12, 16, 20, 32, 64, 200])
def test_no_number_of_clients_that_wait_for_their_answers_is_served_more_slowly(
    count: int, fixed_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathered = Clients(count, fixed_s, 0.00002, LINGER_S).answered(8.0)
    briefly = Clients(count, fixed_s, 0.00002, REST_S).answered(8.0)
    monkeypatch.setattr("forebay_consumer.pace.WORTH", math.inf)  # never
    assert gathered > 0.94 * Clients(count, fixed_s, 0.00002, LINGER_S).answered(8.0)
    assert gathered > 0.91 * briefly


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
