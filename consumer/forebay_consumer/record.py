"""The life of a record inside the worker: bytes, decoded item, outcome. Data only; imports no stage."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from forebay_schemas import Code, Envelope
from forebay_schemas.headers import RawHeaders


class Claim(NamedTuple):
    """One assignment of one partition. `epoch` grows with every assignment, also when the same partition returns."""

    topic: str
    partition: int
    epoch: int


@dataclass(slots=True, eq=False)
class Record:
    """Bytes from Kafka, as polled.

    Attributes:
        timestamp_s: Unix time of the record, or None where the broker keeps none.
        timestamp_type: whose time that is, in Kafka's words: CreateTime is the client's, LogAppendTime the broker's.
        queue_s: seconds from that time to its poll, or None.
        since_s: monotonic time from which linger counts: its poll, or earlier when it waited in the topic.
        fault: why the record's headers could not even be read, or None.
        rows: rows counted against the flow; 1 until the record is decoded.
        size: bytes of key, value and headers.
        delivery: how often a share group has handed it out, this time included.
        last: it is on one of the last deliveries that the group allows: to be answered, not run.
        alone: it was handed out so often that it shares no pass.
    """

    claim: Claim
    offset: int
    key: bytes | None
    value: bytes | None
    headers: RawHeaders | None
    timestamp_s: float | None
    queue_s: float | None
    since_s: float
    size: int
    fault: str | None = None
    rows: int = 1
    timestamp_type: str = "CreateTime"
    delivery: int = 1
    last: bool = False
    alone: bool = False

    @property
    def topic(self) -> str:
        return self.claim.topic

    @property
    def partition(self) -> int:
        return self.claim.partition

    @property
    def next_offset(self) -> int:
        return self.offset + 1


@dataclass(slots=True, eq=False)
class Item:
    """A decoded request, ready to join a batch.

    Attributes:
        rows: prepared rows, as the model's `preprocess` gave them; at least one.
        cost: the largest cost among the rows.
        total_cost: the cost of all rows together.
        key: only items with an equal key may share a batch.
        ready_s: monotonic time at which it entered the window.
        latest_s: monotonic time from which it waits for no company, since it expires.
        preprocess_s: seconds from its chunk's pick-up until the whole chunk was prepared: what the request waited.
    """

    record: Record
    envelope: Envelope
    rows: Sequence[Any]
    cost: int
    total_cost: int
    parameters: Mapping[str, Any] = field(default_factory=dict)
    key: Hashable = None
    ready_s: float = 0.0
    latest_s: float = math.inf
    preprocess_s: float = 0.0


@dataclass(slots=True, eq=False)
class Success:
    """One output per row of the request, and its times in milliseconds by phase.

    Attributes:
        dtype: the precision that its copy of the model computed in, where that says so.
    """

    record: Record
    envelope: Envelope
    outputs: Sequence[Any]
    timing: Mapping[str, float]
    dtype: str | None = None


Stage = Literal["decode", "preprocess", "window", "forward", "publish", "trial", "delivery"]
"""Where a request failed; the last two are where a poison is found, by commits or by deliveries."""


@dataclass(slots=True, eq=False)
class Fault:
    """The request's own error: it is answered with `code`, and its offset is done.

    Attributes:
        stage: where it failed.
        attempts: how often its pass was run, or, of a poison, begun; 0 where it came to none.
    """

    record: Record
    envelope: Envelope
    code: Code
    message: str
    stage: Stage
    attempts: int = 1


Outcome = Success | Fault
