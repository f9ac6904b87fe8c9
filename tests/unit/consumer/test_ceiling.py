"""What a device can hold is learned from what it could not, kept to, and tried again slowly."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_consumer.ceiling import PATIENCE, Ceiling
from forebay_consumer.errors import OutOfMemory
from forebay_consumer.outcomes import Settler
from forebay_consumer.record import Item
from forebay_consumer.retries import Retries
from support.consumer import make_item


class Device:
    """Holds `limit` padded cost of one pass; notes each pass's cost and whether it fitted."""

    def __init__(self, limit: int | Callable[[int], int]) -> None:
        self.limit = limit if callable(limit) else lambda _largest: limit
        self.passes: list[tuple[int, bool]] = []

    def __call__(self, run: Sequence[Item]) -> list[int]:
        largest = max(item.cost for item in run)
        cost = sum(len(item.rows) for item in run) * largest
        fits = cost <= self.limit(largest)
        self.passes.append((cost, fits))
        if not fits:
            raise OutOfMemory("full")
        return [item.record.offset for item in run]

    @property
    def sizes(self) -> list[int]:
        return [cost for cost, _ in self.passes]

    @property
    def failures(self) -> list[int]:
        return [cost for cost, fitted in self.passes if not fitted]


def settler(device: Device) -> Settler[int]:
    return Settler(device, Retries(), Ceiling())


def batch(count: int, *, cost: int = 1) -> list[Item]:
    return [make_item(offset, cost=cost) for offset in range(count)]


def settle_until(device: Device, made: Settler[int], holds: Callable[[], bool], most: int) -> int:
    """Batches of 32 until `holds`; how many it took, at most `most`."""
    for done in range(most):
        if holds():
            return done
        assert made.settle(batch(32)) == list(range(32))
    raise AssertionError(f"not after {most} batches; the last passes: {device.passes[-20:]}")


def test_nothing_is_cut_before_anything_failed() -> None:
    device = Device(10**9)
    settler(device).settle(batch(64, cost=1000))
    assert device.sizes == [64_000]


def test_the_largest_size_that_fits_is_found_and_kept_to() -> None:
    device = Device(21)
    made = settler(device)
    for _ in range(1000):
        assert made.settle(batch(32)) == list(range(32))
    assert max(size for size, fitted in device.passes if fitted) == 21
    assert set(device.sizes[-20:]) == {21, 11}


def test_failures_become_rare() -> None:
    device = Device(21)
    made = settler(device)
    counts = []
    for _ in range(4):
        before = len(device.failures)
        for _ in range(1000):
            made.settle(batch(32))
        counts.append(len(device.failures) - before)
    assert counts[0] <= 8
    assert counts[3] <= 1


def test_a_size_that_failed_is_not_tried_before_enough_have_fitted() -> None:
    device = Device(16)
    made = settler(device)
    made.settle(batch(32))
    device.passes.clear()
    for _ in range(PATIENCE - 1):  # the first batch had a full part too
        made.settle(batch(32))
    assert set(device.sizes) == {16}
    made.settle(batch(32))
    assert device.sizes[-4:] == [24, 16, 8, 8]


def test_memory_that_comes_back_is_used_again() -> None:
    device = Device(3)
    made = settler(device)
    made.settle(batch(32))
    device.limit = lambda _largest: 10**9
    settle_until(device, made, lambda: device.sizes[-1] == 32, most=400)
    assert device.failures == [32, 16, 8, 4]


def test_memory_that_is_lost_later_is_noticed() -> None:
    device = Device(10**9)
    made = settler(device)
    made.settle(batch(32))
    device.limit = lambda _largest: 5
    made.settle(batch(32))
    device.passes.clear()
    made.settle(batch(32))
    assert device.failures == []
    assert max(device.sizes) <= 5


def test_batches_that_nothing_cuts_do_not_raise_what_is_allowed() -> None:
    device = Device(16)
    made = settler(device)
    made.settle(batch(32))
    for _ in range(10 * PATIENCE):
        made.settle(batch(10))
    device.passes.clear()
    made.settle(batch(32))
    assert device.failures == []


def test_long_rows_that_do_not_fit_leave_short_ones_alone() -> None:
    device = Device(lambda largest: 64 * largest if largest < 256 else 8 * largest)
    made = settler(device)
    made.settle(batch(32, cost=300))
    made.settle(batch(32, cost=30))
    assert device.sizes[-1] == 32 * 30
    made.settle(batch(32, cost=310))
    assert device.failures == [32 * 300, 16 * 300]


def test_growth_goes_on_where_no_row_count_gives_just_the_cost_that_failed() -> None:
    device = Device(2000)
    made = settler(device)
    made.settle(batch(20, cost=103))
    assert device.failures == [2060]  # 20 rows of 100 are less, 21 are more
    device.limit = lambda _largest: 10**9
    for _ in range(3000):
        made.settle(batch(32, cost=100))
    assert device.sizes[-1] == 3200


@given(
    batches=st.lists(
        st.lists(st.tuples(st.integers(1, 5), st.integers(1, 600)), min_size=1, max_size=40), min_size=1, max_size=20
    ),
    limits=st.lists(st.integers(0, 20_000), min_size=20, max_size=20),
)
def test_whatever_the_device_holds_every_item_is_settled_once_and_in_order(
    batches: list[list[tuple[int, int]]], limits: list[int]
) -> None:
    device = Device(0)
    made = settler(device)
    for shapes, limit in zip(batches, limits, strict=False):
        device.limit = lambda largest, limit=limit: max(limit, 5 * largest)
        device.passes.clear()
        run = [make_item(offset, rows=rows, cost=cost) for offset, (rows, cost) in enumerate(shapes)]
        assert made.settle(run) == list(range(len(run)))
        assert len(device.passes) < 3 * len(run), "as bisection would, it ends"


@given(limit=st.integers(1, 63), asked=st.lists(st.integers(1, 64), min_size=1, max_size=300))
def test_a_known_bad_size_is_tried_again_only_after_enough_have_fitted(limit: int, asked: list[int]) -> None:
    device = Device(limit)
    made = settler(device)
    for count in asked:
        assert made.settle(batch(count)) == list(range(count))
    known_bad: int | None = None
    fitted = 0
    for size, fits in device.passes:
        if known_bad is not None and size >= known_bad:
            assert fitted >= PATIENCE, f"{size} was known not to fit, and is tried after {fitted} that did"
        if fits:
            fitted += 1
        else:
            known_bad = size if known_bad is None else min(known_bad, size)
            fitted = 0


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_a_request_of_several_rows_is_never_split(rows: int) -> None:
    device = Device(8)
    made = settler(device)
    run = [make_item(offset, rows=rows) for offset in range(12)]
    assert made.settle(run) == list(range(12))
    assert all(size % rows == 0 for size in device.sizes)


def test_what_is_learned_of_packed_rows_is_the_sum_of_their_costs() -> None:
    ceiling = Ceiling()
    ceiling.pack()
    mixed = [make_item(n, cost=cost) for n, cost in enumerate([100, 3, 50, 7, 90, 4])]
    part = ceiling.first(mixed)
    assert (part.cost, len(part.items), part.full) == (254, 6, False)
    ceiling.failed(part)
    part = ceiling.first(mixed)
    assert (part.cost, len(part.items), part.full) == (103, 2, True), "at most half of what failed"
    short = [make_item(n, cost=2) for n in range(100)]
    assert len(ceiling.first(short).items) == 63, "the bound of long rows holds for short ones"
