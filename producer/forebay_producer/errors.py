"""What can go wrong for a client, by what to do next.

ForebayError
  RequestFailed       the worker answered with an error; `code` says which
  ReplyTimeout        no answer in time; it may still come, and asking again is safe
  NotDelivered        the broker did not confirm the request
  QueueFull           the client's own queue stayed full: send slower, or raise queue.buffering.max.messages
  BrokerUnavailable   no broker answers, or a topic is missing; nothing was sent
  ClientClosed        the client was closed before the answer came
  BadSettings         a setting is unknown or not allowed
"""

from forebay_schemas import Code, Failure


class ForebayError(Exception):
    """Base of all errors of the client."""


class RequestFailed(ForebayError):
    """The worker answered with an error."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.code}: {failure.message}")
        self.failure = failure

    @property
    def code(self) -> Code:
        return self.failure.code

    @property
    def message(self) -> str:
        return self.failure.message


class ReplyTimeout(ForebayError, TimeoutError):
    """No answer in time; it may still come, and asking again with the same id is safe."""


class NotDelivered(ForebayError):
    """The broker did not confirm the request; whether a worker sees it is unknown."""


class QueueFull(ForebayError):
    """The client's own queue stayed full for the whole timeout; nothing was sent."""


class BrokerUnavailable(ForebayError):
    """No broker answers at the address, or a topic does not exist there."""


class ClientClosed(ForebayError):
    """The client is closed, or was closed before the answer came."""


class BadSettings(ForebayError):
    """A setting is unknown or not allowed; the message names key, value and what is allowed."""
