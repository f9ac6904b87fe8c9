"""Which failed passes are run again, and how long is waited."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_consumer import TransientError
from forebay_consumer.errors import OutOfMemory, WrongLength
from forebay_consumer.retries import Retries, is_transient


@pytest.mark.parametrize(
    "error",
    [
        TransientError("busy"),
        ConnectionRefusedError(),
        ConnectionResetError(),
        BrokenPipeError(),
        TimeoutError(),
        OSError(errno.EHOSTUNREACH, "no route"),
        OSError(errno.EMFILE, "too many open files"),
        OSError(errno.ETIMEDOUT, "timed out"),
    ],
    ids=repr,
)
def test_the_worlds_faults_are_tried_again(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        RuntimeError("CUDA error: device-side assert triggered"),
        FileNotFoundError(errno.ENOENT, "no such file"),
        PermissionError(errno.EACCES, "no"),
        OSError(errno.ENOSPC, "no space left on device"),
        OSError("image file is truncated"),
        WrongLength(2, 1),
        OutOfMemory("full"),
        MemoryError(),
    ],
    ids=repr,
)
def test_what_says_the_same_again_is_not(error: Exception) -> None:
    assert not is_transient(error)


@pytest.mark.parametrize(("attempt", "allowed"), [(1, True), (2, True), (3, False), (4, False)])
def test_attempts_count_the_first_pass_too(attempt: int, allowed: bool) -> None:
    assert Retries(attempts=3).allow(TransientError(), attempt) is allowed


def test_a_single_attempt_never_repeats() -> None:
    assert not Retries(attempts=1).allow(TransientError(), 1)


def test_the_bound_doubles_up_to_its_maximum() -> None:
    retries = Retries(10, backoff_s=0.2, max_backoff_s=1.0)
    assert [retries.bound_s(attempt) for attempt in range(1, 6)] == pytest.approx([0.2, 0.4, 0.8, 1.0, 1.0])


@given(attempt=st.integers(1, 10_000), chance=st.floats(0, 1, exclude_max=True))
def test_a_wait_lies_between_nothing_and_its_bound(attempt: int, chance: float) -> None:
    waits: list[float] = []
    retries = Retries(100, 0.2, 5.0, waits.append, lambda: chance)
    retries.wait(attempt)
    assert 0 <= waits[0] <= retries.bound_s(attempt) <= 5.0
    assert waits[0] == chance * retries.bound_s(attempt)
