from types import SimpleNamespace
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from forebay_consumer.existing import FOUND_FOR_S, MISSING_FOR_S, SILENT_FOR_S, Existing, Outlets
from support.consumer import ManualClock


class Broker:
    def __init__(self, *topics: str) -> None:
        self.topics = set(topics)
        self.asked = 0
        self.away = False

    def list_topics(self, topic: str, timeout: float) -> Any:
        self.asked += 1
        if self.away:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        error = None if topic in self.topics else KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
        return SimpleNamespace(topics={topic: SimpleNamespace(error=error)})


def test_it_tells_what_is_there_and_asks_once_in_a_while() -> None:
    broker, clock = Broker("mine"), ManualClock(100)
    existing = Existing(broker.list_topics, clock)
    assert [existing.has("mine"), existing.has("other"), existing.has("mine"), existing.has("other")] == [
        True,
        False,
        True,
        False,
    ]
    assert broker.asked == 2
    clock.advance(MISSING_FOR_S)
    broker.topics.add("other")
    assert existing.has("other")
    assert existing.has("mine")
    assert broker.asked == 3
    broker.topics.remove("mine")
    clock.advance(FOUND_FOR_S)
    assert not existing.has("mine")


def test_without_a_broker_nothing_is_called_missing_and_only_one_topic_is_asked_for() -> None:
    """Each asking takes 2 s, and a chunk of requests may name many topics."""
    broker, clock = Broker(), ManualClock(100)
    broker.away = True
    existing = Existing(broker.list_topics, clock)
    assert all(existing.has(f"client-{number}") for number in range(31))
    assert broker.asked == 1
    broker.away = False
    assert existing.has("client-0")
    clock.advance(SILENT_FOR_S)
    assert not existing.has("client-0"), "nothing was learnt meanwhile"


def test_the_topics_of_all_answers_are_missing_when_a_broker_says_so() -> None:
    broker = Broker("replies")
    outlets = Outlets({"topics.replies": "replies", "topics.dead_letters": "dead"}, broker.list_topics)
    assert outlets.missing() == {"topics.dead_letters": "dead"}
    broker.away = True
    assert outlets.missing() == {}
    assert Outlets({"topics.replies": "replies", "topics.dead_letters": None}, broker.list_topics).missing() == {}
