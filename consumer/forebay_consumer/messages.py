"""What is owed for an outcome: the reply, and the dead letter where one is kept. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import structlog

import forebay_schemas as schemas
from forebay_consumer import dead_letters
from forebay_consumer.clock import Clock, monotonic
from forebay_consumer.errors import KafkaFailure
from forebay_consumer.record import Claim, Fault, Outcome, Success
from forebay_consumer.routes import Routes
from forebay_schemas import Code
from forebay_schemas.headers import CORRELATION_ID, SPRING_CORRELATION_ID, TRACEPARENT, TRACESTATE
from forebay_schemas.reply import Headers, ResultWriter, own_headers, shared_headers

_MOST_CUTS: Final = 2
LOST_AFTER_S: Final = 10.0  # more than it takes a new topic to be known everywhere
_ECHOED: Final = frozenset([CORRELATION_ID, SPRING_CORRELATION_ID, TRACEPARENT, TRACESTATE])


class Owed:
    """An outcome and how many of its messages the broker has not confirmed yet."""

    __slots__ = ("code", "given_up", "missing", "outcome", "record", "since_s")

    def __init__(self, outcome: Outcome, code: Code | None, missing: int, since_s: float) -> None:
        self.outcome = outcome
        self.record = outcome.record
        self.since_s = since_s
        self.code = code
        self.missing = missing
        self.given_up = False


class Message:
    """One message that is owed for an outcome."""

    __slots__ = ("alone", "cuts", "headers", "key", "letter", "lost_since_s", "owed", "partition", "topic", "value")

    def __init__(self, owed: Owed, topic: str, key: bytes | None, value: bytes | None, headers: Any) -> None:
        self.owed = owed
        self.topic = topic
        self.key = key
        self.value = value
        self.headers = headers
        self.partition = -1
        self.letter = False
        self.cuts = 0  # how often a letter was made smaller
        self.alone = False  # it was refused for its size once already, perhaps for a neighbour's
        self.lost_since_s: float | None = None  # when its topic was first said not to be there


class Writer:
    """Writes the messages of outcomes.

    Args:
        dead_letter_topic: where the requests that failed are kept; nowhere when None.
        origin: who writes a letter: `group`, `worker`, `model`, `model-version`.
    """

    def __init__(
        self,
        routes: Routes,
        dead_letter_topic: str | None,
        served: schemas.Model,
        origin: Mapping[str, str],
        clock: Clock = monotonic,
    ) -> None:
        self._routes = routes
        self._dead_letter_topic = dead_letter_topic
        self._served = served
        self._origin = origin
        self._clock = clock
        # Of the last result; the next one mostly shares them.
        self._claim: Claim | None = None
        self._shared: Headers = []
        self._timing: Mapping[str, float] = {}
        self._dtype = served.dtype
        self._results = ResultWriter(served, self._timing)
        self._log = structlog.get_logger()

    @property
    def reply_topic(self) -> str:
        """The one of who asks for none."""
        return self._routes.resolve_or_default(None)

    def messages(self, outcome: Outcome) -> list[Message]:
        """All of one outcome, which is done when the broker has them all."""
        if isinstance(outcome, Success):
            try:
                return [self._result(outcome)]
            except TypeError as error:
                self._log.warning("result not encodable", action="encode_failed", request=outcome.envelope.id)
                message = f"the model's output cannot be written as JSON: {error}"
                outcome = Fault(outcome.record, outcome.envelope, Code.MODEL_ERROR, message, "publish")
        return self._error(outcome)

    def keeps(self, code: Code | None) -> bool:
        """Whether a letter is written beside the reply."""
        return self._dead_letter_topic is not None and code in dead_letters.KEPT

    def instead(self, message: Message) -> list[Message]:
        """What is sent for a message that is too large even alone.

        Raises:
            KafkaFailure: it is a letter or an error of next to nothing, and its topic does not take it.
        """
        if message.letter:
            self._cut(message)
            return [message]
        outcome = message.owed.outcome
        if isinstance(outcome, Fault):  # its letter, if there is one, stays as it is
            if message.cuts and (instead := self.astray(message, "takes not even a small error")):
                return instead
            self._strip(message)
            if outcome.code is not Code.TOO_LARGE:
                text = "what there is to say is more than the reply topic takes"
                message.value = schemas.error_body(outcome.envelope, outcome.code, text)
            return [message]
        text = f"the reply has {len(message.value or b'')} bytes, more than the reply topic {message.topic!r} takes"
        return self._error(Fault(outcome.record, outcome.envelope, Code.TOO_LARGE, text, "publish"))

    def lost(self, message: Message) -> bool:
        """Whether its topic, of which it was told again that it is missing, has been so for too long to come yet."""
        now = self._clock()
        if message.lost_since_s is None:
            message.lost_since_s = now
        return now - message.lost_since_s >= LOST_AFTER_S

    def astray(self, message: Message, why: str) -> list[Message] | None:
        """What is sent for a reply that the topic of its client's choice cannot get: an error, to the default one.

        Returns:
            None where there is no other topic for it.
        """
        if message.letter or message.topic == self.reply_topic:
            return None
        self._log.warning("reply sent to the default topic", action="astray", topic=message.topic, reason=why)
        outcome = message.owed.outcome
        if isinstance(outcome, Fault):  # its letter, if there is one, stays as it is
            message.topic, message.partition, message.cuts = self.reply_topic, -1, 0
            return [message]
        envelope = outcome.envelope._replace(reply_topic=None, reply_partition=None)
        text = f"header reply-topic: {message.topic!r} {why}; leave it out for {self.reply_topic!r}"
        return self._error(Fault(outcome.record, envelope, Code.INVALID_REQUEST, text, "publish"))

    def _result(self, outcome: Success) -> Message:
        record, envelope = outcome.record, outcome.envelope
        if outcome.timing is not self._timing or outcome.dtype != self._dtype:
            # Of the copy that ran it: copies on unlike devices may compute in unlike precisions.
            self._results = ResultWriter(replace(self._served, dtype=outcome.dtype), outcome.timing)
            self._timing, self._dtype = outcome.timing, outcome.dtype
        if record.claim is not self._claim:
            self._claim, self._shared = record.claim, shared_headers(record, self._served, None)
        value = self._results.body(envelope, outcome.outputs)
        headers = own_headers(envelope, record.offset, self._shared)
        return self._reply(Owed(outcome, None, 1, self._clock()), value, headers)

    def _error(self, fault: Fault) -> list[Message]:
        kept = self.keeps(fault.code)
        owed = Owed(fault, fault.code, 2 if kept else 1, self._clock())
        value = schemas.error_body(fault.envelope, fault.code, fault.message)
        headers = schemas.reply_headers(fault.envelope, fault.record, self._served, fault.code)
        messages = [self._reply(owed, value, headers)]
        if kept:
            assert self._dead_letter_topic is not None
            of_letter = dead_letters.headers(fault, self._origin)
            letter = Message(owed, self._dead_letter_topic, fault.record.key, fault.record.value, of_letter)
            letter.letter = True
            messages.append(letter)
        return messages

    def _reply(self, owed: Owed, value: bytes, headers: Headers) -> Message:
        envelope = owed.outcome.envelope
        topic = self._routes.resolve_or_default(envelope.reply_topic)
        message = Message(owed, topic, envelope.id.encode(), value, headers)
        if envelope.reply_partition is not None and envelope.reply_topic in (None, topic):
            message.partition = envelope.reply_partition
        return message

    def _strip(self, reply: Message) -> None:
        """Leave out what is the client's own: of a small error only the headers that it asked for can be large."""
        if reply.cuts:
            raise KafkaFailure(f"Kafka: {reply.topic} takes not even a small error; raise its max.message.bytes")
        reply.cuts += 1
        request = reply.owed.outcome.envelope.id
        self._log.warning("headers not echoed", action="reply_cut", topic=reply.topic, request=request)
        reply.headers = [(name, value) for name, value in reply.headers if name not in _ECHOED]

    def _cut(self, letter: Message) -> None:
        """Leave out the value, then key and headers too: a letter that says only where its record is still fits."""
        fault = letter.owed.outcome
        assert isinstance(fault, Fault)
        letter.cuts += 1
        self._log.warning("dead letter cut", action="dead_letter_cut", size=fault.record.size, cuts=letter.cuts)
        if letter.cuts > _MOST_CUTS:
            raise KafkaFailure(
                f"Kafka: {letter.topic} takes no dead letter, not even one without value, key and headers; raise its "
                "max.message.bytes"
            )
        if letter.cuts == _MOST_CUTS:
            letter.key = None
            bare = replace(fault.record, headers=None, fault="the record is too large for the dead-letter topic")
            fault = replace(fault, record=bare)
        omitted = (dead_letters.PREFIX + dead_letters.VALUE_OMITTED, str(len(fault.record.value or b"")))
        letter.value = None
        letter.headers = [*dead_letters.headers(fault, self._origin), omitted]
