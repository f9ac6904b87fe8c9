"""Many requests through a bounded window."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import Any, TypeVar

from forebay_producer.client import Client
from forebay_producer.encode import Value
from forebay_producer.errors import ForebayError
from forebay_schemas import Result


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a bulk: its value, where it came from (yours to use), and the options of `Client.submit`."""

    value: Value
    source: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


Item = TypeVar("Item", bound=Request | Value)


def submit_all(
    client: Client, items: Iterable[Item], in_flight: int = 1000
) -> Iterator[tuple[Item, Result | ForebayError]]:
    """Send all, never more than `in_flight` unanswered; yields each item with its outcome, in the order of the answers.

    An item is a value as for `Client.submit`, or a `Request`. `items` is read as fast as answers come, so it may be
    endless; while it waits for its next item, answers wait too. One request's error never ends the others. Ending the
    iteration early cancels what is unanswered.

    Raises:
        ValueError: `in_flight` is below 1.
    """
    _check(in_flight)
    return _stream(client, items, in_flight)


def _check(in_flight: int) -> None:
    if in_flight < 1:
        raise ValueError(f"in_flight={in_flight}: allowed is 1 or more")


def _stream(client: Client, items: Iterable[Item], in_flight: int) -> Iterator[tuple[Item, Result | ForebayError]]:
    unanswered: dict[Future[Result], Item] = {}
    answered: SimpleQueue[Future[Result]] = SimpleQueue()

    def next_outcome() -> tuple[Item, Result | ForebayError]:
        future = answered.get()
        return unanswered.pop(future), outcome(future)

    try:
        for item in items:
            while len(unanswered) >= in_flight or not answered.empty():
                yield next_outcome()
            future = submitted(client, item)
            unanswered[future] = item
            future.add_done_callback(answered.put)
        while unanswered:
            yield next_outcome()
    finally:
        for future in list(unanswered):
            future.cancel()


def tell_all(
    client: Client, items: Iterable[Item], in_flight: int, tell: Callable[[Item, Result | ForebayError], None]
) -> None:
    """As `submit_all`, but `tell` gets each outcome as it comes, on a thread of its own: no answer waits for an item.

    Blocks until all is told. Ended early, it has told what was answered, and cancels what is unanswered.

    Raises:
        ValueError: `in_flight` is below 1.
        BaseException: what `tell` or `items` raised; nothing more is sent then, or waited for.
    """
    _check(in_flight)
    unanswered: set[Future[Result]] = set()
    room = Semaphore(in_flight)
    answered: SimpleQueue[tuple[Item, Future[Result]] | None] = SimpleQueue()
    failed: list[BaseException] = []

    def tell_on() -> None:
        while (entry := answered.get()) is not None:
            item, future = entry
            unanswered.discard(future)
            try:
                if not failed:
                    tell(item, outcome(future))
            except BaseException as error:
                failed.append(error)
                room.release(in_flight)  # no further answer is waited for
            room.release()

    teller = Thread(target=tell_on, name="forebay-answers", daemon=True)
    teller.start()
    try:
        for item in items:
            room.acquire()
            if failed:
                break
            future = submitted(client, item)
            unanswered.add(future)
            future.add_done_callback(partial(_put, answered, item))
        for _ in range(in_flight if not failed else 0):
            room.acquire()
    finally:
        answered.put(None)
        teller.join()
        for future in unanswered:
            future.cancel()
    if failed:
        raise failed[0]


def _put(answered: "SimpleQueue[Any]", item: Any, future: "Future[Result]") -> None:
    answered.put((item, future))


def submitted(client: Client, item: Request | Value) -> "Future[Result]":
    """`Client.submit`, with what it raises in the future too."""
    ask = (
        partial(client.submit, item.value, **item.options)
        if isinstance(item, Request)
        else partial(client.submit, item)
    )
    try:
        return ask()
    except ForebayError as error:
        failed: Future[Result] = Future()
        failed.set_exception(error)
        return failed


def outcome(future: "Future[Result]") -> Result | ForebayError:
    """Wait for a future's result or error.

    Raises:
        BaseException: what is no error of the client, as it is.
    """
    try:
        return future.result()
    except ForebayError as error:
        return error
