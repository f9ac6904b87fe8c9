"""Builders of records and items with every field defaulted, and a clock that the test turns."""

from collections.abc import Mapping, Sequence
from typing import Any

from forebay_consumer.record import Claim, Item, Record
from forebay_consumer.watchdog import Watchdog
from forebay_schemas import Envelope
from forebay_schemas.headers import RawHeaders


class ManualClock:
    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Watched(Watchdog):
    """Notes what is armed and disarmed."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def arm(self, thread: int) -> None:
        self.seen.append("armed")

    def disarm(self, thread: int) -> None:
        self.seen.append("off")


def make_record(
    offset: int = 0,
    *,
    topic: str = "requests",
    partition: int = 0,
    epoch: int = 1,
    key: bytes | None = None,
    value: bytes | None = b"text",
    headers: RawHeaders | None = None,
    timestamp_s: float | None = None,
    queue_s: float | None = None,
    since_s: float = 0.0,
    size: int = 4,
    fault: str | None = None,
    timestamp_type: str = "CreateTime",
) -> Record:
    claim = Claim(topic, partition, epoch)
    return Record(
        claim, offset, key, value, headers, timestamp_s, queue_s, since_s, size, fault, timestamp_type=timestamp_type
    )


def make_item(
    offset: int = 0,
    *,
    rows: int = 1,
    cost: int = 1,
    total_cost: int = 0,
    key: bytes = b"",
    parameters: Mapping[str, Any] | None = None,
    prepared: Sequence[Any] | None = None,
    **record: Any,
) -> Item:
    made = make_record(offset, **record)
    made.rows = rows
    values = prepared if prepared is not None else [f"{offset}.{row}" for row in range(rows)]
    return Item(made, Envelope(str(offset)), values, cost, total_cost or rows * cost, parameters or {}, key)
