"""The local command line."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forebay_local.cli import app


@pytest.mark.parametrize(("before", "after"), [(None, 0o755), (0o2770, 0o2770)], ids=["made", "there"])
def test_a_container_can_read_the_folder_of_models_unless_it_is_the_users_own(
    before: int | None, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "built").mkdir()
    monkeypatch.setattr("forebay_local.models.build", lambda _: tmp_path / "built")
    monkeypatch.setattr("forebay_local.models.about", lambda _: {})
    into = tmp_path / "into"
    if before is not None:
        into.mkdir()
        into.chmod(before)
    mask = os.umask(0o077)
    try:
        done = CliRunner().invoke(app, ["models", "digits", "--into", str(into)])
    finally:
        os.umask(mask)
    assert done.exit_code == 0, done.output
    assert (into / "digits").is_dir()
    assert into.stat().st_mode & 0o7777 == after
