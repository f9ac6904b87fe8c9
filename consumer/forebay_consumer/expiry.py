"""When a request is no longer worth running. Pure, told the time of day."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from forebay_consumer.clock import Clock, wall
from forebay_consumer.record import Item, Record
from forebay_schemas import Envelope


@dataclass(frozen=True)
class Expiry:
    """A request expires at its own deadline, or `ttl_s` after its record's timestamp, whichever comes first.

    A record without a timestamp (the topic keeps none) has only its own deadline.
    """

    ttl_s: float | None = None
    clock: Clock = wall

    def among(self, items: Sequence[Item]) -> Mapping[int, str]:
        """Which of these lapsed: why, by place. Mostly none can, which is seen without looking at each."""
        if self.ttl_s is None and {item.envelope.deadline_s for item in items} <= {None}:
            return {}
        found = [(place, self.lapsed(item.record, item.envelope)) for place, item in enumerate(items)]
        return {place: why for place, why in found if why is not None}

    def lapsed(self, record: Record, envelope: Envelope) -> str | None:
        """Which limit has passed, in words for the client, or None."""
        own, ttl = envelope.deadline_s, self._lived_s(record)
        if own is None and ttl is None:
            return None
        now = self.clock()
        if own is not None and own <= now:
            return f"deadline-ms {own * 1000:.0f} had passed"
        if ttl is not None and ttl <= now:
            assert self.ttl_s is not None
            return f"limits.request_ttl_ms {self.ttl_s * 1000:.0f} had passed since the record's timestamp"
        return None

    def left_s(self, record: Record, envelope: Envelope) -> float:
        """Seconds until it expires; infinite where it does not."""
        ends = [end for end in (envelope.deadline_s, self._lived_s(record)) if end is not None]
        return min(ends) - self.clock() if ends else math.inf

    def _lived_s(self, record: Record) -> float | None:
        return None if self.ttl_s is None or record.timestamp_s is None else record.timestamp_s + self.ttl_s


NO_EXPIRY: Final = Expiry()
"""No time to live; a request's own deadline holds all the same."""
