"""Which reply topics the broker has, asked before a request reaches a batch."""

from collections.abc import Callable
from threading import Lock
from typing import Any, Final

from confluent_kafka import KafkaException

from forebay_consumer.clock import Clock, monotonic

FOUND_FOR_S: Final = 60.0
MISSING_FOR_S: Final = 2.0
ASK_WITHIN_S: Final = 2.0
MOST: Final = 10_000  # names remembered; clients choose them


class Existing:
    """Thread-safe; remembers what it was told for a while.

    A reply to a topic that is not there would wait in the client, and hold up the commits of its partition.

    Args:
        ask: metadata of one topic, as `Producer.list_topics(name, timeout=…)`; raises KafkaException.
    """

    def __init__(self, ask: Callable[..., Any], clock: Clock = monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._lock = Lock()
        self._until: dict[str, tuple[bool, float]] = {}

    def has(self, topic: str) -> bool:
        """Whether the topic is there, or no broker can be asked. Asks once in a while, for 2 s at most."""
        with self._lock:
            known, until = self._until.get(topic, (False, 0.0))
            if self._clock() < until:
                return known
            found = self._look(topic)
            if len(self._until) >= MOST:
                self._until.clear()
            self._until[topic] = (found, self._clock() + (FOUND_FOR_S if found else MISSING_FOR_S))
            return found

    def _look(self, topic: str) -> bool:
        try:
            return self._ask(topic, timeout=ASK_WITHIN_S).topics[topic].error is None
        except KafkaException:
            return True  # it is for the replies to wait for the broker
