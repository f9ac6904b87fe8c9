"""One place for the error that ends the worker."""

import threading

import pytest
from structlog.testing import capture_logs

from forebay_consumer.errors import FatalError
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


@pytest.mark.parametrize(
    ("error", "key", "told"),
    [
        pytest.param(FatalError("grant Read on it"), "error", "grant Read on it", id="our own words"),
        pytest.param(ValueError("private"), "exception", "ValueError", id="another exception's kind"),
    ],
)
def test_a_stage_that_fails_is_told_in_no_words_but_our_own(error: Exception, key: str, told: str) -> None:
    def run() -> None:
        raise error

    with capture_logs() as lines:
        Failure().guard(run, "preprocess")()
    (line,) = lines
    assert (line["action"], line["stage"]) == ("stage_failed", "preprocess")
    assert line[key].endswith(told)
    assert "private" not in str(line)
