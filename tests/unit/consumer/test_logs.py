"""What a line of the log may hold: kinds and places of errors, never what a request or a secret said."""

import logging
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import structlog

from forebay_consumer.config import LoggingSettings
from forebay_consumer.logs import AGAIN_AFTER_S, Seldom, client_logger, configure, where_raised
from support.consumer import ManualClock


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


def raised(row: str) -> Exception:
    try:
        try:
            float(row)
        except ValueError as error:
            raise RuntimeError(f"cannot run {row}") from error
    except RuntimeError as error:
        return error
    raise AssertionError


def test_an_error_is_told_by_kind_and_place_with_its_cause_and_without_its_text() -> None:
    told = where_raised(raised("private"))
    assert "RuntimeError\ncaused by\n" in told
    assert told.endswith("ValueError")
    assert "in raised" in told
    assert "private" not in told
    assert where_raised(None) == ""


@pytest.mark.parametrize("form", ["console", "json"])
def test_an_unexpected_error_is_logged_without_the_variables_of_its_frames(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(LoggingSettings(format=form))
    password = "".join(reversed("2retnuh"))  # a traceback quotes the source, which may say nothing else

    def fail() -> None:
        raise RuntimeError(f"told to one of {len(password)}")

    try:
        fail()
    except RuntimeError as error:
        structlog.get_logger().error("worker stopped", exc_info=error)
    said = capsys.readouterr().err
    assert "RuntimeError: told to one of 7" in said
    assert password not in said


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ({4: {1: 10.5, 2: 19.25}}, "19.25"),
        (Path("some/model"), "some/model"),
        ("caf\udce9", "udce9"),
        (10**30, "1000000000000"),
        ({("a", 1): 2}, "2"),
    ],
    ids=["keys that are numbers", "a path", "a lone surrogate", "a large integer", "a tuple for a key"],
)
def test_a_line_in_json_may_hold_anything(value: object, seen: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure(LoggingSettings(format="json"))
    structlog.get_logger().info("told", action="told", value=value)
    said = capsys.readouterr().err
    assert seen in said
    assert orjson.loads(said)["action"] == "told"


def test_what_the_client_repeats_is_said_once_in_a_while_with_how_often_it_was_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(LoggingSettings(format="json"))
    for after_ms in range(5):
        client_logger().warning("FAIL [thrd:a:9092]: Connect failed (after %sms in state CONNECT)", after_ms)
    client_logger().warning("FAIL [thrd:a-2:9092]: Connect failed (after %sms in state CONNECT)", 7)
    for suppressed in (4, 17):
        client_logger().warning("FAIL [thrd:a:9092]: refused, %s identical error(s) suppressed", suppressed)
    structlog.get_logger().warning("of the worker's", action="delivery_failed")
    structlog.get_logger().warning("of the worker's", action="delivery_failed")
    said = [orjson.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["action"] for line in said] == [*["client_log"] * 3, *["delivery_failed"] * 2]
    assert "after 0ms" in said[0]["text"]


def test_all_that_kafka_debug_asks_for_is_said_at_the_level_of_debug(capsys: pytest.CaptureFixture[str]) -> None:
    for level, lines in (("info", 0), ("debug", 2)):
        configure(LoggingSettings(format="json", level=level))
        for _ in range(2):
            client_logger().debug("GRPHEARTBEAT [thrd:main]: Heartbeat for group")
        assert len(capsys.readouterr().err.splitlines()) == lines


def test_it_is_said_again_after_a_while() -> None:
    manual = ManualClock()
    seldom = Seldom(manual)

    def said() -> object:
        try:
            return seldom(None, "warning", {"action": "kafka_error", "error": f"down (after {manual():.0f}ms)"})
        except structlog.DropEvent:
            return None

    assert said() == {"action": "kafka_error", "error": f"down (after {manual():.0f}ms)"}
    manual.advance(AGAIN_AFTER_S / 2)
    assert [said(), said()] == [None, None]
    manual.advance(AGAIN_AFTER_S / 2)
    assert said() == {"action": "kafka_error", "error": f"down (after {manual():.0f}ms)", "omitted": 2}
    assert said() is None
