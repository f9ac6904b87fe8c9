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

    Args:
        long_s: an outage of at least so many seconds is a long one. The client calls brokers down at a start, too, when
            it has tried the first of their addresses and not the next.
    """

    def __init__(self, topic: str, clock: Clock = monotonic, long_s: float = math.inf) -> None:
        self.up = True
        self._long_s = long_s
        self._since_s = math.inf  # while it is down
        self._long_end_s = -math.inf
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
            self._since_s = self._clock()
        self.up = False

    def was_long_down(self, within_s: float) -> bool:
        """Whether a long outage lasts, or ended at any moment of the last so many seconds."""
        now = self._clock()
        return now - self._since_s >= self._long_s or now - self._long_end_s <= within_s

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
            if self._clock() - self._since_s >= self._long_s:
                self._long_end_s = self._clock()
            self._since_s = math.inf
        self._ask_at = self._clock() + ASK_EVERY_S
