"""The soak's schedule of faults."""

import pytest

from soak.schedule import CUT, FAULTS, KILL, POISON, QUIET_START_S, draw


def test_the_same_seed_gives_the_same_schedule() -> None:
    assert draw(7, 600, 2) == draw(7, 600, 2)
    assert draw(7, 600, 2) != draw(8, 600, 2)


@pytest.mark.parametrize("seed", range(5))
def test_a_schedule_is_in_order_and_within_its_time(seed: int) -> None:
    faults = draw(seed, 600, 3)
    times = [fault.at_s for fault in faults]
    assert times == sorted(times)
    assert times[0] >= QUIET_START_S
    assert times[-1] < 600
    assert {fault.worker for fault in faults} == {0, 1, 2}


def test_a_long_schedule_has_every_kind_and_way() -> None:
    faults = draw(1, 1200, 2)
    assert {fault.kind for fault in faults} == set(FAULTS)
    assert {fault.variant for fault in faults if fault.kind == CUT} == {"refuse", "swallow", "deaf", "slow", "reset"}


def test_what_is_left_out_does_not_come() -> None:
    assert {POISON, CUT}.isdisjoint({fault.kind for fault in draw(1, 1200, 2, [POISON, CUT])})


@pytest.mark.parametrize("without", [["flood"], list(FAULTS)], ids=["unknown", "all"])
def test_leaving_out_what_is_not_there_or_everything_is_refused(without: list[str]) -> None:
    with pytest.raises(ValueError, match="fault"):
        draw(1, 60, 2, without)


def test_a_fault_reads_as_one_line() -> None:
    faults = draw(1, 600, 2)
    kill = next(fault for fault in faults if fault.kind == KILL and fault.lasts_s)
    assert f"kill worker {kill.worker} for {kill.lasts_s} s" in kill.text()
    cut = next(fault for fault in faults if fault.kind == CUT and fault.lasts_s)
    assert f"cut {cut.variant} for" in cut.text()
