from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from forebay_consumer.errors import FatalError
from forebay_consumer.intake.group import GroupIntake


class Client:
    """Refuses once to tell a partition's bounds."""

    def __init__(self, code: int) -> None:
        self._errors = [KafkaException(KafkaError(code))]

    def get_watermark_offsets(self, *_: Any, **__: Any) -> tuple[int, int]:
        if self._errors:
            raise self._errors.pop()
        return 3, 7


def bounds(code: int) -> tuple[int, int]:
    listener: Any = None
    intake = GroupIntake({"group.id": "group"}, ["requests"], "earliest", listener, 2**20)
    return intake._bounds(Client(code), TopicPartition("requests", 6))


@pytest.mark.parametrize("code", [KafkaError._UNKNOWN_PARTITION, KafkaError._TRANSPORT], ids=["added now", "away"])
def test_what_passes_is_asked_again(code: int) -> None:
    assert bounds(code) == (3, 7)


def test_what_does_not_pass_ends_the_worker() -> None:
    with pytest.raises(FatalError, match="requests-6 cannot be read"):
        bounds(KafkaError.TOPIC_AUTHORIZATION_FAILED)
