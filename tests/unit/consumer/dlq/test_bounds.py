"""Which letters a command is about."""

import pytest

from forebay_consumer.dlq.bounds import At, Wanted, parse_at
from forebay_schemas import Code
from unit.consumer.dlq.letters import make_letter

NOW_MS = 1_700_000_000_000


@pytest.mark.parametrize(
    ("text", "at"),
    [
        pytest.param("17", At(offset=17), id="an offset"),
        pytest.param("0", At(offset=0), id="the first offset"),
        pytest.param("90s", At(timestamp_ms=NOW_MS - 90_000), id="seconds ago"),
        pytest.param("15m", At(timestamp_ms=NOW_MS - 900_000), id="minutes ago"),
        pytest.param("2h", At(timestamp_ms=NOW_MS - 7_200_000), id="hours ago"),
        pytest.param("3d", At(timestamp_ms=NOW_MS - 259_200_000), id="days ago"),
        pytest.param("2023-11-14T22:13:20", At(timestamp_ms=NOW_MS), id="a time in UTC"),
        pytest.param("2023-11-14T22:13:20.500Z", At(timestamp_ms=NOW_MS + 500), id="as list shows it"),
        pytest.param("2023-11-14T23:13:20+01:00", At(timestamp_ms=NOW_MS), id="a time elsewhere"),
        pytest.param("2023-11-14", At(timestamp_ms=1_699_920_000_000), id="a day"),
    ],
)
def test_a_place_is_an_offset_a_time_ago_or_a_time(text: str, at: At) -> None:
    assert parse_at(text, NOW_MS) == at


@pytest.mark.parametrize("text", ["", "yesterday", "-1", "2w", "h", "1.5h", "12:00", "٣"])
def test_what_is_no_place_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="no offset"):
        parse_at(text, NOW_MS)


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [
        pytest.param(Wanted(), True, id="all"),
        pytest.param(Wanted([Code.POISON, Code.MODEL_ERROR]), True, id="its code"),
        pytest.param(Wanted([Code.POISON]), False, id="another code"),
        pytest.param(Wanted(since=At(offset=5)), True, id="from its offset"),
        pytest.param(Wanted(since=At(offset=6)), False, id="after its offset"),
        pytest.param(Wanted(until=At(offset=6)), True, id="before the next offset"),
        pytest.param(Wanted(until=At(offset=5)), False, id="without its offset"),
        pytest.param(Wanted(since=At(timestamp_ms=1000)), True, id="from its time"),
        pytest.param(Wanted(since=At(timestamp_ms=1001)), False, id="after its time"),
        pytest.param(Wanted(until=At(timestamp_ms=1001)), True, id="before the next moment"),
        pytest.param(Wanted(until=At(timestamp_ms=1000)), False, id="without its time"),
    ],
)
def test_a_letter_is_taken_by_code_offset_and_time(wanted: Wanted, taken: bool) -> None:
    assert wanted.takes(make_letter(Code.MODEL_ERROR, offset=5, time=1000)) is taken


def test_a_letter_without_a_time_lies_before_every_time() -> None:
    letter = make_letter(offset=5, time=None)
    assert not Wanted(since=At(timestamp_ms=0)).takes(letter)
    assert Wanted(until=At(timestamp_ms=0)).takes(letter)


def test_reading_stops_where_nothing_more_is_asked_for() -> None:
    assert Wanted(until=At(offset=5)).stop(10) == 5
    assert Wanted(until=At(offset=15)).stop(10) == 10
    assert Wanted(until=At(timestamp_ms=0)).stop(10) == 10, "later letters may have earlier times"
