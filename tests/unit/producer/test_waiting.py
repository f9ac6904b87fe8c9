"""Questions leave exactly once, whatever comes first, and nothing of them stays behind."""

import concurrent.futures
import gc
import threading
import weakref
from concurrent.futures import Future

import pytest

from forebay_producer import ClientClosed, ClientQueueFull, ReplyTimeout
from forebay_producer.waiting import Question, Waiting, finish
from forebay_schemas import Model, Result

ANSWER = Result("1", Model("m"), ["answer"])


def question(number: int = 0, deadline: float = float("inf")) -> Question:
    return Question(b"%d" % number, str(number), 1.0, deadline)


def test_what_is_taken_once_is_gone() -> None:
    waiting = Waiting(10)
    asked = question()
    waiting.add(asked, patient=False)
    assert waiting.take(asked.correlation) is asked
    assert waiting.take(asked.correlation) is None
    assert waiting.take(b"never there") is None
    assert len(waiting) == 0


def test_only_what_is_overdue_and_unanswered_expires() -> None:
    waiting = Waiting(10)
    for number, deadline in enumerate([5.0, 1.0, 3.0, 2.0]):
        waiting.add(question(number, deadline), patient=False)
    waiting.take(b"3")
    assert [late.request_id for late in waiting.expired(3.0)] == ["1", "2"]
    assert list(waiting.expired(3.0)) == []
    assert len(waiting) == 1


def test_deadlines_of_answered_questions_do_not_pile_up() -> None:
    waiting = Waiting(10)
    for number in range(20_000):
        waiting.add(question(number, 1e9), patient=False)
        waiting.take(b"%d" % number)
    assert len(waiting._deadlines) < 2_000


def test_a_cancelled_future_is_forgotten_and_counts_as_done() -> None:
    waiting = Waiting(10)
    asked = question()
    waiting.add(asked, patient=False)
    assert asked.future.cancel()
    assert len(waiting) == 0
    assert concurrent.futures.wait([asked.future], timeout=10).done == {asked.future}
    finish(asked, ANSWER)  # an answer that comes after all
    assert asked.future.cancelled()


def test_an_answer_counts_once() -> None:
    asked = question()
    finish(asked, ANSWER)
    finish(asked, ReplyTimeout("late"))
    assert asked.future.result(0) is ANSWER


def test_an_error_knows_its_request() -> None:
    asked = question(7)
    finish(asked, ReplyTimeout("late"))
    error = asked.future.exception(0)
    assert isinstance(error, ReplyTimeout)
    assert error.request_id == "7"


@pytest.mark.parametrize("raised", [ValueError, SystemExit, KeyboardInterrupt])
def test_what_a_callback_raises_goes_no_further(raised: type[BaseException]) -> None:
    def callback(_: Future[Result]) -> None:
        raise raised

    asked = question()
    asked.future.add_done_callback(callback)
    finish(asked, ANSWER)
    assert asked.future.result(0) is ANSWER


@pytest.mark.parametrize(
    ("patient", "deadline"),
    [pytest.param(False, 1e12, id="who must not wait"), pytest.param(True, 0.0, id="whose time is over")],
)
def test_without_room_is_refused(patient: bool, deadline: float) -> None:
    waiting = Waiting(1)
    waiting.add(question(0), patient=False)
    with pytest.raises(ClientQueueFull, match="max_in_flight"):
        waiting.add(question(1, deadline), patient=patient)
    assert len(waiting) == 1


@pytest.mark.parametrize("how", ["answered", "closed"])
def test_who_waits_for_room_is_woken(how: str) -> None:
    waiting = Waiting(1)
    waiting.add(question(0), patient=False)
    outcome: Future[None] = Future()
    started = threading.Event()

    def ask() -> None:
        started.set()
        try:
            waiting.add(question(1, threading.TIMEOUT_MAX), patient=True)
        except ClientClosed as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(None)

    thread = threading.Thread(target=ask)
    thread.start()
    assert started.wait(30)
    if how == "answered":
        waiting.take(b"0")
        outcome.result(30)
    else:
        waiting.close()
        with pytest.raises(ClientClosed):
            outcome.result(30)
    thread.join()


def test_a_closed_one_takes_nobody_in_and_gives_up_the_rest() -> None:
    waiting = Waiting(10)
    asked = question()
    waiting.add(asked, patient=False)
    waiting.close()
    with pytest.raises(ClientClosed):
        waiting.add(question(1), patient=False)
    assert waiting.rest() == [asked]
    assert len(waiting) == 0


def test_what_is_answered_goes_with_its_last_reference_and_waits_for_no_collector() -> None:
    """Among many requests in flight the collector comes late, and answers may be large."""
    waiting = Waiting(10)
    asked = question()
    waiting.add(asked, patient=False)
    finish(asked, ANSWER)
    waiting.take(asked.correlation)
    gc.disable()
    try:
        future = weakref.ref(asked.future)
        del asked
        assert future() is None
    finally:
        gc.enable()
