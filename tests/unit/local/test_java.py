"""Jars from Maven Central, of which a download may be cut short."""

import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from forebay_local import java


@pytest.fixture(params=["jar", "pom"])
def cached(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A jar, or what it is found by, as a download that was cut short left it; `jgo` fetches what is not there.

    The jar that it shows is a link to the one that it keeps.
    """
    jar = tmp_path / "jgo" / "kafka-server-4.jar"
    kept = tmp_path / "m2" / f"kafka-server-4.{request.param}"
    kept.parent.mkdir()
    kept.write_bytes(b"PK cut")

    def run(*_: Any, env: dict[str, str], **__: Any) -> Any:
        store = Path(env["M2_REPO"])
        if (store / "kafka-server-4.pom").is_file():
            return subprocess.CompletedProcess([], 1, "", "unclosed token")
        store.mkdir(exist_ok=True)
        whole = store / jar.name
        if not whole.is_file():
            with zipfile.ZipFile(whole, "w") as made:
                made.writestr("a", "b")
        Path(env["JGO_CACHE_DIR"]).mkdir(exist_ok=True)
        jar.unlink(missing_ok=True)
        jar.hardlink_to(whole)
        return subprocess.CompletedProcess([], 0, f"{jar}\n", "")

    monkeypatch.setattr("forebay_local.java.subprocess.run", run)
    return jar


def test_what_was_cut_short_is_fetched_again(cached: Path, tmp_path: Path) -> None:
    assert java._fetch(tmp_path) == [cached]
    assert zipfile.is_zipfile(cached)


@pytest.mark.usefixtures("cached")
def test_jars_that_never_come_whole_are_an_error_that_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay_local.java.zipfile.is_zipfile", lambda _: False)
    with pytest.raises(java.BrokerError, match=r"could not be fetched whole: kafka-server-4\.jar"):
        java._fetch(tmp_path)


def test_what_came_before_the_network_failed_is_kept_and_the_failure_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    came = tmp_path / "m2" / "a.jar"
    runs = 0

    def run(*_: Any, **__: Any) -> Any:
        nonlocal runs
        runs += 1
        came.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(came, "w") as made:
            made.writestr("a", "b")
        came.with_suffix(".pom").write_text("<project>\n</project>\n")
        return subprocess.CompletedProcess([], 1, "", "timed out")

    monkeypatch.setattr("forebay_local.java.subprocess.run", run)
    with pytest.raises(java.BrokerError, match="timed out"):
        java._fetch(tmp_path)
    assert (runs, came.is_file(), came.with_suffix(".pom").is_file()) == (1, True, True)
