"""Many requests through a bounded window."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

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


def submit_all(
    client: Client, requests: Iterable[Request], in_flight: int = 1000
) -> Iterator[tuple[Request, Result | ForebayError]]:
    """Send all, never more than `in_flight` unanswered; yields each with its outcome, in the order of the answers.

    `requests` is read as fast as answers come, so it may be endless. One request's error never ends the others.
    """
    answered: SimpleQueue[tuple[Request, Future[Result]]] = SimpleQueue()
    waiting = 0
    for request in requests:
        while waiting >= in_flight:
            yield _outcome(*answered.get())
            waiting -= 1
        future = _submitted(client, request)
        future.add_done_callback(lambda done, request=request: answered.put((request, done)))  # type: ignore[misc]
        waiting += 1
        while not answered.empty():
            yield _outcome(*answered.get())
            waiting -= 1
    for _ in range(waiting):
        yield _outcome(*answered.get())


def _submitted(client: Client, request: Request) -> "Future[Result]":
    try:
        return client.submit(request.value, **request.options)
    except ForebayError as error:
        failed: Future[Result] = Future()
        failed.set_exception(error)
        return failed


def _outcome(request: Request, future: "Future[Result]") -> tuple[Request, Result | ForebayError]:
    error = future.exception()
    if error is None:
        return request, future.result()
    if isinstance(error, ForebayError):
        return request, error
    raise error
