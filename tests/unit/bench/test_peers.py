"""What the contenders are given."""

import json
import shutil
from pathlib import Path

import pytest

from bench.load import LOADS
from bench.peers import venvs
from bench.peers.all import PEERS
from bench.peers.base import Job
from bench.peers.forebay import Forebay
from bench.peers.mlserver import MLServer
from forebay_consumer.config import load


def job(kind: str, folder: Path) -> Job:
    return Job(kind, "/nowhere", "float32", 32, 5.0, "localhost:9092", "in", "out", 8000, str(folder))


@pytest.mark.parametrize("kind", LOADS)
def test_the_worker_takes_its_configuration(kind: str, tmp_path: Path) -> None:
    peer = Forebay(batching={"linger_ms": 0}, limits={"preprocess_threads": 2})
    (command,) = peer.commands(job(kind, tmp_path))
    settings = load(Path(command[-1]))
    assert settings.batching.linger_ms == 0
    assert settings.limits.preprocess_threads == 2
    assert settings.topics.requests == ("in",)


def test_a_contender_without_its_installer_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(venvs, "VENVS", tmp_path)
    monkeypatch.setattr(shutil, "which", lambda _: str(tmp_path / "no-uv"))
    with pytest.raises(venvs.NotInstalled, match="uv cannot be run"):
        venvs.python_of("litserve")


@pytest.mark.parametrize("name", PEERS)
def test_every_contender_pins_what_it_installs(name: str) -> None:
    requirements = PEERS[name].requirements
    if requirements is not None:
        lines = (venvs.REQUIREMENTS / f"{requirements}.txt").read_text().split()
        assert lines
        assert all("==" in line for line in lines)


def test_a_v2_body_has_one_tensor_of_one_row() -> None:
    body = json.loads(MLServer().body("7", [1.0, 2.0]))
    assert body == {"id": "7", "inputs": [{"name": "rows", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}]}
    assert json.loads(MLServer().body("7", b"\xff\xd8"))["inputs"][0]["data"] == ["/9g="]
