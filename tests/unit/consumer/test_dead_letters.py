"""The dead letter: the original record, and why it is here."""

from typing import Any

import pytest

from forebay_consumer import dead_letters
from forebay_consumer.record import Fault
from forebay_schemas import Code, Envelope
from forebay_schemas.headers import RawHeaders
from support.consumer import make_record


def fault(code: Code = Code.MODEL_ERROR, **record: Any) -> Fault:
    return Fault(make_record(**record), Envelope("id"), code, "the model failed", "forward")


def test_the_letter_says_where_from_when_why_and_by_whom() -> None:
    made = fault(offset=41, topic="in", partition=3, timestamp_s=1234.5678)
    written = dead_letters.headers(made, {"group": "g", "worker": "host-1", "model": "m", "model-version": "2"})
    assert dict(written) == {
        "forebay-topic": "in",
        "forebay-partition": "3",
        "forebay-offset": "41",
        "forebay-timestamp": "1234568",
        "forebay-attempts": "1",
        "forebay-stage": "forward",
        "forebay-code": "model_error",
        "forebay-message": "the model failed",
        "forebay-group": "g",
        "forebay-worker": "host-1",
        "forebay-model": "m",
        "forebay-model-version": "2",
    }


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(None, id="none"),
        pytest.param([("a", b"\x00\xff"), ("b", None)], id="bytes and none"),
        pytest.param([("a", b"1"), ("a", b"2"), ("a", b"1")], id="a name again and again"),
        pytest.param([("forebay-offset", b"9"), ("forebay-code", b"poison")], id="of a letter sent again"),
    ],
)
def test_the_original_headers_come_first_and_untouched(headers: RawHeaders | None) -> None:
    written = dead_letters.headers(fault(headers=headers))
    original = list(headers or ())
    assert written[: len(original)] == original
    ours = [name for name, _ in written[len(original) :]]
    assert all(name.startswith(dead_letters.PREFIX) for name in ours)
    assert len(ours) == len(set(ours))


def test_the_last_word_on_a_letter_sent_again_is_ours() -> None:
    written = dead_letters.headers(fault(offset=5, headers=[("forebay-offset", b"9")]))
    assert dict(written)["forebay-offset"] == "5"


def test_a_record_without_a_timestamp_has_an_empty_one() -> None:
    assert dict(dead_letters.headers(fault(timestamp_s=None)))["forebay-timestamp"] == ""


@pytest.mark.parametrize("code", Code)
def test_only_what_was_refused_for_the_moment_is_not_kept(code: Code) -> None:
    assert (code in dead_letters.KEPT) is (code not in (Code.EXPIRED, Code.REJECTED))
