"""The best size of a batch is the smallest that is nearly as fast as any, found in bounded time."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from forebay_consumer.errors import FatalError
from forebay_consumer.profile import BUDGET_S, Sizes, profile
from forebay_consumer.profile_file import Profiles
from support.consumer import ManualClock


class Device:
    """Takes its time by the batch's size and its rows' cost; a row is its cost."""

    def __init__(self, seconds: Callable[[int, int], float]) -> None:
        self.clock = ManualClock()
        self.sizes: list[int] = []
        self._seconds = seconds

    def __call__(self, rows: Sequence[int]) -> None:
        self.sizes.append(len(rows))
        self.mixed = len(set(rows)) > 1
        self.clock.advance(self._seconds(len(rows), rows[0]))

    def profile(
        self, costs: Sequence[int], most: int = 64, max_cost: int | None = None, packs: bool = False
    ) -> Sizes | None:
        return profile([(cost, cost) for cost in costs], most, max_cost, self, self.clock, packs)[0]


def overhead(size: int, cost: int) -> float:
    """8 ms for each pass and 1 ms for each row: twice the rows bring 3 % up to 256 of them."""
    return 0.008 + 0.001 * size * cost


def cache(size: int, cost: int) -> float:
    """As a ViT on a CPU: what does not fit the cache costs 15 % more."""
    return (0.002 + 0.003 * size) * (1.15 if size * cost > 8 else 1.0)


@pytest.mark.parametrize(
    ("seconds", "most", "rows"),
    [
        pytest.param(overhead, 1024, 256, id="more is better, up to a point"),
        pytest.param(overhead, 20, 20, id="more would be better"),
        pytest.param(cache, 64, 8, id="more is worse"),
        pytest.param(lambda size, _cost: 0.001 * size, 64, 1, id="all are equal"),
        pytest.param(lambda size, _cost: 0.001 * size * (1.02 if size < 4 else 1.0), 64, 1, id="nearly equal"),
        pytest.param(overhead, 1, 1, id="one row"),
    ],
)
def test_rows_of_one_cost_have_a_best_number(seconds: Callable[[int, int], float], most: int, rows: int) -> None:
    assert Device(seconds).profile([1], most) == Sizes(rows)


def test_a_bound_on_the_cost_that_is_given_leaves_the_best_number_of_the_cheapest_rows() -> None:
    assert Device(cache).profile([1], 64, max_cost=32) == Sizes(8, 32)


def test_rows_of_unlike_costs_have_a_best_cost_too() -> None:
    """A device that is fast from 512 tokens on and slower from 2,048 on."""

    def seconds(size: int, cost: int) -> float:
        tokens = size * cost
        return 1e-5 * max(tokens, 512) * (1.2 if tokens >= 2048 else 1.0)

    assert Device(seconds).profile([8, 64, 256], 64) == Sizes(64, 512)
    assert Device(seconds).profile([64], 128) == Sizes(128, 512)  # how many cheaper ones are best is not known
    assert Device(seconds).profile([8, 64, 256], 64, max_cost=128) == Sizes(16, 128)


@pytest.mark.parametrize(
    ("costs", "most", "max_cost", "found"),
    [
        pytest.param([8, 64, 256], 64, None, Sizes(8, 8 * 328), id="8 of each"),
        pytest.param([8, 256, 64, 64], 64, 1000, Sizes(8, 1000), id="a bound on the cost that is given"),
        pytest.param([8, 64, 256], 12, None, Sizes(8, 4 * 328), id="no more than may be"),
        pytest.param([8, 256], 2, None, Sizes(2, 264), id="one of each"),
        pytest.param([8, 64, 256], 2, None, Sizes(2, 512), id="fewer than there are kinds"),
        pytest.param([64], 64, None, Sizes(64, 512), id="one kind"),
    ],
)
def test_where_a_model_packs_mixtures_are_tried(
    costs: Sequence[int], most: int, max_cost: int | None, found: Sizes
) -> None:
    """Equal rows are best by eights, mixed ones by 24."""

    def seconds(size: int, _cost: int) -> float:
        return 0.001 * (size + (1 if device.mixed else 0.25))

    device = Device(seconds)
    assert device.profile(costs, most, max_cost, packs=True) == found


@pytest.mark.parametrize(
    ("disturbed", "units"),
    [
        ({1: 1.1}, 16),
        *(({2**power: 1.1}, 8) for power in range(1, 5)),
        ({4: 0.92}, 8),
        ({4: 0.95, 32: 1.1}, 8),
        ({8: 1.1, 16: 1.05, 32: 1.08}, 8),
        ({8: 1.05, 16: 1.1, 32: 1.1}, 8),
    ],
    ids=str,
)
def test_noise_does_not_make_a_far_smaller_mixture_nearly_as_fast(disturbed: Mapping[int, float], units: int) -> None:
    """A pass costs as much as 30 tokens, a mixture as much as 67: 4 reach 0.93 of what 16 do, 8 do 0.97."""

    def seconds(size: int, _cost: int) -> float:
        return 0.0003 * (30 + 67 * size / 2) * disturbed.get(size // 2, 1.0)

    found = Device(seconds).profile([5, 62], 64, packs=True)
    assert found is not None
    assert found.max_cost == units * 67


def test_a_size_that_cannot_be_run_ends_the_search_below_it() -> None:
    def seconds(size: int, cost: int) -> float:
        if size > 16:
            raise MemoryError
        return overhead(size, cost)

    assert Device(seconds).profile([1], 64) == Sizes(16)


def test_a_fatal_error_is_no_answer() -> None:
    def seconds(_size: int, _cost: int) -> float:
        raise FatalError("the device is lost")

    with pytest.raises(FatalError):
        Device(seconds).profile([1])


@pytest.mark.parametrize("per_row_s", [0.001, 0.03, 0.4, 1.0])
def test_the_search_keeps_to_its_time_whatever_a_row_takes(per_row_s: float) -> None:
    device = Device(lambda size, cost: per_row_s * (size + 20) * cost / 20)
    device.profile([1, 2, 3], 4096)
    assert device.clock.now <= BUDGET_S + 3.15 * per_row_s  # the first pass of a cost cannot be foreseen


def test_a_neighbour_that_disturbs_some_passes_changes_nothing() -> None:
    """Every third pass takes twice as long."""
    device = Device(lambda size, cost: cache(size, cost) * (2 if len(device.sizes) % 3 == 0 else 1))
    assert device.profile([1]) == Sizes(8)


@pytest.mark.parametrize("speed", [1.2, 1.3, 1.5], ids=str)
@pytest.mark.parametrize("fast_s", [0.06, 0.09, 0.15], ids=str)
def test_a_short_pass_does_not_find_the_fast_moments_of_the_clock_alone(fast_s: float, speed: float) -> None:
    """One that is faster for a part of every 0.3 s; of 8 rows a row takes 41 ms, alone 48."""

    def seconds(size: int, _cost: int) -> float:
        work, now = 0.04 * size + 0.008, device.clock.now
        while work > 1e-9:
            at = now % 0.3
            faster, left_s = (speed, fast_s - at) if at < fast_s else (1.0, 0.3 - at)
            step = min(left_s + 1e-9, work / faster)
            now, work = now + step, work - step * faster
        return now - device.clock.now

    device = Device(seconds)
    assert device.profile([1]) == Sizes(8)


def test_where_there_is_no_time_for_two_sizes_nothing_is_found() -> None:
    assert Device(lambda size, _cost: 10.0 * size).profile([1]) is None
    assert Device(overhead).profile([]) is None


def test_no_more_is_tried_once_two_sizes_brought_nothing() -> None:
    device = Device(cache)
    device.profile([1], 4096)
    assert max(device.sizes) == 32


def test_a_profile_is_kept_beside_those_of_others(tmp_path: Path) -> None:
    file = tmp_path / "model.profile.json"
    Profiles(file).keep("cpu", Sizes(8, 512))
    Profiles(file).keep("cuda", Sizes(64))
    assert Profiles(file).find("cpu") == Sizes(8, 512)
    assert Profiles(file).find("cuda") == Sizes(64)
    assert Profiles(file).find("other") is None
    assert [found.name for found in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("{", id="no JSON"),
        pytest.param("[1]", id="no object"),
        pytest.param(json.dumps({"cpu": 8}), id="no profile"),
        pytest.param(json.dumps({"cpu": {"max_rows": "many", "max_cost": None}}), id="no number"),
        pytest.param(json.dumps({"cpu": {"max_rows": 8}}), id="half a profile"),
        pytest.param(json.dumps({"cpu": {"max_rows": 0, "max_cost": None}}), id="no rows"),
        pytest.param(json.dumps({"cpu": {"max_rows": 8, "max_cost": -1}}), id="less than nothing"),
        pytest.param('{"cpu": {"max_rows": Infinity, "max_cost": null}}', id="infinite"),
        pytest.param("[" * 100_000, id="nested too deeply"),
    ],
)
def test_a_file_that_cannot_be_read_is_written_anew(tmp_path: Path, content: str) -> None:
    file = tmp_path / "model.profile.json"
    file.write_text(content)
    assert Profiles(file).find("cpu") is None
    Profiles(file).keep("cpu", Sizes(8))
    assert Profiles(file).find("cpu") == Sizes(8)


def test_a_folder_that_cannot_be_written_to_changes_nothing(tmp_path: Path) -> None:
    profiles = Profiles(tmp_path / "absent" / "model.profile.json")
    profiles.keep("cpu", Sizes(8))
    assert profiles.find("cpu") is None


def test_without_a_file_nothing_is_kept() -> None:
    profiles = Profiles(None)
    profiles.keep("cpu", Sizes(8))
    assert profiles.find("cpu") is None
