"""A dead letter read back, and the request it was, made ready to be sent again. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from forebay_consumer.dead_letters import FIRST, HEADERS_OMITTED, PREFIX, VALUE_OMITTED
from forebay_schemas import read_request
from forebay_schemas.headers import DEADLINE_MS, REQUEST_ID, last_values

REDRIVEN: Final = PREFIX + "redriven"
"""Header of a request that was put back: how often. It stands last, and goes when the request is put back again."""

Headers = Sequence[tuple[str, bytes | None]]


class Kind(NamedTuple):
    """What letters are put back by: which topic they came from, and why they are here."""

    topic: str
    code: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A record of the dead-letter topic, as it lies there.

    Attributes:
        timestamp_ms: Unix time at which it came here, or None where the broker keeps none.
    """

    partition: int
    offset: int
    timestamp_ms: int | None
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter. Satisfies `forebay_schemas.Source`: it is the request as it lay in its topic.

    Attributes:
        entry: where the letter lies.
        topic, partition, offset: where the request was.
        headers: the request's own.
        request_id: the id under which its error was answered.
        redrives: how often the request had been put back before it came here.
        omitted: what of the request is lost, in words, or None when all of it is here.
    """

    entry: Entry
    topic: str
    partition: int
    offset: int
    headers: Headers
    code: str
    stage: str
    message: str
    attempts: str
    request_id: str
    redrives: int
    omitted: str | None

    @property
    def key(self) -> bytes | None:
        return self.entry.key

    @property
    def value(self) -> bytes | None:
        return self.entry.value

    @property
    def kind(self) -> Kind:
        return Kind(self.topic, self.code)


class Parcel(NamedTuple):
    """A request to be sent."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class _Unplaced:
    """A request of which nobody knows yet where it will be: reading it tells the id that it brings along."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    topic: str = ""
    partition: int = -1
    offset: int = -1


def read_letter(entry: Entry) -> Letter | None:
    """The letter, or None for a record that no worker wrote."""
    starts = [place for place, (name, _) in enumerate(entry.headers) if name == PREFIX + FIRST]
    if not starts:
        return None
    cut = starts[-1]
    original = entry.headers[:cut]
    ours = {name: value.decode(errors="replace") for name, value in last_values(entry.headers[cut:]).items()}
    topic, partition, offset, code = (ours.get(PREFIX + name, "") for name in (FIRST, "partition", "offset", "code"))
    if not (topic and code and _is_number(partition) and _is_number(offset)):
        return None
    placed = _Unplaced(entry.key, entry.value, original, topic, int(partition), int(offset))
    return Letter(
        entry,
        topic,
        int(partition),
        int(offset),
        original,
        code,
        stage=ours.get(PREFIX + "stage", ""),
        message=ours.get(PREFIX + "message", ""),
        attempts=ours.get(PREFIX + "attempts", ""),
        request_id=ours.get(PREFIX + "request-id") or read_request(placed)[0].id,
        redrives=_redrives(original),
        omitted=_omitted(ours.get(PREFIX + VALUE_OMITTED), ours.get(PREFIX + HEADERS_OMITTED)),
    )


def put_back(letter: Letter, without: Collection[str] = ()) -> Parcel:
    """The request as it was: its key, its value, its headers.

    Two headers may stand behind its own. `request-id`, where the request would be known by another id than before:
    one named after its offset has a new offset now. And `forebay-redriven`.

    Args:
        without: names of headers to leave out.
    """
    headers = [(name, value) for name, value in letter.headers if name not in without]
    if letter.redrives:
        headers.pop()
    if read_request(_Unplaced(letter.key, letter.value, headers))[0].id != letter.request_id:
        headers.append((REQUEST_ID, letter.request_id.encode()))
    headers.append((REDRIVEN, str(letter.redrives + 1).encode()))
    return Parcel(letter.key, letter.value, headers)


def deadline(letter: Letter) -> int | None:
    """Unix time in milliseconds after which the answer is not wanted, where the request says so."""
    text = last_values(letter.headers).get(DEADLINE_MS, b"").decode(errors="replace")
    return int(text) if _is_number(text) else None


def _redrives(original: Headers) -> int:
    name, value = original[-1] if original else ("", None)
    text = (value or b"").decode(errors="replace")
    return int(text) if name == REDRIVEN and _is_number(text) else 0


def _omitted(value: str | None, headers: str | None) -> str | None:
    if value is not None:
        return f"its value of {value} bytes, which the dead-letter topic did not take"
    if headers is not None:
        return f"its headers, which could not be read ({headers})"
    return None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18
