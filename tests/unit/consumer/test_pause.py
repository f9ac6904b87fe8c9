"""A wait between two tries does not outlast the worker."""

import threading
from collections.abc import Callable

import pytest

from forebay_consumer.errors import FatalError
from forebay_consumer.failure import Failure
from forebay_consumer.pause import Pause
from forebay_consumer.shutdown import Shutdown
from support.consumer import ManualClock


class Waits(Failure):
    """A failure whose `wait` turns the clock instead."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.clock = clock
        self.then: Callable[[], None] = lambda: None

    def wait(self, timeout_s: float) -> bool:
        self.clock.advance(timeout_s)
        self.then()
        return self.happened


def made() -> tuple[Pause, Waits, Shutdown, ManualClock]:
    clock = ManualClock()
    failure, shutdown = Waits(clock), Shutdown(30.0, clock)
    return Pause(failure, shutdown, clock), failure, shutdown, clock


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.2, 5.0])
def test_it_waits_as_long_as_it_is_told(seconds: float) -> None:
    pause, _, _, clock = made()
    pause(seconds)
    assert clock.now == pytest.approx(seconds)


def test_a_draining_worker_does_not_wait() -> None:
    pause, _, shutdown, clock = made()
    shutdown.ask()
    pause(60.0)
    assert clock.now == 0.0


def test_a_wait_ends_when_the_worker_is_asked_to_drain() -> None:
    pause, failure, shutdown, clock = made()
    failure.then = lambda: shutdown.ask() if clock.now > 1.0 else None
    pause(60.0)
    assert clock.now < 1.2


def test_a_wait_ends_with_the_error_that_ends_the_worker() -> None:
    pause, failure, _, clock = made()
    failure.then = lambda: failure.report(FatalError("the broker refuses us")) if clock.now > 1.0 else None
    with pytest.raises(FatalError, match="refuses us"):
        pause(60.0)
    assert clock.now < 1.2


def test_a_real_wait_is_woken_by_a_failure() -> None:
    failure = Failure()
    ended = threading.Event()

    def wait() -> None:
        with pytest.raises(FatalError):
            Pause(failure, Shutdown(30.0))(3600.0)
        ended.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    failure.report(FatalError("stop"))
    assert ended.wait(60)
    thread.join()
