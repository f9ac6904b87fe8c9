"""What a worker believes of its brokers: down when the client says so, up again only when one answers."""

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from forebay_consumer.reachable import ASK_EVERY_S, Reachable
from support.consumer import ManualClock


class Client:
    """Answers when the broker is there and near enough, and counts how often it was asked."""

    def __init__(self) -> None:
        self.there = False
        self.answers_after_s = 0.01
        self.asked = 0

    def list_topics(self, topic: str, timeout: float) -> Any:
        self.asked += 1
        if not self.there or timeout < self.answers_after_s:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(100.0)


def test_nobody_is_asked_while_brokers_answer(clock: ManualClock) -> None:
    client, reachable = Client(), Reachable("replies", clock)
    reachable.ask(client)
    assert reachable.up
    assert client.asked == 0


def test_it_stays_down_until_a_broker_answers(clock: ManualClock) -> None:
    client, reachable = Client(), Reachable("replies", clock)
    reachable.down()
    reachable.ask(client)
    assert not reachable.up
    client.there = True
    clock.advance(ASK_EVERY_S)
    reachable.ask(client)
    assert reachable.up


def test_a_long_outage_is_known_for_a_while(clock: ManualClock) -> None:
    client, reachable = Client(), Reachable("replies", clock, long_s=5)
    assert not reachable.was_long_down(10)
    reachable.down()
    clock.advance(4)
    reachable.down()  # the client says it again and again
    assert not reachable.was_long_down(10)
    clock.advance(1)
    assert reachable.was_long_down(10), "it still is"
    client.there = True
    reachable.ask(client)
    clock.advance(10)
    assert reachable.was_long_down(10)
    clock.advance(1)
    assert not reachable.was_long_down(10)


def test_a_blip_is_no_long_outage_and_hides_none(clock: ManualClock) -> None:
    """At its start the client calls brokers down while the first of their addresses refuses, and then gets in."""
    client, reachable = Client(), Reachable("replies", clock, long_s=5)
    client.there = True
    for outage_s, long in ((1, False), (5, True), (1, True)):
        reachable.down()
        clock.advance(outage_s)
        reachable.ask(client)
        assert reachable.up
        assert reachable.was_long_down(10) is long


def test_it_asks_once_a_second_only(clock: ManualClock) -> None:
    client, reachable = Client(), Reachable("replies", clock)
    reachable.down()
    for _ in range(10):
        reachable.ask(client)
        clock.advance(ASK_EVERY_S / 4)
    assert client.asked == 3


def test_a_word_that_is_old_is_corrected_at_once(clock: ManualClock) -> None:
    client, reachable = Client(), Reachable("replies", clock)
    client.there = True
    reachable.down()
    reachable.ask(client)
    assert reachable.up
    reachable.down()
    reachable.ask(client)
    assert reachable.up


def test_brokers_that_are_far_away_are_given_the_time_to_answer(clock: ManualClock) -> None:
    client, reachable = Client(), Reachable("replies", clock)
    client.there, client.answers_after_s = True, 0.6
    reachable.down()
    for _ in range(10):
        reachable.ask(client)
        clock.advance(ASK_EVERY_S)
    assert reachable.up
    assert client.asked == 5  # after 50, 100, 200, 400 ms


def test_a_client_that_repeats_it_is_not_asked_the_more_often(clock: ManualClock) -> None:
    client, reachable = Client(), Reachable("replies", clock)
    for _ in range(10):
        reachable.down()
        reachable.ask(client)
        clock.advance(ASK_EVERY_S / 4)
    assert client.asked == 3
