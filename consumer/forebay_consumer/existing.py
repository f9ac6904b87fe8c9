"""Which topics the broker has: those of the settings before the first request, a client's before each batch."""

from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

from forebay_consumer.clock import Clock, monotonic

FOUND_FOR_S: Final = 60.0
MISSING_FOR_S: Final = 2.0
SILENT_FOR_S: Final = 2.0  # after no broker answered
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
        self._silent_until = 0.0

    def has(self, topic: str) -> bool:
        """Whether the topic is there, or no broker can be asked. Asks once in a while, for 2 s at most."""
        with self._lock:
            known, until = self._until.get(topic, (False, 0.0))
            if self._clock() < until:
                return known
            if self._clock() < self._silent_until:
                return True
            try:
                found = self._ask(topic, timeout=ASK_WITHIN_S).topics[topic].error is None
            except KafkaException:
                # It is for the replies to wait for the broker. Nothing was learnt, and asking for each of many topics
                # would take longer than a chunk of requests may.
                self._silent_until = self._clock() + SILENT_FOR_S
                return True
            if len(self._until) >= MOST:
                self._until.clear()
            self._until[topic] = (found, self._clock() + (FOUND_FOR_S if found else MISSING_FOR_S))
            return found


class Outlets:
    """The topics that any answer may need: with one of them missing, what is taken in would never be done.

    Args:
        topics: each by the setting that names it.
        ask: as for `Existing`.
    """

    def __init__(self, topics: Mapping[str, str | None], ask: Callable[..., Any]) -> None:
        self._topics = {setting: topic for setting, topic in topics.items() if topic is not None}
        self._ask = ask

    def missing(self) -> dict[str, str]:
        """Those that no broker has, by setting; none where no broker can be asked."""
        return {setting: topic for setting, topic in self._topics.items() if self._is_missing(topic)}

    def _is_missing(self, topic: str) -> bool:
        try:
            error = self._ask(topic, timeout=ASK_WITHIN_S).topics[topic].error
        except KafkaException:
            return False
        return error is not None and error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
