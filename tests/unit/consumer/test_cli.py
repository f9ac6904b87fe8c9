"""How the command tells why the worker ended."""

from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from forebay_consumer import cli
from forebay_consumer.errors import FatalError
from forebay_consumer.shutdown import Shutdown


def ended(error: Exception, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The one line of the log about a worker that ends so."""

    def serve() -> None:
        raise error

    monkeypatch.setattr("forebay_consumer.build.build", lambda *_: SimpleNamespace(serve=serve))
    settings: Any = None
    with capture_logs() as lines:
        assert cli._serve(settings, Shutdown(1.0)) == 1
    (line,) = lines
    assert line["action"] == "worker_failed"
    return dict(line)


def test_an_error_that_nobody_expected_is_told_by_kind_and_place_and_not_by_its_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = ended(ValueError("private"), monkeypatch)
    assert line["exception"].endswith("ValueError")
    assert "in serve" in line["exception"]
    assert "private" not in str(line)


def test_a_fatal_error_is_told_in_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ended(FatalError("grant Read on it"), monkeypatch)["error"] == "grant Read on it"
