"""Thousands of seeded histories of deaths: the culprit is found in three, and nobody else is ever blamed."""

import os

import pytest

from support.lives import Log, live

SEEDS = int(os.environ.get("FOREBAY_SEEDS", "60"))


def check(log: Log) -> None:
    assert log.finished, "everything is answered and committed"
    assert log.ahead == []
    assert set(log.convicted) <= set(log.poison), "no innocent is convicted"
    assert set(log.poison) <= set(log.convicted)


@pytest.mark.parametrize(
    ("workers", "handovers"),
    [(1, 0.0), (3, 0.0), (2, 0.01)],
    ids=["one worker", "each life another worker", "partitions handed over"],
)
def test_a_record_that_kills_costs_three_deaths_and_no_innocent(workers: int, handovers: float) -> None:
    for seed in range(SEEDS):
        log = live(seed, workers=workers, handovers=handovers)
        check(log)
        assert all(log.deaths[place] <= 3 for place in log.poison), f"seed {seed}: {log.deaths}"


def test_several_such_records_are_each_found() -> None:
    for seed in range(SEEDS):
        log = live(seed, poisons=3, length=25)
        check(log)
        assert all(log.deaths[place] <= 3 for place in log.poison), f"seed {seed}: {log.deaths}"


@pytest.mark.parametrize("workers", [1, 3])
def test_an_outside_killer_convicts_nobody(workers: int) -> None:
    for seed in range(SEEDS):
        log = live(seed, workers=workers, killer=0.001)
        check(log)


@pytest.mark.parametrize("workers", [1, 3])
def test_who_loses_partitions_and_gets_them_back_still_finds_the_record_that_kills(workers: int) -> None:
    for seed in range(SEEDS):
        log = live(seed, workers=workers, losses=0.003)
        check(log)
        assert all(log.deaths[place] <= 3 + log.escapes for place in log.poison), f"seed {seed}: {log.deaths}"


def test_who_loses_partitions_and_gets_them_back_suspects_nobody() -> None:
    for seed in range(SEEDS):
        log = live(seed, poisons=0, losses=0.003)
        check(log)
        assert log.suspicious_steps == 0


def test_an_outage_that_all_notice_convicts_nobody() -> None:
    for seed in range(SEEDS):
        check(live(seed, poisons=0, workers=3, outages=0.003))


def test_the_record_that_kills_is_found_in_spite_of_outages() -> None:
    for seed in range(SEEDS):
        log = live(seed, workers=2, outages=0.002)
        check(log)


def test_without_notice_outages_would_convict_innocents() -> None:
    """Or the two before could not fail."""
    logs = [live(seed, poisons=0, workers=3, outages=0.003, outages_known=False) for seed in range(60)]
    assert any(log.convicted for log in logs)


def test_without_outside_killer_or_poison_nothing_is_answered_twice() -> None:
    for seed in range(100):
        log = live(seed, poisons=0)
        check(log)
        assert set(log.answers.values()) == {1}


def test_without_the_scheme_the_record_kills_for_ever() -> None:
    log = live(1, uses_trials=False, max_steps=5000)
    assert not log.finished
    assert sum(log.deaths.values()) > 20
