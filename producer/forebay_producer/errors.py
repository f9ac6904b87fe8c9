"""What can go wrong for a client, by what to do next.

ForebayError
  RequestFailed       the worker answered with an error; `code` says which
  ReplyTimeout        no answer in time; it may still come, and asking again is safe
  NotDelivered        the broker did not take or confirm the request; asking again is safe, if not too large
  BadRequest          the value or an option cannot be sent; nothing was
  ClientQueueFull     too many requests are unanswered; nothing was sent: send slower, or raise max_in_flight
  ClientClosed        the client was closed before the answer came, or is not open
  BrokerUnavailable   no broker answers, or a topic is missing; nothing was sent
  BadSettings         a setting is unknown or not allowed
"""

from forebay_schemas import Code, Failure


class ForebayError(Exception):
    """Base of all errors of the client.

    Attributes:
        request_id: of the request that failed; None where the error concerns no request that was sent.
    """

    request_id: str | None = None


class RequestFailed(ForebayError):
    """The worker answered with an error; `code` is one of a closed list and may be switched on."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure
        self.request_id = failure.id

    @property
    def code(self) -> Code:
        return self.failure.code

    @property
    def message(self) -> str:
        return self.failure.message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class ReplyTimeout(ForebayError, TimeoutError):
    """No answer in time; it may still come, and asking again with the same id is safe."""


class NotDelivered(ForebayError):
    """The broker did not confirm the request; whether a worker sees it is unknown."""


class BadRequest(ForebayError, ValueError):
    """The value or an option of the request cannot be sent; the message names it and what is allowed."""


class ClientQueueFull(ForebayError):
    """There was no room for the request for its whole timeout; nothing was sent."""


class ClientClosed(ForebayError):
    """The client is not open, or was closed before the answer came."""


class BrokerUnavailable(ForebayError):
    """No broker answers at the address, or a topic cannot be read there."""


class BadSettings(ForebayError):
    """A setting is unknown or not allowed; the message names key, value and what is allowed."""
