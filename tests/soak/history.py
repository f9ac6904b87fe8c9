"""What was sent, answered and committed, event by event, and a checker that holds it against the promise. Pure.

The checker takes events in the order in which they became known and keeps what it needs of them, so a run of hours
is checked while it happens, and again later from its file. It shares no code with the worker.

An order is assumed: a `Look` comes after every answer, dead letter and logged request that was in its topic when the
committed offsets were read. Nothing is assumed of the order of the others.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

Place = tuple[int, int]
"""Partition and offset."""

ANOMALIES: Final[Mapping[str, str]] = {
    "lost": "a request that is in the log has no answer",
    "duplicated": "an answer, or a dead letter, beyond the first to one place of the log",
    "phantom": "an answer to no request that was written",
    "wrong": "a payload or an error code that its request does not allow",
    "crossed": "an answer that belongs to another request",
    "committed-ahead": "a committed offset passed an unanswered request",
    "went-back": "a committed offset went back",
    "letter-missing": "a request was answered with an error that is kept, and has no dead letter",
}
UNKEPT: Final = frozenset({"expired", "rejected"})
"""Codes of errors that leave no dead letter."""
POISON: Final = "poison"
EXAMPLES: Final = 20


@dataclass(frozen=True, slots=True)
class Sent:
    """A request is about to be written.

    Attributes:
        digest: of the payload that answers it, or None where only an error may.
        codes: the error codes that may answer it.
        value: digest of its raw value, which a dead letter must carry.
    """

    id: str
    digest: str | None
    codes: tuple[str, ...] = ()
    value: str = ""


@dataclass(frozen=True, slots=True)
class Acked:
    """The broker has it, there."""

    id: str
    place: Place


@dataclass(frozen=True, slots=True)
class Refused:
    """It was surely never written."""

    id: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may have been written or not, now or later."""

    id: str


@dataclass(frozen=True, slots=True)
class Logged:
    """It was read from the request topic, there. The truth about every request whose outcome was unknown."""

    id: str
    place: Place


@dataclass(frozen=True, slots=True)
class Answered:
    """A reply was read. Either `digest` or `code` is given; `source` is what the reply says of its request's place."""

    id: str
    source: Place | None
    digest: str | None = None
    code: str | None = None
    at: Place = (-1, -1)


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter was read; `value` is the digest of the raw value that it carries."""

    source: Place | None
    code: str
    value: str = ""
    at: Place = (-1, -1)


@dataclass(frozen=True, slots=True)
class Look:
    """The group's committed offsets at one moment, by partition; one that has none is absent.

    Nobody can commit that there is none: a broker that has just started was seen to tell so, and the old one again
    seconds later. So it is judged by what is told next, or that nothing is.
    """

    offsets: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Note:
    """Something for the reader of the history: a fault, a worker's end. The checker ignores it."""

    what: str
    detail: Mapping[str, Any] = field(default_factory=dict)


Event = Sent | Acked | Refused | Unknown | Logged | Answered | Letter | Look | Note
_KINDS: Final[Mapping[str, type[Any]]] = {
    kind.__name__.lower(): kind for kind in (Sent, Acked, Refused, Unknown, Logged, Answered, Letter, Look, Note)
}


def to_line(event: Event, at_s: float) -> str:
    """One JSON line; `at_s` tells when, and only readers of the file care."""
    return json.dumps({"event": type(event).__name__.lower(), "s": round(at_s, 3), **asdict(event)})


def from_line(line: str) -> Event:
    """The event of one JSON line.

    Raises:
        ValueError: the line is no event.
    """
    fields = json.loads(line)
    try:
        kind = _KINDS[fields.pop("event")]
        fields.pop("s", None)
        for name in ("place", "source", "at", "codes"):
            if isinstance(fields.get(name), list):
                fields[name] = tuple(fields[name])
        if "offsets" in fields:
            fields["offsets"] = {int(partition): offset for partition, offset in fields["offsets"].items()}
        event: Event = kind(**fields)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no event of a history: {line:.100}") from error
    return event


@dataclass(frozen=True, slots=True)
class Rules:
    """What a delivery mode promises."""

    forbidden: frozenset[str]
    anyone_may_be_poison: bool = False

    @classmethod
    def of(cls, mode: str) -> "Rules":
        """Raises ValueError for a mode that is none."""
        if mode == "exactly-once":
            return cls(frozenset(ANOMALIES))
        if mode == "at-least-once":
            return cls(frozenset(ANOMALIES) - {"duplicated"})
        if mode == "queue":  # no offsets are committed; a record on its last delivery may be a culprit's neighbour
            commits = {"committed-ahead", "went-back"}
            return cls(frozenset(ANOMALIES) - {"duplicated"} - commits, anyone_may_be_poison=True)
        raise ValueError(f"{mode!r} is no delivery mode: at-least-once, exactly-once or queue")


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict: how often each anomaly was seen, the first examples of each in words, and how much was seen."""

    counts: Mapping[str, int]
    examples: Mapping[str, list[str]]
    totals: Mapping[str, int]
    forbidden: frozenset[str]

    @property
    def violations(self) -> dict[str, int]:
        """The counts that the mode forbids and that are not 0."""
        return {name: count for name, count in self.counts.items() if count and name in self.forbidden}

    def text(self) -> str:
        """The table of counts, then the examples of what is forbidden."""
        lines = ["  ".join(f"{name} {count}" for name, count in self.totals.items()), ""]
        for name, meaning in ANOMALIES.items():
            verdict = "VIOLATION" if name in self.violations else "" if name in self.forbidden else "(allowed)"
            lines.append(f"{name:<16}{self.counts[name]:>8}  {verdict:<10}{meaning}")
        for name, count in self.violations.items():
            lines += ["", f"{name}: the first {min(count, EXAMPLES)} of {count}"]
            lines += [f"  {example}" for example in self.examples[name]]
        return "\n".join(lines)

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "counts": dict(self.counts),
            "violations": self.violations,
            "totals": dict(self.totals),
            "examples": {name: list(found) for name, found in self.examples.items() if found},
        }


class Checker:
    """Takes events one by one and counts anomalies. Not thread-safe. Memory grows with the requests, not the events."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._sent: dict[str, Sent] = {}
        self._owners: dict[str, str] = {}  # digest of a payload -> the id of the request it answers
        self._acked: set[str] = set()
        self._refused: set[str] = set()
        self._located: dict[Place, str] = {}
        self._answers: Counter[Place] = Counter()
        self._unplaced: dict[Place, list[str]] = {}  # ids of answers that came before their request's place was known
        self._open: dict[int, set[int]] = {}  # by partition: in the log, and not answered
        self._letters: dict[Place, tuple[str, str]] = {}  # code and digest of the value
        self._kept: dict[Place, str] = {}  # answered with a code that is kept
        self._committed: dict[int, int] = {}  # as told last
        self._untold: set[int] = set()  # those of them that the last look did not tell
        self._highest: dict[int, int] = {}
        self._ahead: set[Place] = set()
        self._counts: Counter[str] = Counter()
        self._totals: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {name: [] for name in ANOMALIES}

    def take(self, event: Event) -> None:
        """Note one event, and count what it already proves."""
        self._totals[type(event).__name__.lower()] += 1
        match event:
            case Sent():
                self._take_sent(event)
            case Acked(id_, place):
                self._acked.add(id_)
                self._locate(id_, place)
            case Logged(id_, place):
                self._locate(id_, place)
            case Refused(id_):
                self._refused.add(id_)
            case Answered():
                self._take_answer(event)
            case Letter():
                self._take_letter(event)
            case Look(offsets):
                self._take_look(offsets)
            case Unknown() | Note():
                pass

    @property
    def unanswered(self) -> int:
        """Requests that are in the log and have no answer yet."""
        return sum(map(len, self._open.values()))

    @property
    def totals(self) -> Mapping[str, int]:
        """Events taken, by kind."""
        return self._totals

    def count(self, anomaly: str) -> int:
        """What is proven so far; some anomalies are proven only at the end."""
        return self._counts[anomaly]

    def report(self) -> Report:
        """The verdict if nothing more happens. May be asked again after further events."""
        counts = Counter(self._counts)
        examples = {name: list(found) for name, found in self._examples.items()}

        def add(name: str, example: str) -> None:
            counts[name] += 1
            if len(examples[name]) < EXAMPLES:
                examples[name].append(example)

        for partition, offsets in sorted(self._open.items()):
            for offset in sorted(offsets):
                add("lost", f"{self._located[partition, offset]} at {partition}/{offset}")
        for partition in sorted(self._untold):
            add("went-back", f"partition {partition} from {self._committed[partition]} to none")
        for source, ids in self._unplaced.items():
            for id_ in ids:
                if id_ in self._refused:
                    add("phantom", f"{id_} was never written, and is answered as {_named(source)}")
                elif id_ in self._acked:
                    add("crossed", f"{id_} is answered as {_named(source)}, where it is not")
        for source, (code, value) in self._letters.items():
            owner = self._located.get(source)
            if owner is None or owner not in self._sent:
                if source not in self._unplaced:
                    add("phantom", f"a dead letter of {_named(source)}, where no request is known")
            elif not self._allows(self._sent[owner], code):
                add("wrong", f"{owner} at {_named(source)} has a dead letter with code {code}")
            elif value != self._sent[owner].value:
                add("wrong", f"{owner} at {_named(source)}: its dead letter carries another value")
        for source, code in self._kept.items():
            if source not in self._letters:
                add("letter-missing", f"{self._located.get(source, '?')} at {_named(source)}, answered {code}")
        return Report({name: counts[name] for name in ANOMALIES}, examples, dict(self._totals), self._rules.forbidden)

    # ---- events

    def _take_sent(self, event: Sent) -> None:
        self._sent[event.id] = event
        if event.digest is not None:
            self._owners[event.digest] = event.id

    def _locate(self, id_: str, place: Place) -> None:
        known = self._located.setdefault(place, id_)
        if known != id_:  # an acknowledgement that the log contradicts: the broker or this harness, not a worker
            self._note("wrong", f"{place} holds {known} and {id_}")
            return
        waiting = self._unplaced.pop(place, [])
        for other in waiting:
            if other != id_:
                self._note("crossed", f"{other} is answered as {_named(place)}, where {id_} is")
                self._answers[place] -= 1
        if not self._answers.get(place):
            partition, offset = place
            self._open.setdefault(partition, set()).add(offset)
            if offset < self._highest.get(partition, 0):
                self._pass_by(place)

    def _take_answer(self, event: Answered) -> None:
        id_, source = event.id, event.source
        sent = self._sent.get(id_)
        where = f"{id_} at {_named(source)} in the reply at {_named(event.at)}"
        if sent is None:
            self._note("phantom", f"{where}: no such request was sent")
            return
        if id_ in self._refused:
            self._note("phantom", f"{where}: it was never written")
            return
        if source is None:
            self._note("wrong", f"{where}: the reply does not tell its request's place")
            return
        there = self._located.get(source)
        if there is not None and there != id_:
            self._note("crossed", f"{where}: {there} is there")
            return
        self._answers[source] += 1
        if self._answers[source] > 1:
            self._note("duplicated", f"{where}: answer number {self._answers[source]}")
        if there is None:
            self._unplaced.setdefault(source, []).append(id_)
        else:
            self._settle(source)
        self._judge(event, sent, where)

    def _judge(self, event: Answered, sent: Sent, where: str) -> None:
        if event.code is not None:
            if not self._allows(sent, event.code):
                self._note("wrong", f"{where}: code {event.code}; allowed {_allowed(sent)}")
            elif event.code not in UNKEPT and event.source is not None:
                self._kept[event.source] = event.code
        elif event.digest != sent.digest or sent.digest is None:
            owner = self._owners.get(event.digest or "")
            if owner is not None and owner != event.id:
                self._note("crossed", f"{where}: the payload is that of {owner}")
            else:
                self._note("wrong", f"{where}: payload {event.digest}; allowed {_allowed(sent)}")

    def _take_letter(self, event: Letter) -> None:
        if event.source is None:
            self._note("phantom", f"the dead letter at {_named(event.at)} does not tell its request's place")
        elif event.source in self._letters:
            self._note("duplicated", f"a second dead letter of {_named(event.source)} at {_named(event.at)}")
            if self._letters[event.source] != (event.code, event.value):
                self._note("wrong", f"the dead letters of {_named(event.source)} differ")
        else:
            self._letters[event.source] = (event.code, event.value)

    def _take_look(self, offsets: Mapping[int, int]) -> None:
        self._untold = self._committed.keys() - offsets.keys()
        if self._untold:
            self._totals["untold"] += 1
        for partition, offset in offsets.items():
            if offset < (before := self._committed.get(partition, 0)):
                self._note("went-back", f"partition {partition} from {before} to {offset}")
            self._committed[partition] = offset
            self._highest[partition] = max(offset, self._highest.get(partition, 0))
            for unanswered in self._open.get(partition, ()):
                if unanswered < offset:
                    self._pass_by((partition, unanswered))

    # ---- inside

    def _settle(self, place: Place) -> None:
        self._open.get(place[0], set()).discard(place[1])

    def _pass_by(self, place: Place) -> None:
        if place not in self._ahead:
            self._ahead.add(place)
            committed = self._highest[place[0]]
            self._note(
                "committed-ahead", f"{self._located[place]} at {_named(place)} unanswered, {committed} committed"
            )

    def _allows(self, sent: Sent, code: str) -> bool:
        return code in sent.codes or (code == POISON and self._rules.anyone_may_be_poison)

    def _note(self, name: str, example: str) -> None:
        self._counts[name] += 1
        if len(self._examples[name]) < EXAMPLES:
            self._examples[name].append(example)


def check(events: Iterable[Event], mode: str) -> Report:
    """The verdict on a whole history."""
    checker = Checker(Rules.of(mode))
    for event in events:
        checker.take(event)
    return checker.report()


def _named(place: Place | None) -> str:
    return "no place" if place is None else f"{place[0]}/{place[1]}"


def _allowed(sent: Sent) -> str:
    return " or ".join([*([sent.digest] if sent.digest else []), *sent.codes])
