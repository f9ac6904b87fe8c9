"""Whether brokers answer, as one Kafka client sees it."""

from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

from forebay_consumer.clock import Clock, monotonic

ASK_EVERY_S: Final = 1.0
ASK_WITHIN_S: Final = 0.05


class Reachable:
    """The client says when all brokers are down, and never that one is up again: then somebody must ask.

    Lives on the thread of its client; any thread may read `up`.
    """

    def __init__(self, topic: str, clock: Clock = monotonic) -> None:
        self.up = True
        self._topic = topic
        self._clock = clock
        self._ask_at = 0.0

    def heard(self, error: Any) -> None:
        """What the client tells its `error_cb`."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.down()

    def down(self) -> None:
        """The client says that no broker answers."""
        self.up = False
        self._ask_at = 0.0  # the word may be old: it waits until the client is polled

    def ask(self, client: Any) -> None:
        """While none answers, ask once a second; blocks at most 50 ms, and not at all while one does.

        Must not be called from a callback of the client.
        """
        if self.up or self._clock() < self._ask_at:
            return
        self._ask_at = self._clock() + ASK_EVERY_S
        try:
            client.list_topics(self._topic, timeout=ASK_WITHIN_S)
        except KafkaException:
            return
        self.up = True
