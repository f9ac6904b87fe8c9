"""The first signal drains, the second ends at once."""

import os
import signal
from collections.abc import Iterator

import pytest

from forebay_consumer.shutdown import EXIT_AT_ONCE, Shutdown, Signals
from support.consumer import ManualClock


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    """Give pytest its handlers back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


def test_nobody_asked_leaves_all_time() -> None:
    shutdown = Shutdown(30)
    assert not shutdown.asked
    assert shutdown.left_s == float("inf")


def test_time_runs_from_the_first_asking_and_never_below_nothing() -> None:
    clock = ManualClock(1000.0)
    shutdown = Shutdown(30, clock)
    clock.advance(100)
    shutdown.ask()
    assert shutdown.asked
    assert shutdown.left_s == 30
    clock.advance(20)
    shutdown.ask()
    assert shutdown.left_s == 10
    clock.advance(20)
    assert shutdown.left_s == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_and_goes_on(number: signal.Signals, exits: list[int]) -> None:
    shutdown = Shutdown(30)
    with Signals(shutdown):
        signal.raise_signal(number)
        assert shutdown.asked
    assert exits == []


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_of_either_kind_ends_at_once(
    first: signal.Signals, second: signal.Signals, exits: list[int]
) -> None:
    with Signals(Shutdown(30)):
        signal.raise_signal(first)
        signal.raise_signal(second)
    assert exits == [EXIT_AT_ONCE]


def test_a_signal_while_draining_for_another_reason_ends_at_once(exits: list[int]) -> None:
    shutdown = Shutdown(30)
    with Signals(shutdown):
        shutdown.ask()
        signal.raise_signal(signal.SIGTERM)
    assert exits == [EXIT_AT_ONCE]


def test_signals_are_left_alone_afterwards(exits: list[int]) -> None:
    shutdown = Shutdown(30)
    signals = Signals(shutdown)
    with signals:
        inside = signal.getsignal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) != inside
    assert signal.getsignal(signal.SIGINT) != inside
