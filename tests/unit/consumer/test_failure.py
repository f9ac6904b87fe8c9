"""One place for the error that ends the worker."""

import threading

import pytest

from forebay_consumer.failure import Failure


def test_nothing_is_raised_while_nothing_failed() -> None:
    failure = Failure()
    failure.check()
    assert not failure.happened


def test_the_first_error_is_the_one_that_counts() -> None:
    failure = Failure()
    first = ValueError("first")
    failure.report(first)
    failure.report(ValueError("second"))
    assert failure.happened
    for _ in range(2):
        with pytest.raises(ValueError, match="first") as caught:
            failure.check()
        assert caught.value is first


@pytest.mark.parametrize("error", [ValueError("a"), SystemExit(3), KeyboardInterrupt()], ids=lambda error: repr(error))
def test_whatever_ends_a_guarded_thread_is_met_by_who_checks(error: BaseException) -> None:
    failure = Failure()

    def run() -> None:
        raise error

    thread = threading.Thread(target=failure.guard(run, "stage"))
    thread.start()
    thread.join(10)
    with pytest.raises(type(error)) as caught:
        failure.check()
    assert caught.value is error


def test_a_guarded_stage_that_ends_well_is_no_failure() -> None:
    failure = Failure()
    ran: list[bool] = []
    failure.guard(lambda: ran.append(True), "stage")()
    assert ran == [True]
    assert not failure.happened
