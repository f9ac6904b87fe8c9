"""The soak's checker, itself checked: each anomaly is planted in a clean history, and nothing else is seen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soak.history import (
    ANOMALIES,
    Acked,
    Answered,
    Checker,
    Event,
    Letter,
    Logged,
    Look,
    Note,
    Place,
    Refused,
    Rules,
    Sent,
    Unknown,
    check,
    from_line,
    to_line,
)

MODE = "exactly-once"  # it forbids everything


def clean() -> list[Event]:
    """Five requests on one partition: a payload, a payload, a kept error, an error that is not kept, an unknown end."""
    return [
        Sent("a", "da", value="va"),
        Sent("b", "db", value="vb"),
        Sent("c", None, ("model_error",), "vc"),
        Acked("a", (0, 0)),
        Acked("b", (0, 1)),
        Acked("c", (0, 2)),
        Look({}),
        Answered("b", (0, 1), "db", at=(0, 0)),
        Answered("a", (0, 0), "da", at=(0, 1)),
        Look({0: 2}),
        Note("kill", {"worker": "one"}),
        Letter((0, 2), "model_error", "vc", at=(0, 0)),
        Answered("c", (0, 2), code="model_error", at=(0, 2)),
        Sent("d", "dd", ("expired",), "vd"),
        Acked("d", (0, 3)),
        Answered("d", (0, 3), code="expired", at=(0, 3)),
        Sent("e", "de", value="ve"),
        Unknown("e"),
        Look({0: 4}),
    ]


def counted(events: Sequence[Event], mode: str = MODE) -> dict[str, int]:
    return {name: count for name, count in check(events, mode).counts.items() if count}


def with_(index: int, *events: Event) -> list[Event]:
    """The clean history with one event replaced by others, or by none."""
    history = clean()
    return history[:index] + list(events) + history[index + 1 :]


def test_a_clean_history_counts_nothing() -> None:
    report = check(clean(), MODE)
    assert set(report.counts) == set(ANOMALIES)
    assert report.violations == {}
    assert not any(report.counts.values())


PLANTED: dict[str, tuple[list[Event], dict[str, int]]] = {
    "an acknowledged request without an answer": (
        [*clean(), Sent("f", "df"), Acked("f", (0, 4))],
        {"lost": 1},
    ),
    "a request found in the log without an answer": ([*clean(), Logged("e", (0, 4))], {"lost": 1}),
    "a second answer": ([*clean(), Answered("a", (0, 0), "da")], {"duplicated": 1}),
    "a third answer": ([*clean(), *[Answered("a", (0, 0), "da")] * 2], {"duplicated": 2}),
    "a second dead letter": ([*clean(), Letter((0, 2), "model_error", "vc")], {"duplicated": 1}),
    "an answer to nothing": ([*clean(), Answered("ghost", (0, 9), "da")], {"phantom": 1}),
    "an answer to what was never written": (
        [*clean(), Sent("f", "df"), Refused("f"), Answered("f", (0, 4), "df")],
        {"phantom": 1},
    ),
    "an answer to what turns out never to be written": (
        [*clean(), Sent("f", "df"), Answered("f", (0, 4), "df"), Refused("f")],
        {"phantom": 1},
    ),
    "a dead letter of nothing": ([*clean(), Letter((0, 9), "model_error", "v")], {"phantom": 1}),
    "a payload of nobody": (with_(8, Answered("a", (0, 0), "other")), {"wrong": 1}),
    "an error where a payload is due": (
        with_(8, Answered("a", (0, 0), code="expired")),
        {"wrong": 1},
    ),
    "another error than is due": (with_(12, Answered("c", (0, 2), code="internal")), {"wrong": 1}),
    "a payload where an error is due": (with_(12, Answered("c", (0, 2), "other")), {"wrong": 1}),
    "an answer that hides its source": (
        [*clean(), Answered("e", None, "de")],
        {"wrong": 1},
    ),
    "a dead letter of what has a payload": ([*clean(), Letter((0, 0), "model_error", "va")], {"wrong": 1}),
    "a dead letter with another value": (with_(11, Letter((0, 2), "model_error", "va")), {"wrong": 1}),
    "the payload of another": (with_(8, Answered("a", (0, 0), "db")), {"crossed": 1}),
    "an answer with the place of another": ([*clean(), Answered("a", (0, 1), "da")], {"crossed": 1}),
    "an answer with the place of one not yet known": (
        [*clean(), Answered("e", (0, 4), "de"), Sent("f", "df"), Logged("f", (0, 4)), Answered("f", (0, 4), "df")],
        {"crossed": 1},
    ),
    "an answer at a place that never comes": ([*clean(), Answered("a", (0, 8), "da")], {"crossed": 1}),
    "a commit past an unanswered request": (with_(6, Look({0: 1})), {"committed-ahead": 1}),
    "a commit past two unanswered requests, seen twice": (
        with_(6, Look({0: 2}), Look({0: 2})),
        {"committed-ahead": 2},
    ),
    "a commit past a request that was located later": (
        [Sent("a", "da"), Look({0: 1}), Acked("a", (0, 0)), Answered("a", (0, 0), "da")],
        {"committed-ahead": 1},
    ),
    "a commit that goes back": ([*clean(), Look({0: 3}), Look({0: 4})], {"went-back": 1}),
    "a commit that vanishes": ([*clean(), Look({})], {"went-back": 1}),
    "a commit that vanishes, and comes back lower": ([*clean(), Look({}), Look({0: 3})], {"went-back": 1}),
    "a kept error without its dead letter": (with_(11), {"letter-missing": 1}),
}


@pytest.mark.parametrize(("history", "expected"), PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_anomaly_is_counted_and_nothing_else_is(history: list[Event], expected: dict[str, int]) -> None:
    report = check(history, MODE)
    assert counted(history) == expected
    assert report.violations == expected
    for name, count in expected.items():
        assert len(report.examples[name]) == count
        assert f"{name}: the first {count} of {count}" in report.text()


def test_every_anomaly_is_planted() -> None:
    assert {name for _, expected in PLANTED.values() for name in expected} == set(ANOMALIES)


HARMLESS: dict[str, list[Event]] = {
    "an unknown end that was answered": [*clean(), Answered("e", (0, 4), "de")],
    "an unknown end that was answered and found": [*clean(), Answered("e", (0, 4), "de"), Logged("e", (0, 4))],
    "an answer before its acknowledgement": [
        *clean(),
        Sent("f", "df"),
        Answered("f", (0, 4), "df"),
        Look({0: 5}),
        Acked("f", (0, 4)),
    ],
    "a request twice in the log, each answered": [
        *clean(),
        Logged("a", (0, 4)),
        Answered("a", (0, 4), "da"),
        Look({0: 5}),
    ],
    "a request refused at once": [*clean(), Sent("f", "df"), Refused("f")],
    "a deadline that was met": with_(15, Answered("d", (0, 3), "dd")),
    "a partition whose first commit comes late": [*clean(), Look({0: 4, 1: 0})],
    "a broker that has read its log only half": with_(18, Look({}), Look({0: 4})),
}


@pytest.mark.parametrize("history", HARMLESS.values(), ids=HARMLESS.keys())
def test_what_is_allowed_is_not_counted(history: list[Event]) -> None:
    assert counted(history) == {}


def test_at_least_once_allows_repeats_and_nothing_else() -> None:
    history = [*clean(), Answered("a", (0, 0), "da")]
    assert check(history, "at-least-once").counts["duplicated"] == 1
    assert check(history, "at-least-once").violations == {}
    assert Rules.of("at-least-once").forbidden == frozenset(ANOMALIES) - {"duplicated"}


def test_a_queue_may_convict_a_neighbour_and_commits_nothing() -> None:
    history = with_(8, Answered("a", (0, 0), code="poison"), Letter((0, 0), "poison", "va"))
    assert check(history, "queue").violations == {}
    assert check(history, "at-least-once").violations == {"wrong": 2}
    assert check([*clean(), Look({0: 3})], "queue").violations == {}


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="no delivery mode"):
        Rules.of("at-most-once")


def test_unanswered_counts_what_is_open_now() -> None:
    checker = Checker(Rules.of(MODE))
    seen = []
    for event in clean():
        checker.take(event)
        seen.append(checker.unanswered)
    assert seen[5] == 3
    assert seen[-1] == 0


@pytest.mark.parametrize("event", clean(), ids=lambda event: type(event).__name__)
def test_an_event_survives_its_line(event: Event) -> None:
    assert from_line(to_line(event, 1.5)) == event


@pytest.mark.parametrize("line", ['{"event": "look"}', '{"event": "nothing"}', "[]", '{"id": "a"}', "{half"])
def test_a_line_that_is_no_event_is_refused(line: str) -> None:
    with pytest.raises(ValueError):
        from_line(line)


# ---- random histories


@dataclass(frozen=True)
class Request:
    """One request of a random history: its fate at the broker and what answers it."""

    fate: str  # acked | refused | unknown | found
    answer: str  # payload | kept | unkept


FATES = st.lists(
    st.builds(
        Request,
        st.sampled_from(["acked", "acked", "acked", "refused", "unknown", "found"]),
        st.sampled_from(["payload", "payload", "kept", "unkept"]),
    ),
    min_size=2,
    max_size=12,
)
CODES = {"payload": (), "kept": ("model_error",), "unkept": ("expired",)}


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """A clean history: every written request answered once, looks at what is answered, in a random order."""
    events: list[Event] = []
    ends = {0: 0, 1: 0}
    waiting: list[tuple[str, Place, Request]] = []
    answered: dict[int, set[int]] = {0: set(), 1: set()}
    for number, request in enumerate(draw(FATES)):
        id_ = f"r{number}"
        digest = f"d{number}" if request.answer == "payload" else None
        events.append(Sent(id_, digest, CODES[request.answer], f"v{number}"))
        if request.fate == "refused":
            events.append(Refused(id_))
            continue
        if request.fate != "acked":
            events.append(Unknown(id_))
        if request.fate == "unknown":
            continue
        partition = draw(st.sampled_from([0, 1]))
        place = (partition, ends[partition])
        ends[partition] += 1
        events.append(Acked(id_, place) if request.fate == "acked" else Logged(id_, place))
        waiting.append((id_, place, request))
    for position, (id_, place, request) in enumerate(draw(st.permutations(waiting))):
        number_ = id_[1:]
        if request.answer == "payload":
            events.append(Answered(id_, place, f"d{number_}", at=(0, position)))
        else:
            code = CODES[request.answer][0]
            events.append(Answered(id_, place, code=code, at=(0, position)))
            if request.answer == "kept":
                events.append(Letter(place, code, f"v{number_}", at=(0, position)))
        answered[place[0]].add(place[1])
        if draw(st.booleans()):
            looked = {}
            for partition, done in answered.items():
                looked[partition] = next(offset for offset in range(len(done) + 1) if offset not in done)
            events.append(Look(looked))
    return events


@given(histories())
def test_a_random_clean_history_counts_nothing(history: list[Event]) -> None:
    assert counted(history) == {}


def _payload(event: Event) -> bool:
    return isinstance(event, Answered) and event.digest is not None


def _answer(event: Event) -> bool:
    return isinstance(event, Answered)


def _letter(event: Event) -> bool:
    return isinstance(event, Letter)


def _look(event: Event) -> bool:
    return isinstance(event, Look)


def _acked(event: Event) -> bool:
    return isinstance(event, Acked)


Mutation = Callable[[Any], list[Event]]


def _gone(event: Event) -> list[Event]:
    return []


def _twice(event: Event) -> list[Event]:
    return [event, event]


def _with(**fields: Any) -> Mutation:
    return lambda event: [replace(event, **fields)]


MUTATIONS: dict[str, tuple[Callable[[Event], bool], Mutation, str]] = {
    "an answer is gone": (_answer, _gone, "lost"),
    "an answer comes twice": (_answer, _twice, "duplicated"),
    "an answer has a strange id": (_answer, _with(id="ghost"), "phantom"),
    "an answer has a strange payload": (_payload, _with(digest="no"), "wrong"),
    "an answer is an error": (_payload, _with(digest=None, code="internal"), "wrong"),
    "an answer has a strange place": (_answer, _with(source=(0, 99)), "lost"),
    "a dead letter is gone": (_letter, _gone, "letter-missing"),
    "a dead letter comes twice": (_letter, _twice, "duplicated"),
    "a dead letter has a strange code": (_letter, _with(code="internal"), "wrong"),
    "a dead letter has a strange value": (_letter, _with(value="no"), "wrong"),
    "a dead letter has a strange place": (_letter, _with(source=(1, 99)), "letter-missing"),
    "an acknowledged request was refused": (_acked, lambda event: [Refused(event.id)], "phantom"),
    "a look forgets": (_look, lambda event: [event, Look({0: 99, 1: 99}), Look({})], "went-back"),
}


@pytest.mark.parametrize(("applies", "mutate", "seen"), MUTATIONS.values(), ids=MUTATIONS.keys())
@given(history=histories(), chance=st.randoms(use_true_random=False))
def test_one_changed_event_is_always_caught(
    history: list[Event], chance: Random, applies: Callable[[Event], bool], mutate: Mutation, seen: str
) -> None:
    places = [index for index, event in enumerate(history) if applies(event)]
    if not places:
        return
    index = chance.choice(places)
    mutated = [*history[:index], *mutate(history[index]), *history[index + 1 :]]
    assert check(mutated, MODE).counts[seen] >= 1
    assert check(mutated, MODE).violations


@given(history=histories(), chance=st.randoms(use_true_random=False))
def test_two_swapped_payloads_are_always_caught(history: list[Event], chance: Random) -> None:
    places = [index for index, event in enumerate(history) if _payload(event)]
    if len(places) < 2:
        return
    one, two = chance.sample(places, 2)
    first, second = history[one], history[two]
    assert isinstance(first, Answered)
    assert isinstance(second, Answered)
    history[one], history[two] = replace(first, digest=second.digest), replace(second, digest=first.digest)
    assert counted(history) == {"crossed": 2}


@given(histories())
def test_a_look_one_past_an_unanswered_request_is_always_caught(history: list[Event]) -> None:
    for index, event in enumerate(history):
        if isinstance(event, Answered) and event.source is not None:
            partition, offset = event.source
            early = [*history[:index], Look({partition: offset + 1}), *history[index:]]
            assert check(early, MODE).counts["committed-ahead"] >= 1
