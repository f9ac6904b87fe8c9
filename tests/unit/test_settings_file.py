"""Files of settings that cannot be read, for the worker and the client alike."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import forebay_consumer.config
import forebay_producer
from forebay_consumer.errors import BadConfig
from forebay_producer import BadSettings


class Side(NamedTuple):
    load: Callable[[Path], Any]
    refusal: type[Exception]
    form: str


SIDES = {
    "worker": Side(forebay_consumer.config.load, BadConfig, r"a mapping of parts, as in kafka: \{"),
    "client": Side(forebay_producer.load, BadSettings, r"a mapping of settings, as in requests: "),
}


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest) -> Side:
    return SIDES[request.param]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.yaml"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        pytest.param(b"batching: [1\nmodel: }", ", line 2, column 6$", id="an open list"),
        pytest.param(b"a: b: c", ", line 1, column 5$", id="two values"),
        pytest.param(b"a: \x00", ": it holds a character that YAML does not allow$", id="a zero byte"),
        pytest.param(b"a: \xff", ": it is not UTF-8$", id="a byte that is no UTF-8"),
        pytest.param(
            b"a: 2024-02-30", ": a date, a number, or what follows a !! in it is none$", id="a date that there is not"
        ),
        pytest.param(
            b"a: 0x_", ": a date, a number, or what follows a !! in it is none$", id="a number without digits"
        ),
        pytest.param(b"[" * 3000, ": it is nested too deeply$", id="ever deeper"),
        pytest.param(
            b"kafka: {sasl.password: !!bool hunter2}",
            ": a date, a number, or what follows a !! in it is none$",
            id="a secret that is no bool",
        ),
        pytest.param(b"a: !!timestamp x", ": a date, a number, or what follows a !! in it is none$", id="no time"),
        pytest.param(b"a: !!int ''", ": a date, a number, or what follows a !! in it is none$", id="no number"),
        pytest.param(b"kafka: {sasl.password: *hunter2}", ", line 1, column 24$", id="an alias of nothing"),
        pytest.param(b"kafka: {sasl.password: hunter2", ", line 1, column 31$", id="a secret in an open mapping"),
    ],
)
def test_a_file_that_is_no_yaml_is_told_by_its_place_without_its_text(
    side: Side, file: Path, text: bytes, where: str
) -> None:
    file.write_bytes(text)
    with pytest.raises(side.refusal, match=r"settings\.yaml: not readable as YAML" + where) as caught:
        side.load(file)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", ["- a\n", "kafka\n", "5\n", "1: 2\n"])
def test_a_file_that_is_no_mapping_is_told_as_such(side: Side, file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(side.refusal, match=rf"settings\.yaml: expected {side.form}"):
        side.load(file)


def test_a_file_that_may_not_be_read_is_told_as_such(side: Side, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    file.touch()
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(side.refusal, match=r"settings\.yaml: cannot be read: Permission denied"):
        side.load(file)
