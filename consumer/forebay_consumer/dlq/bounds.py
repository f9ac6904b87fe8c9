"""Which letters are asked for. Pure."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from forebay_consumer.dlq.letters import Entry, Letter

_AGO: Final = re.compile(r"(\d{1,9})([smhd])")
_UNIT_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True, slots=True)
class At:
    """A place in the dead-letter topic: an offset, the same in every partition, or a time."""

    offset: int | None = None
    timestamp_ms: int | None = None

    def is_after(self, entry: Entry) -> bool:
        """Whether the entry lies before this place. An entry without a time lies before every time."""
        if self.offset is not None:
            return entry.offset < self.offset
        assert self.timestamp_ms is not None
        return entry.timestamp_ms is None or entry.timestamp_ms < self.timestamp_ms


def parse_at(text: str, now_ms: int) -> At:
    """`17` is an offset, `2h` (s, m, h, d) a time ago, `2026-11-21T08:00` a time in UTC unless it says otherwise.

    Raises:
        ValueError: it is none of these.
    """
    if text.isascii() and text.isdigit() and len(text) <= 18:
        return At(offset=int(text))
    if ago := _AGO.fullmatch(text):
        return At(timestamp_ms=now_ms - int(ago[1]) * _UNIT_MS[ago[2]])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no offset (17), no time ago (30s, 15m, 2h, 3d), no time (2026-11-21T08:00)"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return At(timestamp_ms=round(moment.timestamp() * 1000))


@dataclass(frozen=True, slots=True)
class Wanted:
    """The letters that a command is about.

    Attributes:
        codes: none of them means all.
        partition: of the dead-letter topic; None means all.
        since, until: from the one on, up to but without the other.
        limit: at most so many; None is no bound.
    """

    codes: Collection[str] = ()
    partition: int | None = None
    since: At | None = None
    until: At | None = None
    limit: int | None = None

    def stop(self, end: int) -> int:
        """The offset before which reading a partition may stop."""
        return end if self.until is None or self.until.offset is None else min(end, self.until.offset)

    def spans(self, entry: Entry) -> bool:
        if self.since is not None and self.since.is_after(entry):
            return False
        return self.until is None or self.until.is_after(entry)

    def takes(self, letter: Letter) -> bool:
        return (not self.codes or letter.code in self.codes) and self.spans(letter.entry)
