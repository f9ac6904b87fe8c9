"""The first signal drains, the second ends at once."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from forebay_consumer.shutdown import EXIT_AT_ONCE, EXIT_TOO_LATE, Shutdown, Signals
from support.consumer import ManualClock
from support.worker import wait_until


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
        wait_until(lambda: shutdown.asked, "it is asked")
    assert exits == []


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_of_either_kind_ends_at_once(
    first: signal.Signals, second: signal.Signals, exits: list[int]
) -> None:
    with Signals(Shutdown(30)):
        signal.raise_signal(first)
        signal.raise_signal(second)
        wait_until(lambda: exits, "it ends")
    assert exits == [EXIT_AT_ONCE]


FORKS = """
import os, signal, sys, threading, time
from forebay_consumer.shutdown import Shutdown, Signals

number, on_thread, handles = int(sys.argv[1]), sys.argv[2] == "True", sys.argv[3] == "True"
shutdown = Shutdown(30)

def fork():
    told, tells = os.pipe()
    if not (child := os.fork()):
        if handles:
            signal.signal(number, lambda *_: os._exit(0))
        os.write(tells, b"up")
        signal.pause()
        os._exit(1)
    os.read(told, 2)
    ended = 0
    while not ended:  # a signal that comes just before the pause ends none: Python 3.13 sees it with the next
        os.kill(child, number)
        time.sleep(0.01)
        ended, status = os.waitpid(child, os.WNOHANG)
    print(status == (0 if handles else number), shutdown.asked)

with Signals(shutdown):
    if on_thread:
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()
    else:
        fork()
    os.kill(os.getpid(), number)
    assert shutdown.wait(60)
"""


@pytest.mark.parametrize("handles", [False, True], ids=["as it comes", "a handler of its own"])
@pytest.mark.parametrize("on_thread", [False, True], ids=["main thread", "another thread"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_a_forked_child_is_its_own_and_none_to_its_parent(
    number: signal.Signals, on_thread: bool, handles: bool
) -> None:
    """As of a model with a pool of processes. A signal to the whole group would else count twice."""
    command = [sys.executable, "-c", FORKS, str(int(number)), str(on_thread), str(handles)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.stdout.split(), ended.returncode) == (["True", "False"], 0), ended.stderr


def test_a_signal_while_draining_for_another_reason_ends_at_once(exits: list[int]) -> None:
    shutdown = Shutdown(30)
    with Signals(shutdown):
        shutdown.ask()
        signal.raise_signal(signal.SIGTERM)
        wait_until(lambda: exits, "it ends")
    assert exits == [EXIT_AT_ONCE]


def test_a_main_thread_that_hangs_is_ended_soon_after_the_deadline() -> None:
    hanging = """
import threading
from forebay_consumer.shutdown import Shutdown, Signals

with Signals(Shutdown(0.1)):
    print("hangs", flush=True)
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()
"""
    with subprocess.Popen([sys.executable, "-c", hanging], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"hangs\n"
        process.terminate()
        assert process.wait(30) == EXIT_TOO_LATE


def test_signals_are_left_alone_afterwards(exits: list[int]) -> None:
    shutdown = Shutdown(30)
    signals = Signals(shutdown)
    with signals:
        inside = signal.getsignal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) != inside
    assert signal.getsignal(signal.SIGINT) != inside
