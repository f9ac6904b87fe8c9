"""A letter read back, and the request that is made of it again."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_consumer.dlq.letters import Entry, Kind, deadline, put_back, read_letter
from forebay_consumer.record import Record
from forebay_schemas import Code, read_request
from support.consumer import make_record
from unit.consumer.dlq.letters import entry_of, letter_of

NAMES = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["request-id", "forebay-topic", "forebay-offset", "forebay-redriven", "kafka_dlt-original-topic"]),
)
HEADERS = st.lists(st.tuples(NAMES, st.none() | st.binary(max_size=8) | st.sampled_from([b"7", b"id"])), max_size=6)
VALUES = st.one_of(
    st.none(), st.binary(max_size=32), st.sampled_from([b'{"id": "mine", "text": "a"}', b'{"id": 3}', b"{oops"])
)
KEYS = st.none() | st.binary(max_size=8) | st.text(min_size=1, max_size=4).map(str.encode)


def was_put_back(name: str, value: bytes | None) -> bool:
    return name == "forebay-redriven" and value is not None and value.isdigit() and int(value) > 0


def put_again(record: Record, offset: int) -> Record:
    """The record as it is in its topic after it failed and was put back."""
    parcel = put_back(letter_of(record))
    return make_record(offset, topic=record.topic, key=parcel.key, value=parcel.value, headers=parcel.headers)


@given(KEYS, VALUES, HEADERS)
def test_a_request_put_back_is_the_request_as_it_was_byte_for_byte(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    first = make_record(5, topic="requests", partition=2, key=key, value=value, headers=headers)
    own = headers[:-1] if headers and was_put_back(*headers[-1]) else headers
    again = put_again(first, offset=90)
    assert (again.key, again.value) == (key, value)
    assert isinstance(again.headers, list)
    assert again.headers[: len(own)] == own
    added = [name for name, _ in again.headers[len(own) :]]
    assert added in (["forebay-redriven"], ["request-id", "forebay-redriven"])


@given(KEYS, VALUES, HEADERS)
def test_a_request_keeps_its_first_id_however_often_it_is_put_back(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    first = make_record(5, topic="requests", partition=2, key=key, value=value, headers=headers)
    second = put_again(first, offset=90)
    third = put_again(second, offset=91)
    ids = {read_request(record)[0].id for record in (first, second, third)}
    assert len(ids) == 1
    assert isinstance(second.headers, list)
    assert isinstance(third.headers, list)
    assert third.headers[:-1] == second.headers[:-1], "only the count changes: no life leaves headers behind"


@pytest.mark.parametrize(
    ("record", "added"),
    [
        pytest.param({"headers": [("request-id", b"a")]}, [], id="named by its header"),
        pytest.param({"value": b'{"id": "b", "text": "c"}'}, [], id="named by its body"),
        pytest.param({"key": b"d"}, [], id="named by its key"),
        pytest.param({}, [("request-id", b"requests-2-5")], id="named by its offset"),
        pytest.param({"key": b"\xff"}, [("request-id", b"requests-2-5")], id="a key that is no name"),
        pytest.param({"headers": [("request-id", b"\x00")], "key": b"d"}, [], id="a broken name, and a key"),
    ],
)
def test_only_a_request_named_by_its_offset_is_given_its_id(
    record: dict[str, Any], added: list[tuple[str, bytes]]
) -> None:
    original = list(record.get("headers", []))
    letter = letter_of(make_record(5, topic="requests", partition=2, **record))
    assert put_back(letter).headers == [*original, *added, ("forebay-redriven", b"1")]


def test_what_a_letter_tells() -> None:
    record = make_record(41, topic="in", partition=3, key=b"k", value=b"v", headers=[("mine", b"\xff")])
    letter = letter_of(record, Code.POISON, partition=1, offset=17)
    assert (letter.topic, letter.partition, letter.offset) == ("in", 3, 41)
    assert (letter.entry.partition, letter.entry.offset) == (1, 17)
    assert (letter.code, letter.stage, letter.message, letter.attempts) == ("poison", "forward", "it failed", "1")
    assert letter.request_id == "k"
    assert letter.headers == (("mine", b"\xff"),)
    assert letter.kind == Kind("in", "poison")
    assert (letter.redrives, letter.omitted) == (0, None)


def test_a_letter_of_an_older_worker_has_the_id_that_its_request_had() -> None:
    entry = entry_of(make_record(41, topic="in", partition=3))
    headers = tuple(header for header in entry.headers if header[0] != "forebay-request-id")
    letter = read_letter(replace(entry, headers=headers))
    assert letter is not None
    assert letter.request_id == "in-3-41"


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param((), id="no headers"),
        pytest.param((("kafka_dlt-original-topic", b"in"),), id="of a Spring application"),
        pytest.param((("forebay-topic", b"in"),), id="a topic and nothing else"),
        pytest.param(
            (("forebay-topic", b"in"), ("forebay-partition", b"x"), ("forebay-offset", b"1"), ("forebay-code", b"c")),
            id="a partition that is no number",
        ),
        pytest.param(
            (("forebay-topic", None), ("forebay-partition", b"0"), ("forebay-offset", b"1"), ("forebay-code", b"c")),
            id="a topic without a value",
        ),
    ],
)
def test_a_record_that_no_worker_wrote_is_no_letter(headers: tuple[tuple[str, bytes | None], ...]) -> None:
    assert read_letter(Entry(0, 0, None, None, b"v", headers)) is None


@pytest.mark.parametrize(
    ("header", "told"),
    [
        pytest.param(("forebay-value-omitted", b"5000"), "its value of 5000 bytes", id="value"),
        pytest.param(("forebay-headers-omitted", b"not UTF-8"), "its headers", id="headers"),
    ],
)
def test_a_letter_that_lost_a_part_of_its_request_says_which(header: tuple[str, bytes], told: str) -> None:
    entry = entry_of(make_record())
    letter = read_letter(replace(entry, headers=(*entry.headers, header)))
    assert letter is not None
    assert letter.omitted is not None
    assert letter.omitted.startswith(told)


def test_headers_can_be_left_out() -> None:
    headers = [("deadline-ms", b"1"), ("mine", b"2"), ("deadline-ms", b"3")]
    letter = letter_of(make_record(key=b"k", headers=headers))
    assert deadline(letter) == 3
    assert put_back(letter, ("deadline-ms",)).headers == [("mine", b"2"), ("forebay-redriven", b"1")]


@pytest.mark.parametrize("value", [b"soon", b"", b"-5", b"1" * 30])
def test_a_deadline_that_is_no_number_is_none(value: bytes) -> None:
    assert deadline(letter_of(make_record(headers=[("deadline-ms", value)]))) is None
