"""Between polls that bring little the intake rests: while something is inside, or while more come fast."""

import random
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from forebay_consumer.flow import Flow
from forebay_consumer.pace import (
    ALONE,
    BRIEFLY,
    FULL,
    GAINS,
    GATHER_S,
    HOLDS_S,
    KEEPS,
    LONG,
    LONGEST_HOLD_S,
    LOOK_S,
    MANY,
    MORE,
    REST_S,
    SURE,
    WORTH,
    Pace,
)
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
@pytest.mark.parametrize("records", [4, MANY], ids=str)
def test_where_a_few_milliseconds_bring_a_good_batch_it_rests_for_them(records: int, linger_s: float) -> None:
    polls = Polls(records, 2 * ENOUGH, linger_s=linger_s)
    polls.clock.advance(0.0005)
    polls.pace.rest()
    assert polls.flow.waited == [pytest.approx(min(GATHER_S, linger_s) - 0.0005)], "the answers of the turn before"
    assert polls.slept == [min(GATHER_S, linger_s)]


def test_it_rests_for_no_longer_than_many_take() -> None:
    polls = Polls(4, 2 * MANY / GATHER_S)
    polls.pace.rest()
    assert polls.slept == [pytest.approx(GATHER_S / 2, rel=0.02)]


def test_it_rests_for_no_more_than_there_is_room_for() -> None:
    polls = Polls(2, 2 * ENOUGH, room=WORTH - 1)
    polls.pace.rest()
    assert polls.slept == [pytest.approx(GATHER_S * (WORTH - 1) / (2 * WORTH), rel=0.02)]


def test_what_comes_more_slowly_is_not_gathered() -> None:
    polls = Polls(4, 0.9 * ENOUGH)
    polls.pace.rest()
    assert not polls.slept
    assert polls.flow.waited == [REST_S]


def test_with_little_linger_only_what_comes_faster_is_gathered() -> None:
    polls = Polls(4, 1.5 * ENOUGH, linger_s=GATHER_S / 2)
    polls.pace.rest()
    assert not polls.slept


def test_after_a_turn_that_took_long_it_waits_for_no_answers() -> None:
    polls = Polls(4, 2 * ENOUGH)
    polls.clock.advance(2 * GATHER_S)
    polls.pace.rest()
    assert polls.flow.waited == [0.0]
    assert polls.slept == [GATHER_S]


def test_a_burst_that_is_over_is_forgotten() -> None:
    polls = Polls(4, 2 * ENOUGH)
    polls.come(1, 100, windows=SURE)
    polls.pace.rest()
    assert not polls.slept


def test_a_poll_of_a_backlog_is_followed_at_once() -> None:
    polls = Polls(FULL, 20 * ENOUGH)
    polls.pace.rest()
    assert not polls.slept
    assert not polls.flow.waited


class Life:
    """Polls whose rate depends on how long the rest before them was; notes the way of each.

    Args:
        per_s: by the way.
        wavers: by how much the rate of each tenth of a second is off, up or down.
    """

    def __init__(self, per_s: Callable[[int], float], wavers: float = 0.0) -> None:
        self.per_s = per_s
        self.clock = ManualClock()
        self.ways: list[tuple[float, int]] = []
        self._slept: list[float] = []
        self._pace = Pace(Resting(), LINGER_S, clock=self.clock, sleep=self._slept.append)
        self._wavers = wavers
        self._chance = random.Random(5)

    def go_on(self, for_s: float) -> Counter[int]:
        """The share of each way."""
        began = len(self.ways)
        until, factor, again_s = self.clock() + for_s, 1.0, 0.0
        while self.clock() < until:
            if self.clock() >= again_s:
                factor, again_s = 1 + self._chance.uniform(-self._wavers, self._wavers), self.clock() + LOOK_S
            self._slept.clear()
            self._pace.rest()
            way = ALONE if not self._slept else LONG if self._slept == [GATHER_S] else BRIEFLY
            self.ways.append((self.clock(), way))
            self.clock.advance(4 / (self.per_s(way) * factor))
            self._pace.polled(4, 1000)
        counted = Counter(way for _, way in self.ways[began:])
        return Counter({way: count / (len(self.ways) - began) for way, count in counted.items()})

    def gathers(self, for_s: float) -> float:
        """The share of the rests that were taken to gather."""
        return 1.0 - self.go_on(for_s)[ALONE]

    def holds_s(self, way: int) -> list[float]:
        """How long each time went on in which it was so, but for those of comparisons."""
        turns = [self.ways[0]]
        turns += [later for earlier, later in pairwise(self.ways) if earlier[1] != later[1]]
        found = [later[0] - earlier[0] for earlier, later in pairwise(turns) if earlier[1] == way]
        return [lasted for lasted in found if lasted > 5 * LOOK_S]


def by_gathering(plain: float, gathered: float, brief: float | None = None) -> Callable[[int], float]:
    """Rates of the three ways; without one for a brief rest, it brings as much as a long one."""
    rates = {ALONE: plain, BRIEFLY: gathered if brief is None else brief, LONG: gathered}
    return lambda way: rates[way] * ENOUGH


@pytest.mark.parametrize("wavers", [0.0, 0.3], ids=["steady", "wavering"])
@pytest.mark.parametrize(
    ("plain", "brief", "gathered", "best"),
    [
        pytest.param(4, 2, 2, ALONE, id="only slows them down"),
        pytest.param(4, 6, 2, BRIEFLY, id="the long one does"),
        pytest.param(4, 6, 9, LONG, id="the longer the better"),
        pytest.param(4, 2, 6, LONG, id="a brief one is not enough"),
        pytest.param(2, 8, 6, BRIEFLY, id="brief is best"),
    ],
)
def test_of_three_ways_it_finds_the_one_that_brings_most(
    plain: float, brief: float, gathered: float, best: int, wavers: float
) -> None:
    life = Life(by_gathering(plain, gathered, brief), wavers)
    life.go_on(5.0)
    assert life.go_on(100.0)[best] > 0.8


def test_a_long_rest_that_brings_hardly_more_than_a_brief_one_is_not_worth_it() -> None:
    life = Life(by_gathering(4, 4 * (GAINS - 0.03), 4))
    assert life.go_on(100.0)[BRIEFLY] > 0.8
    life = Life(by_gathering(4, 4 * (GAINS + 0.03), 4))
    assert life.go_on(100.0)[LONG] > 0.8


def test_both_rivals_are_tried_at_once_where_others_came_and_else_in_turns() -> None:
    life = Life(by_gathering(4, 2, 2))
    life.go_on(3.0)
    assert {way for _, way in life.ways} == {ALONE, BRIEFLY, LONG}
    tried = []
    for _ in range(3):
        before = len(life.ways)
        while len({way for _, way in life.ways[before:]}) < 2:
            life.go_on(LOOK_S / 2)
        tried.append(max(way for _, way in life.ways[before:]))
        life.go_on(2.0)
    assert tried in ([LONG, BRIEFLY, LONG], [BRIEFLY, LONG, BRIEFLY])


def test_where_gathering_brings_fewer_it_is_left_alone_for_longer_and_longer() -> None:
    life = Life(by_gathering(4, 4 * (KEEPS - 0.1)))
    assert life.gathers(60) < 0.1
    expected = [HOLDS_S, 2 * HOLDS_S, 4 * HOLDS_S, LONGEST_HOLD_S]
    assert life.holds_s(ALONE)[:4] == [pytest.approx(hold_s, abs=3 * LOOK_S) for hold_s in expected]


def test_where_gathering_brings_as_many_it_goes_on() -> None:
    life = Life(by_gathering(4, 4 * (KEEPS + 0.05)))
    assert life.gathers(60) > 0.85
    assert life.holds_s(BRIEFLY)[:2] == [pytest.approx(hold_s, abs=3 * LOOK_S) for hold_s in (HOLDS_S, 2 * HOLDS_S)]


@pytest.mark.parametrize(
    ("gathered", "least", "most"), [(1.3, 0.75, 1.0), (0.6, 0.0, 0.2)], ids=["brings-more", "brings-fewer"]
)
def test_a_machine_that_wavers_is_not_taken_for_what_gathering_does(gathered: float, least: float, most: float) -> None:
    assert least < Life(by_gathering(3, 3 * gathered), wavers=0.5).gathers(100) < most


def test_where_it_turned_good_in_between_the_pauses_begin_anew() -> None:
    life = Life(by_gathering(4, 3))
    life.go_on(HOLDS_S + 2 * HOLDS_S + 4)
    life.per_s = by_gathering(4, 4)
    life.go_on(6 * HOLDS_S)
    life.per_s = by_gathering(4, 3)
    life.go_on(12 * HOLDS_S)
    expected = [HOLDS_S, 2 * HOLDS_S, 4 * HOLDS_S, HOLDS_S, 2 * HOLDS_S]
    assert life.holds_s(ALONE)[:5] == [pytest.approx(hold_s, abs=3 * LOOK_S) for hold_s in expected]


@pytest.mark.parametrize(
    ("rate", "tried"),
    [(1.0, False), (0.8 * MORE, False), (1.2 / MORE, False), (1.1 * MORE, True), (0.9 / MORE, True)],
    ids=["as-before", "a-little-more", "a-little-less", "many-more", "many-less"],
)
@pytest.mark.parametrize("good", [False, True], ids=["left-alone", "gathered"])
def test_it_is_tried_anew_before_its_time_where_others_seem_to_have_come(good: bool, rate: float, tried: bool) -> None:
    gathered = 6.0 if good else 4.5
    life = Life(by_gathering(6, gathered))
    life.go_on(3.0)
    began = len(life.ways)
    life.per_s = by_gathering(6 * rate, gathered * rate)
    life.go_on(HOLDS_S / 2)
    wanted = tried and not (good and rate > 1)  # gathering serves many more as well
    assert (len({way for _, way in life.ways[began:]}) > 1) is wanted


def with_pauses(life: Life, busy_s: float, pause_s: float, for_s: float) -> float:
    """The share of gathering rests while the clients have nothing to ask now and then."""
    shares, until = [], life.clock() + for_s
    while life.clock() < until:
        shares.append(life.gathers(busy_s))
        life.clock.advance(pause_s)
        life._pace.polled(0, 1000)
    return sum(shares) / len(shares)


@pytest.mark.parametrize(("busy_s", "pause_s"), [(0.1, 0.1), (0.15, 0.06), (0.12, 0.1), (0.5, 1.0)], ids=str)
def test_of_clients_with_pauses_too_short_for_a_comparison_none_goes_on_for_ever(busy_s: float, pause_s: float) -> None:
    life = Life(by_gathering(4, 3))
    assert with_pauses(life, busy_s, pause_s, 60.0) < 0.1


@pytest.mark.parametrize(("busy_s", "pause_s"), [(0.2, 0.1), (0.3, 0.1), (0.35, 0.1), (0.3, 0.5)], ids=str)
def test_gathering_that_was_good_once_ends_where_pauses_leave_no_time_to_compare(busy_s: float, pause_s: float) -> None:
    life = Life(by_gathering(4, 4.4))
    life.go_on(30.0)
    life.per_s = by_gathering(4, 2)
    with_pauses(life, busy_s, pause_s, 60.0)
    assert with_pauses(life, busy_s, pause_s, 300.0) < 0.1


def test_a_pause_of_the_clients_is_not_taken_for_gathering_that_brings_fewer() -> None:
    life = Life(by_gathering(4, 4))
    life.go_on(HOLDS_S)
    assert with_pauses(life, 2.0, 1.0, 60.0) > 0.6


@pytest.mark.parametrize("gathered", [1.1, 0.7], ids=["good", "bad"])
def test_clients_from_before_a_pause_are_not_compared_with_those_after_it(gathered: float) -> None:
    life = Life(by_gathering(2, 2 / gathered))
    life.go_on(2.5 * LOOK_S)
    life.clock.advance(600.0)
    life._pace.polled(0, 1000)
    life.per_s = by_gathering(8, 8 * gathered)
    life.go_on(HOLDS_S)
    assert (life.gathers(HOLDS_S / 2) > 0.9) is (gathered > 1)


def test_a_backlog_says_nothing_of_gathering() -> None:
    life = Life(by_gathering(4, 3))
    for _ in range(40):
        life.clock.advance(LOOK_S / 4)
        life._pace.polled(FULL, 1000)
        life._pace.rest()
    assert life.gathers(HOLDS_S) < 0.3


class Always(Pace):
    """Compares nothing."""

    def __init__(self, way: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._always = way

    def _look(self, now: float) -> None:
        self._per_s = self._count / (now - self._since_s)
        self._way, self._since_s, self._count = self._always, now, 0


class Clients(Flow):
    """So many clients, each of which asks again a while after its answer; passes of `fixed_s + each_s × rows`.

    Args:
        way: the only one; None finds the best.
    """

    def __init__(self, count: int, fixed_s: float, each_s: float, way: int | None = None) -> None:
        super().__init__(10_000, 10_000_000)
        self.clock = ManualClock()
        self._costs = fixed_s, each_s
        self._come_s = [0.0] * count
        self._free_s = 0.0  # when the last pass is over
        pace = Pace if way is None else partial(Always, way)
        self._pace = pace(self, LINGER_S, clock=self.clock, sleep=self.clock.advance)

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
@pytest.mark.parametrize("count", [1, 2, 4, 12, 20, 64, 200])
def test_no_number_of_clients_that_wait_for_their_answers_is_served_more_slowly(count: int, fixed_s: float) -> None:
    found = Clients(count, fixed_s, 0.00002).answered(20.0)
    assert found > 0.94 * max(Clients(count, fixed_s, 0.00002, way).answered(20.0) for way in (ALONE, BRIEFLY, LONG))


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
