"""Whether brokers answer, as one Kafka client sees it."""

import math
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

from forebay_consumer.clock import Clock, monotonic

ASK_EVERY_S: Final = 1.0
ASK_WITHIN_S: Final = 0.05  # at first; twice as long after each that got no answer
ASK_WITHIN_AT_MOST_S: Final = 1.0


class Reachable:
    """The client says when all brokers are down, and never that one is up again: then somebody must ask.

    Lives on the thread of its client; any thread may read `up`.
    """

    def __init__(self, topic: str, clock: Clock = monotonic) -> None:
        self.up = True
        self._down_s = -math.inf  # when it was known to be down last
        self._topic = topic
        self._clock = clock
        self._ask_at = 0.0
        self._within_s = ASK_WITHIN_S

    def heard(self, error: Any) -> None:
        """What the client tells its `error_cb`."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.down()

    def down(self) -> None:
        """The client says that no broker answers."""
        if self.up:  # the word may be old, since it waits until the client is polled: ask at once
            self._ask_at = 0.0
        self.up = False
        self._down_s = self._clock()

    def was_down(self, within_s: float) -> bool:
        """Whether brokers were away at any moment of the last so many seconds."""
        return not self.up or self._clock() - self._down_s <= within_s

    def ask(self, client: Any) -> None:
        """While none answers, ask, with a second in between; blocks 50 ms at first, 1 s at most: brokers may be far.

        Does not block while one answers.

        Must not be called from a callback of the client.
        """
        if self.up or self._clock() < self._ask_at:
            return
        try:
            client.list_topics(self._topic, timeout=self._within_s)
        except KafkaException:
            self._within_s = min(2 * self._within_s, ASK_WITHIN_AT_MOST_S)
        else:
            self.up, self._within_s = True, ASK_WITHIN_S
            self._down_s = self._clock()
        self._ask_at = self._clock() + ASK_EVERY_S
