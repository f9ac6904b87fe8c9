"""Jars from Maven Central, of which a download may be cut short."""

import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from forebay_local import java


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A jar as a download that was cut short left it; `jgo` fetches what is not there."""
    jar = tmp_path / "kafka-server-4.jar"
    jar.write_bytes(b"PK cut")

    def run(*_: Any, **__: Any) -> Any:
        if not jar.exists():
            with zipfile.ZipFile(jar, "w") as whole:
                whole.writestr("a", "b")
        return subprocess.CompletedProcess([], 0, f"{jar}\n", "")

    monkeypatch.setattr("forebay_local.java.subprocess.run", run)
    return jar


def test_a_jar_that_was_cut_short_is_fetched_again(cached: Path) -> None:
    assert java._fetch() == [cached]
    assert zipfile.is_zipfile(cached)


def test_jars_that_never_come_whole_are_an_error_that_names_one(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay_local.java.zipfile.is_zipfile", lambda _: False)
    with pytest.raises(java.BrokerError, match=r"could not be fetched whole: kafka-server-4\.jar"):
        java._fetch()
