"""What a person and a pipe see of dead letters."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from rich.console import Console

from forebay_consumer.dlq import show
from forebay_consumer.dlq.letters import Entry, Letter
from forebay_consumer.dlq.redrive import Fate, Tally, Where
from forebay_schemas import Code
from support.consumer import make_record
from unit.consumer.dlq.letters import letter_of

NOW_MS = 1_700_000_000_123


def letter(**record: object) -> Letter:
    made = make_record(41, topic="in", partition=3, **record)  # type: ignore[arg-type]
    return letter_of(made, Code.POISON, partition=1, offset=17, time=NOW_MS)


def test_a_json_line_tells_where_why_and_of_which_request() -> None:
    told = letter(key=b"k", value=b"value")
    assert json.loads(show.json_line(show.plain(told.entry, told, redriven=True))) == {
        "partition": 1,
        "offset": 17,
        "time": "2023-11-14T22:13:20.123Z",
        "code": "poison",
        "stage": "forward",
        "request_id": "k",
        "source": {"topic": "in", "partition": 3, "offset": 41},
        "attempts": "1",
        "redrives": 0,
        "redriven": True,
        "size": 6,
        "message": "it failed",
    }


def test_a_record_that_no_worker_wrote_is_told_as_such() -> None:
    line = show.plain(Entry(1, 17, None, b"k", b"v"), None, redriven=False)
    assert (line["code"], line["source"], line["time"], line["size"]) == (None, None, None, 2)
    assert line["message"] == show.STRANGER


def drawn(*lines: dict[str, object]) -> str:
    console = Console(width=160, color_system=None)
    with console.capture() as shown:
        console.print(show.table(lines))
    return shown.get()


def test_a_table_has_a_row_a_letter() -> None:
    told = letter()
    page = drawn(
        show.plain(told.entry, told, redriven=True), show.plain(Entry(0, 2, None, None, None), None, redriven=False)
    )
    head, first, second = page.splitlines()
    assert head.split() == ["letter", "time", "code", "stage", "request", "id", "source", "bytes", "back", "message"]
    assert first.split()[:8] == [
        "1:17", "2023-11-14T22:13:20.123Z", "poison", "forward", "in-3-41", "in-3@41", "4", "yes",
    ]  # fmt: skip
    assert second.split()[:6] == ["0:2", "-", "-", "-", "-", "-"]


@pytest.mark.parametrize(
    ("message", "drawn_as"),
    [
        pytest.param("\x1b[2Jgone\x07", r"\x1b[2Jgone\x07", id="a terminal's commands"),
        pytest.param("[red]not markup[/red] [/]", "[red]not markup[/red] [/]", id="rich's markup"),
        pytest.param("two\nlines", r"two\nlines", id="lines"),
        pytest.param("naïve ☕", "naïve ☕", id="any script"),
    ],
)
def test_what_strangers_wrote_reaches_a_terminal_as_text(message: str, drawn_as: str) -> None:
    told = replace(letter(), message=message)
    assert drawn_as in drawn(show.plain(told.entry, told, redriven=False))
    assert f"message   {drawn_as}" in list(show.page(told.entry, told, redriven=False))


@pytest.mark.parametrize(
    ("value", "told"),
    [
        pytest.param(None, ["value     (none)"], id="a tombstone"),
        pytest.param(b"", ["value     0 bytes of text"], id="nothing"),
        pytest.param(b'{"a":\n 1}', ["value     9 bytes of text", '{"a":', " 1}"], id="JSON"),
        pytest.param(b"\xff\xfe", ["value     2 bytes, no text; --raw writes them", "0xfffe"], id="bytes"),
        pytest.param(b"a\x1b[2J", ["value     5 bytes, no text; --raw writes them", "0x611b5b324a"], id="commands"),
    ],
)
def test_a_value_is_shown_as_text_where_it_is_some(value: bytes | None, told: list[str]) -> None:
    made = letter(value=value)
    assert list(show.page(made.entry, made, redriven=False))[-len(told) :] == told


def test_of_a_long_value_without_text_the_beginning_is_shown() -> None:
    made = letter(value=b"\xff" * 10_000)
    assert list(show.page(made.entry, made, redriven=False))[-1] == f"0x{'ff' * show.HEX_BYTES}…"


def test_a_page_shows_all_headers() -> None:
    made = letter(headers=[("mine", b"\x00\xff"), ("none", None), ("text", b"a")])
    page = list(show.page(made.entry, made, redriven=True))
    assert "put back  yes" in page
    start = page.index("headers") + 1
    assert page[start : start + 4] == [
        "  mine: 0x00ff  (2 bytes)", "  none: (none)", "  text: a", "  forebay-topic: in",
    ]  # fmt: skip
    assert "  kafka_dlt-original-partition: 0x00000003  (4 bytes)" in page


def test_a_page_of_a_letter_that_lost_a_part_says_so() -> None:
    made = replace(letter(), omitted="its value")
    assert "lost      its value" in list(show.page(made.entry, made, redriven=False))


def test_a_page_of_a_record_that_no_worker_wrote_shows_what_there_is() -> None:
    page = list(show.page(Entry(0, 2, None, b"k", b"v", (("a", b"b"),)), None, redriven=False))
    assert page == [
        "letter    0:2  no time",
        f"message   {show.STRANGER}",
        "put back  no",
        "key       k",
        "headers",
        "  a: b",
        "value     1 bytes of text",
        "v",
    ]


@pytest.mark.parametrize(
    ("where", "line", "target"),
    [
        pytest.param(
            Where("in", 3, 90),
            "1:17 poison in-3-41 -> in-3@90",
            {"topic": "in", "partition": 3, "offset": 90},
            id="sent",
        ),
        pytest.param(
            Where("in", -1, -1),
            "1:17 poison in-3-41 -> in",
            {"topic": "in", "partition": None, "offset": None},
            id="dry",
        ),
    ],
)
def test_a_letter_put_back_is_a_line(where: Where, line: str, target: dict[str, object]) -> None:
    assert show.moved_line(letter(), where) == line
    told = json.loads(show.moved_json(letter(), where))
    assert told["target"] == target
    assert told["redriven"] is (where.offset >= 0)


def test_a_summary_tells_what_was_left_and_why() -> None:
    tally = Tally(Counter({Fate.BACK: 2, Fate.FOREIGN: 1, Fate.STRANGER: 3}), late=1)
    assert show.summary(tally, "put back") == (
        "2 put back; 1 of a topic not in topics.requests; 3 not written by a worker; "
        "1 with a deadline that is past, which will expire again (--drop-deadline)"
    )
    assert show.summary(Tally(), "would be put back") == "0 would be put back"


@pytest.mark.parametrize("milliseconds", [-1, 10**18])
def test_any_number_may_be_a_time(milliseconds: int) -> None:
    assert show.moment(milliseconds) is not None
