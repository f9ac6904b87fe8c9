"""Linger is compared on the real window, on a clock that is only counted."""

import pytest

from forebay_consumer.record import Item
from forebay_consumer.tune.backlog import form
from forebay_consumer.tune.linger import Policy, Waits, arrivals, capacity, choose, compare, interpolated, simulate
from forebay_consumer.window import Rules
from support.consumer import make_item


def arrived(*moments: float) -> list[Item]:
    came = [make_item(offset, since_s=moment) for offset, moment in enumerate(moments)]
    for item in came:
        item.ready_s = item.record.since_s
    return came


def test_a_lone_request_waits_the_whole_linger_and_for_its_pass() -> None:
    took, rows = simulate(arrived(1.0), Rules(linger_s=0.1), packs=False, pass_s=lambda _: 0.05)
    assert took == [pytest.approx(0.15)]
    assert rows == 1


def test_who_comes_within_the_linger_shares_the_pass() -> None:
    took, rows = simulate(arrived(1.0, 1.04), Rules(linger_s=0.1), packs=False, pass_s=lambda _: 0.05)
    assert took == [pytest.approx(0.11), pytest.approx(0.15)]
    assert rows == 2


def test_who_comes_during_a_pass_waits_for_its_end() -> None:
    took, rows = simulate(arrived(1.0, 1.01, 1.02), Rules(linger_s=0.0), packs=False, pass_s=lambda _: 0.05)
    assert took == [pytest.approx(0.05), pytest.approx(0.08), pytest.approx(0.09)]
    assert rows == 1.5


def test_a_full_batch_waits_no_longer() -> None:
    took, rows = simulate(arrived(1.0, 1.01), Rules(max_rows=2, linger_s=1.0), packs=False, pass_s=lambda _: 0.05)
    assert took == [pytest.approx(0.05), pytest.approx(0.06)]
    assert rows == 2


@pytest.mark.parametrize(("packs", "seconds"), [(True, 0.1), (False, 0.18)])
def test_what_is_packed_takes_the_time_of_its_sum(packs: bool, seconds: float) -> None:
    came = [make_item(0, cost=1), make_item(1, cost=9)]
    took, _ = simulate(came, Rules(), packs, lambda cost: cost / 100)
    assert took == [pytest.approx(seconds + Rules().linger_s)] * 2


def test_adaptive_linger_learns_that_waiting_does_not_pay() -> None:
    """Passes of no fixed part: a lone request, once two are known, goes at once."""
    took, _ = simulate(
        arrived(*range(1, 21)), Rules(linger_s=0.5, adaptive=True), packs=False, pass_s=lambda cost: 0.01 * cost
    )
    assert took[0] == pytest.approx(0.01)
    assert took[len(took) // 2] == pytest.approx(0.01)


def test_seconds_lie_between_those_measured_and_never_fall() -> None:
    pass_s = interpolated([(10, 1.0), (30, 3.0), (20, 2.0)])
    assert [pass_s(cost) for cost in (5, 10, 15, 30, 60)] == pytest.approx([1.0, 1.0, 1.5, 3.0, 6.0])
    noisy = interpolated([(10, 1.0), (20, 3.0), (21, 2.0), (40, 4.0)])
    took = [noisy(cost) for cost in range(1, 80)]
    assert took == sorted(took)
    assert interpolated([(1, 2.0), (1, 4.0)])(1) == 3.0


def test_capacity_is_that_of_a_backlog() -> None:
    formed = form([make_item()], Rules(max_rows=4), packs=False)
    assert capacity(formed, lambda cost: 0.1 * cost) == pytest.approx(10)
    assert capacity(formed, lambda _: 0.1) == pytest.approx(40)


def test_arrivals_are_as_many_a_second_as_asked_and_the_same_every_time() -> None:
    came = arrivals([make_item(0), make_item(1)], 50.0, 4000)
    assert 4000 / came[-1].ready_s == pytest.approx(50, rel=0.1)
    assert [item.ready_s for item in came] == [item.record.since_s for item in came]
    assert [item.ready_s for item in arrivals([make_item()], 50.0, 4000)] == [item.ready_s for item in came]


def test_on_a_device_whose_passes_all_cost_the_same_a_linger_makes_larger_batches() -> None:
    items, rules = [make_item()], Rules(max_rows=64)
    waits = compare(items, rules, False, form(items, rules, False), lambda _: 0.01, 20)
    at_tenth = {each.policy: each for each in waits if each.load == 0.1}
    assert at_tenth[Policy(20)].rows_per_pass > 1.5 * at_tenth[Policy(0)].rows_per_pass
    assert at_tenth[Policy(20, True)].rows_per_pass > at_tenth[Policy(0)].rows_per_pass
    assert len(waits) == 3 * 6


def test_the_policy_is_that_which_is_never_far_from_the_best() -> None:
    none, some, much = Policy(0), Policy(5), Policy(100)
    waits = [
        Waits(policy, load, p50_s, 2 * p50_s, 1.0)
        for load, took in ((0.1, (1.0, 1.2, 9.0)), (0.9, (2.0, 1.1, 1.0)))
        for policy, p50_s in zip((none, some, much), took, strict=True)
    ]
    assert choose(waits) == some


def test_of_nearly_equal_policies_the_first_is_kept() -> None:
    waits = [Waits(policy, 0.5, p50_s, 1.0, 1.0) for policy, p50_s in ((Policy(20, True), 1.01), (Policy(0), 1.0))]
    assert choose(waits) == Policy(20, True)
