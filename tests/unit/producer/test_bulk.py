"""The window of a bulk, on a client that answers when the test says so."""

from collections.abc import Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import pytest

from forebay_producer import BadRequest, Client, Request, RequestFailed, submit_all
from forebay_producer.bulk import tell_all
from forebay_schemas import Code, Failure, Model, Result

WAIT_S = 10.0


class Scripted(Client):
    """Answers nothing by itself; `at_once` answers in `submit`."""

    def __init__(self, *, at_once: bool = False) -> None:
        self.at_once = at_once
        self.futures: list[Future[Result]] = []
        self.asked: list[tuple[Any, dict[str, Any]]] = []

    def submit(self, value: Any, **options: Any) -> Future[Result]:
        if value == "bad":
            raise BadRequest("no")
        self.asked.append((value, options))
        self.futures.append(Future())
        if self.at_once:
            self.answer(len(self.futures) - 1)
        return self.futures[-1]

    def answer(self, index: int) -> None:
        self.futures[index].set_result(Result(str(index), Model("m"), [self.asked[index][0]]))


@pytest.mark.parametrize("in_flight", [1, 2, 5])
def test_no_more_are_in_flight_than_asked_for(in_flight: int, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Scripted()
    in_flight_then: list[int] = []

    class AnswersWhenWaitedFor(SimpleQueue[Any]):
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            open_ones = [index for index, future in enumerate(client.futures) if not future.done()]
            in_flight_then.append(len(open_ones))
            client.answer(open_ones[0])
            return super().get(block, timeout)

    monkeypatch.setattr("forebay_producer.bulk.SimpleQueue", AnswersWhenWaitedFor)
    texts = [str(number) for number in range(10)]
    assert [item for item, _ in submit_all(client, texts, in_flight)] == texts
    assert max(in_flight_then) == in_flight


def test_outcomes_come_in_the_order_of_the_answers_each_with_its_item() -> None:
    client = Scripted()

    def items() -> Any:
        yield from ("a", "b", "c")
        for index in (2, 0, 1):
            client.answer(index)

    outcomes = list(submit_all(client, items(), in_flight=10))
    assert [item for item, _ in outcomes] == ["c", "a", "b"]
    assert all(isinstance(outcome, Result) and list(outcome.outputs) == [item] for item, outcome in outcomes)


def test_errors_are_outcomes_and_do_not_end_the_others() -> None:
    client = Scripted(at_once=True)
    outcomes = dict(submit_all(client, ["good", "bad", "better"]))
    assert isinstance(outcomes["bad"], BadRequest)
    assert isinstance(outcomes["good"], Result)
    assert isinstance(outcomes["better"], Result)


def test_an_error_reply_is_an_outcome() -> None:
    client = Scripted()

    def items() -> Any:
        yield "a"
        client.futures[0].set_exception(RequestFailed(Failure("0", Code.EXPIRED, "too late")))

    [(_, outcome)] = submit_all(client, items())
    assert isinstance(outcome, RequestFailed)
    assert outcome.code is Code.EXPIRED


def test_a_request_brings_its_options_and_comes_back_as_it_is() -> None:
    client = Scripted(at_once=True)
    request = Request("text", "file:1", {"request_id": "mine"})
    [(item, _)] = submit_all(client, [request])
    assert item is request
    assert client.asked == [("text", {"request_id": "mine"})]


def test_ending_early_cancels_what_is_unanswered() -> None:
    client = Scripted()

    def items() -> Any:
        yield from ("a", "b", "c")
        client.answer(0)

    outcomes = submit_all(client, items())
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    assert [future.cancelled() for future in client.futures] == [False, True, True]


def test_a_window_without_room_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="in_flight=0"):
        submit_all(Scripted(), ["a"], in_flight=0)


def test_an_answer_is_told_while_the_next_item_is_waited_for() -> None:
    told = Event()

    def items() -> Iterator[str]:
        yield "first"
        assert told.wait(WAIT_S)

    tell_all(Scripted(at_once=True), items(), 10, lambda *_: told.set())


def test_no_more_are_in_flight_than_asked_for_where_they_are_told() -> None:
    client, told, taken = Scripted(), list[str](), SimpleQueue[int]()

    def items() -> Iterator[str]:
        for number in range(5):
            taken.put(number)
            yield str(number)
        taken.put(5)

    asking = Thread(target=tell_all, args=(client, items(), 2, lambda item, _: told.append(item)))
    asking.start()
    for number in range(5):
        assert taken.get(timeout=WAIT_S) == number
        if number >= 2:
            assert len(client.futures) == number, "the one that was taken waits for room"
            client.answer(number - 2)
    assert (taken.get(timeout=WAIT_S), len(client.futures)) == (5, 5)
    for number in (3, 4):
        client.answer(number)
    asking.join(WAIT_S)
    assert told == ["0", "1", "2", "3", "4"]


def test_what_telling_raises_ends_the_waiting_for_other_answers() -> None:
    client = Scripted()

    def items() -> Iterator[str]:
        yield from ("first", "second", "third")
        client.answer(1)

    def broken(*_: Any) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        tell_all(client, items(), 10, broken)
    assert [future.cancelled() for future in client.futures] == [True, False, True]


def test_no_room_for_requests_is_refused() -> None:
    with pytest.raises(ValueError, match="in_flight=0: allowed is 1 or more"):
        tell_all(Scripted(), ["first"], 0, lambda *_: None)


def test_what_telling_raises_ends_the_sending() -> None:
    client = Scripted(at_once=True)
    raised = Event()

    def items() -> Iterator[str]:
        yield "first"
        assert raised.wait(WAIT_S)
        yield from ("second", "third")

    def broken(*_: Any) -> None:
        raised.set()
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        tell_all(client, items(), 1, broken)
    assert len(client.futures) == 1
