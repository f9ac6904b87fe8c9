"""What makes a batch: sizes, triggers, companions; also the acceptance rows that are about batching alone."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_consumer.record import Claim, Item
from forebay_consumer.window import Batch, Rules, Trigger, Window
from support.consumer import make_item


def offsets(batch: Batch | None) -> list[int]:
    assert batch is not None
    return [item.record.offset for item in batch.items]


def items(count: int, **fields: float) -> list[Item]:
    return [make_item(offset, since_s=fields.get("since_s", 0.0)) for offset in range(count)]


def window(*waiting: Item, **rules: object) -> Window:
    made = Window(Rules(**rules))  # type: ignore[arg-type]
    made.add(waiting)
    return made


def drained(made: Window, now: float = 0.0) -> list[int]:
    """The rows of the batches that can be taken now, one after another."""
    sizes = []
    while (batch := made.take(now)) is not None:
        sizes.append(batch.rows)
    return sizes


def test_nothing_waiting_makes_no_batch() -> None:
    assert window().take(1e9) is None
    assert window().due_s() is None


def test_000_5_a_lone_item_goes_after_linger_not_before() -> None:
    made = window(make_item(since_s=10.0), linger_s=0.2)
    assert made.due_s() == pytest.approx(10.2)
    assert made.take(10.199) is None
    batch = made.take(10.2)
    assert offsets(batch) == [0]
    assert batch is not None
    assert batch.trigger is Trigger.LINGER


def of_a_backlog(*offsets: int, ready_s: float) -> list[Item]:
    """Items whose records waited in the topic for long, and came in only at `ready_s`."""
    made = [make_item(offset, since_s=0.0) for offset in offsets]
    for item in made:
        item.ready_s = ready_s
    return made


def test_a_batch_of_a_backlog_waits_for_what_is_on_its_way_and_not_for_more() -> None:
    made = window(*of_a_backlog(80, 81, ready_s=50.0), max_rows=4, linger_s=0.2)
    ends = {Claim("requests", 0, 1): 85}
    assert made.take(50.1, ends) is None
    assert made.due_s(ends) == pytest.approx(50.2)
    made.add(of_a_backlog(82, 83, ready_s=50.1))
    assert offsets(made.take(50.1, ends)) == [80, 81, 82, 83]
    made.add(of_a_backlog(84, ready_s=50.1))
    assert offsets(made.take(50.1, ends)) == [84], "it has waited in the topic, and is the last"


def test_what_never_comes_is_waited_for_no_longer_than_linger() -> None:
    made = window(*of_a_backlog(80, ready_s=50.0), linger_s=0.2)
    assert offsets(made.take(50.2, {Claim("requests", 0, 1): 82})) == [80]


def told(made: Window, *, fixed_s: float) -> Window:
    """Told of passes that all take the same, whatever they cost."""
    for cost in (1, 10) * 20:
        made.ran(Batch([make_item()], Trigger.SIZE, cost, cost), fixed_s)
    return made


def arriving(made: Window, *moments: float) -> None:
    for offset, moment in enumerate(moments):
        item = make_item(offset, since_s=moment)
        item.ready_s = moment
        made.add([item])


def test_an_adaptive_window_waits_for_nobody_who_is_not_coming() -> None:
    made = told(window(linger_s=0.2, adaptive=True), fixed_s=0.01)
    arriving(made, 10.0)
    batch = made.take(10.0)
    assert batch is not None
    assert batch.trigger is Trigger.COMPANY
    arriving(made, 10.5)
    assert made.take(10.5) is not None, "half a second later than the one before"


def test_an_adaptive_window_waits_while_others_come_and_stops_when_they_do_not() -> None:
    made = told(window(linger_s=0.2, adaptive=True), fixed_s=0.01)
    arriving(made, 10.0, 10.0001)
    assert made.take(10.0001) is None
    due = made.due_s()
    assert due is not None
    assert due == pytest.approx(10.0001 + 0.01 / 3, abs=0.001)
    assert offsets(made.take(due)) == [0, 1]


def test_an_adaptive_window_waits_no_longer_than_linger() -> None:
    made = told(window(linger_s=0.002, adaptive=True), fixed_s=10.0)
    arriving(made, 10.0, 10.0001)
    assert made.due_s() == pytest.approx(10.002)
    batch = made.take(10.002)
    assert batch is not None
    assert batch.trigger is Trigger.LINGER


def test_an_adaptive_window_waits_for_the_rest_of_a_backlog() -> None:
    made = window(*of_a_backlog(80, ready_s=50.0), linger_s=0.2, adaptive=True)
    assert made.take(50.1, {Claim("requests", 0, 1): 82}) is None


@pytest.mark.parametrize(
    "ends",
    [
        pytest.param({Claim("requests", 1, 1): 99}, id="another partition, of which nothing came in yet"),
        pytest.param({Claim("requests", 0, 2): 99}, id="a later assignment"),
        pytest.param({}, id="nothing can come in"),
    ],
)
def test_a_batch_of_a_backlog_goes_at_once_while_no_more_of_it_is_known_to_come(ends: dict[Claim, int]) -> None:
    assert offsets(window(*of_a_backlog(80, ready_s=50.0), linger_s=0.2).take(50.0, ends)) == [80]


@pytest.mark.parametrize(
    ("waiting", "sizes"),
    [
        pytest.param(5, [5], id="fewer than the batch size"),
        pytest.param(64, [64], id="exactly the batch size"),
        pytest.param(100, [64, 36], id="more than the batch size"),
    ],
)
def test_000_6_takes_the_lesser_of_what_waits_and_the_batch_size(waiting: int, sizes: list[int]) -> None:
    made = window(*items(waiting), max_rows=64, linger_s=0.02)
    assert drained(made, now=0.02) == sizes


def test_000_7_a_further_full_batch_goes_at_once() -> None:
    made = window(*items(20, since_s=5.0), max_rows=10, linger_s=60.0)
    taken = [made.take(5.0), made.take(5.0)]
    assert [batch.trigger for batch in taken if batch] == [Trigger.SIZE, Trigger.SIZE]


def test_001_6_no_batch_exceeds_the_maximum_whatever_waits() -> None:
    made = window(*items(10_000), max_rows=32)
    sizes = drained(made, now=1.0)
    assert max(sizes) == 32
    assert sum(sizes) == 10_000


def test_001_7_the_deadline_is_the_oldest_items_and_later_arrivals_do_not_move_it() -> None:
    made = window(make_item(0, since_s=0.0), linger_s=0.1)
    for number in range(1, 4):
        made.add([make_item(number, since_s=0.08 * number)])
        assert made.due_s() == pytest.approx(0.1)
    assert offsets(made.take(0.1)) == [0, 1, 2, 3]


@pytest.mark.parametrize("packs", [False, True])
def test_who_expires_goes_in_time_and_hurries_only_those_it_shares_a_pass_with(packs: bool) -> None:
    made = window(make_item(0), linger_s=60.0)
    if packs:
        made.pack()
    made.add([make_item(1), make_item(2, key=b"other")])
    assert made.due_s() == 60.0
    hurried = make_item(3, key=b"other")
    hurried.latest_s = 0.5
    made.add([hurried])
    assert made.due_s() == 0.5
    assert made.take(0.4) is None
    first = made.take(0.5)
    assert first is not None
    assert (offsets(first), first.trigger) == ([2, 3], Trigger.LINGER)
    assert made.take(0.5) is None, "the others have their whole time"
    assert made.due_s() == 60.0
    assert offsets(made.take(60.0)) == [0, 1]


@pytest.mark.parametrize("packs", [False, True])
def test_who_expires_goes_in_time_though_no_batch_would_look_so_far(packs: bool) -> None:
    made = window(max_rows=4, lookahead=1, linger_s=60.0)
    if packs:
        made.pack()
    made.add([make_item(number, key=b"%d" % number) for number in range(8)])
    hurried = make_item(8, key=b"7")
    hurried.latest_s = 0.5
    made.add([hurried])
    assert offsets(made.take(0.5)) == [7, 8]
    assert made.rows == 7
    assert [offsets(made.take(60.0)) for _ in range(7)] == [[number] for number in range(7)]


def test_one_that_expires_hurries_nobody_once_it_is_gone() -> None:
    hurried, equals = make_item(0, partition=1), [make_item(1), make_item(2)]
    hurried.latest_s = equals[0].latest_s = 0.5
    made = window(*equals, make_item(3), hurried, max_rows=2, linger_s=60.0)
    assert offsets(made.take(0.0)) == [1, 2]
    assert made.due_s() == 0.5
    made.drop(lambda claim: claim.partition == 1)
    assert made.due_s() == 60.0


def test_001_8_without_linger_an_item_goes_at_once() -> None:
    assert offsets(window(make_item(since_s=7.0), linger_s=0.0).take(7.0)) == [0]


def test_001_9_the_first_item_of_every_batch_is_in_it() -> None:
    made = window(*items(96), max_rows=32)
    assert [offsets(made.take(0.0))[0] for _ in range(3)] == [0, 32, 64]


def test_002_11_a_maximum_of_one_never_merges() -> None:
    assert drained(window(*items(5), max_rows=1)) == [1] * 5


@pytest.mark.parametrize(("waiting", "size"), [(3, 0), (4, 4), (7, 4), (8, 8), (12, 8)])
def test_002_12_a_preferred_size_goes_at_once(waiting: int, size: int) -> None:
    made = window(*items(waiting), max_rows=16, preferred=(4, 8), linger_s=60.0)
    batch = made.take(0.0)
    assert (batch.rows if batch else 0) == size
    assert batch is None or batch.trigger is Trigger.PREFERRED


def test_002_15_a_hundred_requests_make_ten_full_batches() -> None:
    made = window(*items(100), max_rows=10, linger_s=0.2)
    assert drained(made, now=0.0) == [10] * 10


def test_002_16_the_last_two_wait_for_the_linger() -> None:
    made = window(*items(102), max_rows=10, linger_s=0.2)
    assert drained(made, now=0.0) == [10] * 10
    assert made.take(0.199) is None
    assert drained(made, now=0.2) == [2]


@pytest.mark.parametrize("linger_s", [2.0, 20.0])
def test_002_17_the_wait_is_exactly_the_linger(linger_s: float) -> None:
    made = window(*items(2, since_s=100.0), linger_s=linger_s)
    assert made.take(100.0 + linger_s - 0.001) is None
    assert made.take(100.0 + linger_s) is not None


def test_002_19_requests_of_several_rows_are_merged_up_to_the_maximum_and_never_split() -> None:
    rows = [6, 5, 4, 1, 3, 6, 2, 2]
    made = window(*(make_item(n, rows=count) for n, count in enumerate(rows)), max_rows=10, lookahead=1)
    seen = []
    while (batch := made.take(1.0)) is not None:
        assert batch.rows <= 10
        assert batch.rows == sum(rows[offset] for offset in offsets(batch))
        seen += offsets(batch)
    assert sorted(seen) == list(range(len(rows)))


def test_the_nearest_in_cost_join_the_oldest() -> None:
    costs = [10, 500, 11, 480, 9, 10]
    made = window(*(make_item(n, cost=cost) for n, cost in enumerate(costs)), max_rows=4)
    assert offsets(made.take(0.0)) == [0, 2, 4, 5]


def test_the_oldest_is_never_passed_over() -> None:
    made = window(make_item(0, cost=500), *(make_item(n, cost=10) for n in range(1, 9)), max_rows=4)
    batch = made.take(0.0)
    assert offsets(batch)[0] == 0


def test_companions_beyond_the_lookahead_are_not_seen() -> None:
    near = make_item(8, cost=10)
    made = window(make_item(0, cost=10), *(make_item(n, cost=500) for n in range(1, 8)), near, max_rows=4, lookahead=2)
    assert 8 not in offsets(made.take(0.0))


def test_a_batch_closes_when_a_further_item_would_exceed_the_padded_cost() -> None:
    made = window(*(make_item(n, cost=30) for n in range(5)), max_cost=100, linger_s=60.0)
    batch = made.take(0.0)
    assert batch is not None
    assert (batch.rows, batch.padded_cost, batch.trigger) == (3, 90, Trigger.COST)


def test_padding_counts_towards_the_cost() -> None:
    made = window(make_item(0, cost=50), make_item(1, cost=1), make_item(2, cost=1), max_cost=100, linger_s=60.0)
    batch = made.take(0.0)
    assert batch is not None
    assert (batch.rows, batch.padded_cost) == (2, 100)


def test_an_item_beyond_the_cost_goes_alone() -> None:
    made = window(make_item(0, cost=1000), make_item(1, cost=1), max_cost=100, linger_s=60.0)
    batch = made.take(0.0)
    assert offsets(batch) == [0]
    assert batch is not None
    assert batch.trigger is Trigger.COST


def test_only_items_with_equal_keys_share_a_batch() -> None:
    made = window(make_item(0, key=b"a"), make_item(1, key=b"b"), make_item(2, key=b"a"))
    assert offsets(made.take(1.0)) == [0, 2]
    assert offsets(made.take(1.0)) == [1]


def test_draining_waits_for_nothing() -> None:
    made = window(make_item(since_s=5.0), linger_s=60.0)
    made.drain()
    batch = made.take(5.0)
    assert batch is not None
    assert batch.trigger is Trigger.DRAIN


def test_items_of_a_partition_that_is_gone_are_dropped_and_the_others_stay() -> None:
    made = window(make_item(0, partition=0), make_item(1, partition=1, rows=3), make_item(2, partition=0))
    dropped = made.drop(lambda claim: claim == Claim("requests", 0, 1))
    assert [item.record.offset for item in dropped] == [0, 2]
    assert made.rows == 3
    assert offsets(made.take(1.0)) == [1]


@given(
    shapes=st.lists(st.tuples(st.integers(1, 8), st.integers(1, 600), st.sampled_from([b"", b"x"])), max_size=60),
    max_rows=st.integers(8, 32),
    max_cost=st.one_of(st.none(), st.integers(1, 5_000)),
    lookahead=st.integers(1, 4),
)
def test_every_item_is_taken_once_and_every_batch_keeps_the_rules(
    shapes: list[tuple[int, int, bytes]], max_rows: int, max_cost: int | None, lookahead: int
) -> None:
    waiting = [make_item(n, rows=rows, cost=cost, key=key) for n, (rows, cost, key) in enumerate(shapes)]
    made = window(*waiting, max_rows=max_rows, max_cost=max_cost, lookahead=lookahead)
    left = list(range(len(waiting)))
    while (batch := made.take(1e9)) is not None:
        assert offsets(batch)[0] == left[0], "the oldest leads"
        assert batch.rows <= max_rows
        assert len({item.key for item in batch.items}) == 1
        assert max_cost is None or batch.padded_cost <= max_cost or len(batch.items) == 1
        left = [offset for offset in left if offset not in set(offsets(batch))]
    assert left == []
    assert made.rows == 0


def test_bounds_that_are_found_later_hold_from_then_on() -> None:
    made = window(*(make_item(offset, cost=10) for offset in range(8)), max_rows=32, linger_s=1.0)
    assert made.take(0.0) is None
    made.bound(4, 30)
    assert offsets(made.take(0.0)) == [0, 1, 2]
    made.bound(2, None)
    assert offsets(made.take(0.0)) == [3, 4]


def test_an_item_with_more_rows_than_the_bound_goes_at_once_and_alone() -> None:
    made = window(make_item(0, rows=8), *items(3)[1:], max_rows=4, linger_s=1.0)
    batch = made.take(0.0)
    assert offsets(batch) == [0]
    assert batch is not None
    assert batch.trigger is Trigger.SIZE


# --- a model that packs ---


def packed_window(*waiting: Item, **rules: object) -> Window:
    made = window(*waiting, **rules)
    made.pack()
    return made


def test_packed_rows_go_in_order_of_arrival_whatever_they_cost() -> None:
    made = packed_window(*(make_item(n, cost=cost) for n, cost in enumerate([5, 500, 7, 300, 6, 8])), max_rows=4)
    batch = made.take(1.0)
    assert offsets(batch) == [0, 1, 2, 3]
    assert batch is not None
    assert (batch.padded_cost, batch.trigger) == (812, Trigger.SIZE)


def test_packed_rows_cost_their_sum() -> None:
    made = packed_window(*(make_item(n, cost=cost) for n, cost in enumerate([900, 10, 10, 10, 71])), max_cost=1000)
    batch = made.take(0.0)
    assert offsets(batch) == [0, 1, 2, 3], "padded, two of them would have cost 1800"
    assert batch is not None
    assert (batch.padded_cost, batch.trigger) == (930, Trigger.COST)
    assert made.take(0.0) is None, "nothing keeps the last from company"


def test_the_rows_of_one_packed_request_cost_what_each_does() -> None:
    made = packed_window(
        make_item(0, rows=3, cost=500, total_cost=520), make_item(1, cost=480), max_cost=1000, max_rows=8
    )
    batch = made.take(0.0)
    assert offsets(batch) == [0, 1]
    assert batch is not None
    assert (batch.padded_cost, batch.trigger) == (1000, Trigger.COST)


def test_a_packed_row_above_the_bound_goes_alone() -> None:
    made = packed_window(make_item(0, cost=2000), make_item(1, cost=1), max_cost=1000)
    assert offsets(made.take(0.0)) == [0]


def test_a_packed_batch_leaves_out_who_may_not_share_it() -> None:
    made = packed_window(make_item(0), make_item(1, key=b"other"), make_item(2), max_rows=2)
    assert offsets(made.take(0.0)) == [0, 2]
    assert offsets(made.take(1.0)) == [1]


def test_a_packed_batch_lingers_and_prefers_as_any_other() -> None:
    made = packed_window(*items(3), linger_s=0.2, preferred=(2,))
    assert offsets(made.take(0.1)) == [0, 1]
    assert made.take(0.1) is None
    assert offsets(made.take(0.2)) == [2]


@given(
    shapes=st.lists(st.tuples(st.integers(1, 8), st.integers(1, 600), st.sampled_from([b"", b"x"])), max_size=60),
    max_rows=st.integers(8, 32),
    max_cost=st.one_of(st.none(), st.integers(1, 5_000)),
)
def test_every_item_is_packed_once_in_order_within_the_rules(
    shapes: list[tuple[int, int, bytes]], max_rows: int, max_cost: int | None
) -> None:
    waiting = [make_item(n, rows=rows, cost=cost, key=key) for n, (rows, cost, key) in enumerate(shapes)]
    made = packed_window(*waiting, max_rows=max_rows, max_cost=max_cost)
    left = list(range(len(waiting)))
    while (batch := made.take(1e9)) is not None:
        taken = offsets(batch)
        assert taken[0] == left[0], "the oldest leads"
        alike = [offset for offset in left if waiting[offset].key == batch.items[0].key]
        assert taken == alike[: len(taken)], "nobody overtakes"
        assert batch.rows <= max_rows
        assert batch.padded_cost == sum(item.cost * len(item.rows) for item in batch.items)
        assert max_cost is None or batch.padded_cost <= max_cost or len(taken) == 1
        left = [offset for offset in left if offset not in set(taken)]
    assert left == []
    assert made.rows == 0


def test_a_request_that_is_answered_otherwise_keeps_nobody_waiting_for_it() -> None:
    """The last of its partition, broken: without a word of it, each lone request elsewhere would linger."""
    broken, lone = make_item(6), make_item(0, partition=1)
    ends = {broken.record.claim: 7, lone.record.claim: 1}
    made = window(make_item(5), linger_s=0.5)
    made.take(1.0)
    made.add([lone])
    lone.ready_s = 2.0
    assert made.take(2.0, ends) is None, "offset 6 is on its way"
    made.passed([broken.record])
    assert made.take(2.0, ends) is not None


def test_what_is_to_run_alone_goes_first_and_lingers_for_nobody() -> None:
    made = Window(Rules(linger_s=0.5), follows=False)
    made.add(items(3, since_s=9.9))
    alone = make_item(7, since_s=9.9, key=b"alone")
    alone.record.alone = True
    assert made.take(10.0) is None
    made.add([alone])
    assert made.due_s() == -math.inf
    assert offsets(made.take(10.0)) == [7]
    assert made.take(10.0) is None


def test_a_window_that_follows_no_partitions_remembers_none() -> None:
    """A share group has a new claim with each poll."""
    made = Window(Rules(), follows=False)
    for epoch in range(100):
        made.add([make_item(0, epoch=epoch)])
        made.passed([make_item(1, epoch=epoch).record])
        made.take(1e9)
    assert made._reached == {}


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("packs", [False, True])
def test_a_full_batch_of_another_key_does_not_wait_behind_one_that_lingers(adaptive: bool, packs: bool) -> None:
    made = Window(Rules(max_rows=4, linger_s=20.0, adaptive=adaptive))
    if packs:
        made.pack()
    ends = {make_item().record.claim: 1000}  # more is on its way
    made.add([make_item(0, key=b"a"), *(make_item(offset, key=b"b") for offset in range(1, 7))])
    assert offsets(made.take(0.0, ends)) == [1, 2, 3, 4]
    assert made.take(0.0, ends) is None, "two are no full batch"
    assert offsets(made.take(20.0, ends)) == [0], "the oldest goes once it has lingered"
    assert (offsets(made.take(20.0, ends)), made.rows) == ([5, 6], 0)


def test_the_ends_of_transactions_are_not_waited_for() -> None:
    """Each record is followed by one that is never delivered."""
    made = Window(Rules(max_rows=4, linger_s=20.0, adaptive=True))
    claim = make_item().record.claim
    made.add([make_item(0)])
    assert made.take(0.0, {claim: 2}) is None, "it may be a request"
    assert offsets(made.take(20.0, {claim: 2})) == [0]
    made.add([make_item(2, since_s=30.0)])
    assert offsets(made.take(30.0, {claim: 4})) == [2]
    made.add([make_item(4, since_s=40.0)])
    assert made.take(40.0, {claim: 7}) is None, "there is more than the end of a transaction"


@pytest.mark.parametrize("overtaken", [False, True])
def test_what_comes_late_or_not_at_all_is_not_taken_for_the_ends_of_transactions(overtaken: bool) -> None:
    made = Window(Rules(max_rows=4, linger_s=20.0, adaptive=True))
    claim = make_item().record.claim
    made.add([make_item(0), make_item(1)])
    if overtaken:  # one chunk by the next
        made.add([make_item(5)])
        made.add([make_item(offset) for offset in (2, 3, 4)])
    else:  # a request in the middle of a chunk was refused
        made.passed([make_item(3).record])
        made.add([make_item(offset) for offset in (2, 4, 5)])
    assert made.take(0.0, {claim: 8}) is not None
    assert made.take(0.0, {claim: 8}) is None, "two more are on their way"


def test_a_large_gap_is_no_end_of_a_transaction() -> None:
    made = Window(Rules(max_rows=4, linger_s=20.0, adaptive=True))
    claim = make_item().record.claim
    made.add([make_item(0)])
    made.add([make_item(500)])
    assert made.take(0.0, {claim: 502}) is None


def test_requests_that_all_differ_in_their_parameters_are_not_each_compared_with_all() -> None:
    compared = 0

    class Counted(bytes):
        __slots__ = ()
        __hash__ = bytes.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return bytes.__eq__(self, other)

    count = 400
    made = window(*(make_item(n, key=Counted(b"%d" % n)) for n in range(count)), max_rows=100, linger_s=1.0)

    assert made.take(0.0) is None

    assert compared < 10 * count
