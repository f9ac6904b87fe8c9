"""The knee is found among the batches that would form, in bounded time."""

import random
from collections.abc import Callable, Sequence

import pytest

from forebay_consumer.errors import FatalError, OutOfMemory
from forebay_consumer.record import Item
from forebay_consumer.tune.backlog import form
from forebay_consumer.tune.sweep import Cell, Found, Sweep, Variant, sizes_from
from forebay_consumer.window import Batch, Rules
from support.consumer import ManualClock, make_item

Seconds = Callable[[Batch], float]


class Device:
    """A candidate that takes its time by the batch; its processors are busy twice as long."""

    def __init__(
        self, clock: ManualClock, seconds: Seconds, costs: Sequence[int] = (1,), variant: Variant | None = None
    ) -> None:
        self.variant = variant or Variant()
        self.items: Sequence[Item] = [make_item(offset, cost=cost) for offset, cost in enumerate(costs)]
        self.packs = False
        self.entered = 0
        self.ran: list[int] = []
        self._clock = clock
        self._seconds = seconds

    def enter(self) -> None:
        self.entered += 1

    def run(self, batch: Batch) -> None:
        assert self.entered == len(self.ran) + 1
        self.ran.append(batch.rows)
        self._clock.advance(self._seconds(batch))


def swept(clock: ManualClock, *devices: Device, most: int = 64, seconds: float = 1e9) -> Found:
    return Sweep(devices, most, 4, seconds, clock, lambda: 2 * clock(), lambda _: None).run()


def overhead(batch: Batch) -> float:
    """8 ms for each pass and 1 ms for each unit of cost: twice the rows bring 3 % up to 256 of them."""
    return 0.008 + 0.001 * batch.padded_cost


def cache(batch: Batch) -> float:
    return (0.002 + 0.003 * batch.rows) * (1.15 if batch.rows > 8 else 1.0)


@pytest.mark.parametrize(
    ("seconds", "most", "rows"),
    [
        pytest.param(overhead, 1024, 256, id="more is better, up to a point"),
        pytest.param(overhead, 20, 20, id="more would be better"),
        pytest.param(cache, 64, 8, id="more is worse"),
        pytest.param(lambda batch: 0.001 * batch.rows, 64, 1, id="all are equal"),
    ],
)
def test_the_knee_is_the_smallest_size_nearly_as_fast_as_the_best(seconds: Seconds, most: int, rows: int) -> None:
    clock = ManualClock()
    assert swept(clock, Device(clock, seconds), most=most).best.max_rows == rows


def test_throughput_and_processor_time_are_told_per_row() -> None:
    clock = ManualClock()
    first = swept(clock, Device(clock, overhead)).cells[0]
    assert first.rows_per_s == pytest.approx(1 / 0.009)
    assert first.cpu_s_per_row == pytest.approx(2 * 0.009)


def test_where_costs_differ_a_budget_beats_every_size() -> None:
    """Beyond 128 units a pass falls out of the cache: four dear rows do, and so many cheap ones do not."""
    clock = ManualClock()

    def seconds(batch: Batch) -> float:
        return 0.01 + 0.001 * batch.padded_cost * (3 if batch.padded_cost > 128 else 1)

    best = swept(clock, Device(clock, seconds, [1] * 9 + [64])).best
    assert best.max_cost is not None
    assert max(batch.padded_cost for batch in best.formed) <= 128
    assert best.rows > 2


def test_a_budget_comes_with_no_more_rows_than_it_can_hold() -> None:
    """The window looks at a multiple of them for each batch."""
    clock = ManualClock()
    cells = swept(clock, Device(clock, overhead, [4, 8]), most=1024).cells
    budgets = {cell.max_cost: cell.max_rows for cell in cells if cell.max_cost is not None}
    assert all(cost // 4 <= rows <= cost // 2 for cost, rows in budgets.items())


def test_a_search_that_its_time_cut_short_says_so() -> None:
    clock = ManualClock()
    assert swept(clock, Device(clock, overhead), seconds=1).cut
    assert not swept(clock, Device(clock, cache)).cut


def test_rows_of_one_cost_have_no_budget() -> None:
    clock = ManualClock()
    assert all(cell.max_cost is None for cell in swept(clock, Device(clock, overhead, [7, 7])).cells)


def test_the_faster_precision_wins() -> None:
    clock = ManualClock()
    slow = Device(clock, overhead, variant=Variant("float32"))
    fast = Device(clock, lambda batch: overhead(batch) / 2, variant=Variant("bfloat16"))
    assert swept(clock, slow, fast).best.candidate is fast


def test_of_nearly_equal_ones_that_with_fewer_threads_wins() -> None:
    clock = ManualClock()
    two = Device(clock, lambda batch: overhead(batch) / 1.01, variant=Variant(threads=2))
    one = Device(clock, overhead, variant=Variant(threads=1))
    assert swept(clock, two, one).best.candidate is one


def test_a_neighbour_that_disturbs_some_passes_changes_nothing() -> None:
    clock = ManualClock()
    device = Device(clock, lambda batch: cache(batch) * (2 if len(device.ran) % 3 == 0 else 1))
    best = swept(clock, device).best
    assert best.max_rows == 8
    assert best.rows_per_s == pytest.approx(8 / 0.026)


def test_candidates_take_turns() -> None:
    """A machine that is slow for a while is slow for both."""
    clock = ManualClock()
    turns: list[str] = []

    def noted(name: str) -> Seconds:
        return lambda batch: turns.append(name) or cache(batch)  # type: ignore[func-returns-value]

    swept(clock, Device(clock, noted("a")), Device(clock, noted("b")))
    longest = max(len(run) for run in "".join(turns).replace("ab", "a b").replace("ba", "b a").split())
    assert longest <= 6  # sizes of one round


def test_what_does_not_fit_is_told_and_ends_the_sizes_of_its_candidate() -> None:
    clock = ManualClock()

    def seconds(batch: Batch) -> float:
        if batch.rows > 16:
            raise OutOfMemory
        return overhead(batch)

    found = swept(clock, Device(clock, seconds))
    assert found.best.max_rows == 16
    assert [(cell.max_rows, cell.problem) for cell in found.cells if cell.problem] == [(32, "out of memory")]


def test_a_model_that_runs_nothing_is_an_error_that_tells_no_words_of_requests() -> None:
    clock = ManualClock()

    def seconds(_batch: Batch) -> float:
        raise ValueError("private")

    with pytest.raises(FatalError, match="ValueError") as told:
        swept(clock, Device(clock, seconds))
    assert "private" not in str(told.value)


@pytest.mark.parametrize("per_row_s", [0.001, 0.03, 0.4])
def test_the_sweep_keeps_to_its_time(per_row_s: float) -> None:
    clock = ManualClock()
    device = Device(clock, lambda batch: per_row_s * (batch.padded_cost + 20) / 20, [1, 2, 3])
    swept(clock, device, most=4096, seconds=10)
    assert clock() <= 10 + 3 * per_row_s


def test_a_request_of_many_rows_bounds_the_sizes_from_below() -> None:
    """A smaller `max_batch_size` would refuse it."""
    assert sizes_from(3, 16) == [3, 4, 8, 16]
    assert sizes_from(1, 5) == [1, 2, 4, 5]


def in_turns(costs: list[int]) -> list[int]:
    """A short one, a long one, ..."""
    short, long = sorted(costs)[: len(costs) // 2], sorted(costs)[len(costs) // 2 :]
    return [cost for pair in zip(short, long, strict=True) for cost in pair]


@pytest.mark.parametrize("packs", [False, True])
@pytest.mark.parametrize("ordered", [list, sorted, in_turns])
@pytest.mark.parametrize("seed", range(2))
def test_what_is_best_of_a_sample_is_nearly_best_of_all(
    seed: int, ordered: Callable[[list[int]], list[int]], packs: bool
) -> None:
    """Each cell's rate is what all requests together would have, within a tenth, and so is the best's rank."""
    chance, clock = random.Random(seed), ManualClock()
    costs = ordered([min(512, max(4, round(chance.lognormvariate(3.6, 0.9)))) for _ in range(1000)])

    def seconds(batch: Batch) -> float:
        return 0.025 + 0.001 * batch.padded_cost

    device = Device(clock, seconds, costs)
    device.packs = packs
    found = swept(clock, device, most=256)

    def truly(cell: Cell) -> float:
        rules = Rules(max_rows=cell.max_rows, max_cost=cell.max_cost, lookahead=4)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("forebay_consumer.tune.backlog._MOST", 10**9)
            batches = form(device.items, rules, packs)
        return sum(batch.rows for batch in batches) / sum(map(seconds, batches))

    rates = {(cell.max_rows, cell.max_cost): (cell.rows_per_s, truly(cell)) for cell in found.cells if cell.measured}
    assert all(told == pytest.approx(true, rel=0.1) for told, true in rates.values()), rates
    assert truly(found.best) > 0.93 * max(true for _, true in rates.values())
