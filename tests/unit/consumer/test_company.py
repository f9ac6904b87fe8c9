"""When waiting for company pays: on a device where a pass costs the same for many, and while others do come."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_consumer.company import Company

NEVER = -math.inf


def known(
    *, fixed_s: float, per_item_s: float, gap_s: float, together: int = 1, sizes: tuple[int, ...] = (1, 8, 16)
) -> Company:
    """Long told of arrivals that end at 0.0, and of passes; an item costs 1."""
    company = Company()
    for number in reversed(range(200)):
        company.came(-number * gap_s, together, together)
        size = sizes[number % len(sizes)]
        company.ran(size, fixed_s + per_item_s * size)
    return company


def test_nothing_is_waited_for_before_anything_is_known() -> None:
    company = Company()
    assert company.until_s(1) == NEVER
    company.came(0.0, 1, 1)
    company.came(0.001, 1, 1)
    assert company.until_s(1) == NEVER, "what a pass takes is not known"
    told_of_passes = Company()
    told_of_passes.ran(1, 0.02)
    told_of_passes.came(0.0, 1, 1)
    assert told_of_passes.until_s(1) == NEVER, "nobody but one has come"


def test_a_lone_client_waits_for_nobody() -> None:
    """Its next request comes after its answer: later than the pass takes."""
    assert known(fixed_s=0.015, per_item_s=0.0, gap_s=0.02, sizes=(1,)).until_s(1) == NEVER


def test_a_device_on_which_a_pass_costs_the_same_for_all_waits_while_others_come() -> None:
    company = known(fixed_s=0.01, per_item_s=1e-6, gap_s=0.0002)
    assert company.until_s(1) == pytest.approx(0.005, rel=0.1), "half of what a pass costs, for one and one more"
    assert company.until_s(9) == pytest.approx(0.001, rel=0.1)
    assert company.until_s(60) == NEVER, "so many wait that one more is not worth it"


def test_more_in_one_arrival_are_worth_more() -> None:
    few = known(fixed_s=0.01, per_item_s=1e-6, gap_s=0.0002, together=1)
    many = known(fixed_s=0.01, per_item_s=1e-6, gap_s=0.0002, together=10)
    assert many.until_s(10) > few.until_s(10)


def test_where_every_item_costs_its_share_nobody_waits() -> None:
    assert known(fixed_s=0.001, per_item_s=0.01, gap_s=0.0001).until_s(1) == NEVER


def test_a_pause_between_two_bursts_hides_no_burst() -> None:
    company = known(fixed_s=0.01, per_item_s=1e-6, gap_s=0.0002)
    company.came(5.0, 1, 1)
    assert company.until_s(1) > 5.004


def test_passes_of_one_size_alone_are_taken_for_half_fixed() -> None:
    company = known(fixed_s=0.01, per_item_s=0.0, gap_s=0.0001, sizes=(8,))
    # a = 5 ms and b × cost = 0.6 ms: (a - b) / 2
    assert company.until_s(1) == pytest.approx((0.005 - 0.005 / 8) / 2, rel=0.02)


@given(
    st.floats(0.0, 1.0),
    st.floats(1e-6, 1.0),
    st.lists(st.integers(1, 100_000), min_size=2, max_size=100, unique=True),
    st.integers(1, 1000),
)
def test_no_estimate_waits_for_longer_than_the_longest_pass(
    fixed_s: float, per_cost_s: float, costs: list[int], waiting: int
) -> None:
    company = Company()
    for number, cost in enumerate(costs):
        company.came(number * 1e-4, 1, cost)
        company.ran(cost, fixed_s + per_cost_s * cost)
    longest_s = fixed_s + per_cost_s * max(costs)
    assert company.until_s(waiting) <= (len(costs) - 1) * 1e-4 + longest_s * 1.000001
