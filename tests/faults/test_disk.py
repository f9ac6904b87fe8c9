"""The disk of the broker fills up: the broker ends, the worker commits nothing unanswered, all is answered after."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.broker import Topics, running_broker
from support.checker import OnlineChecker
from support.pipeline import Pipeline
from support.promise import assert_all_committed, assert_kept, numbered
from support.worker import WorkerProcess, wait_until

SIZE = "256m"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own in memory; skips where this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs mount")
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Write until nothing more fits; the file to delete afterwards."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:  # no space left for a piece of this size
                continue
    return filler


@pytest.mark.tools
def test_row_11_a_full_disk_of_the_broker_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    gate, first = tmp_path / "gate", {"until": str(tmp_path / "gate")}
    texts: dict[str, Any] = {id_: text + " x" * 500 for id_, text in numbered(2000).items()}
    with running_broker(data=small_disk) as broker:
        pipeline = Pipeline(broker.bootstrap_servers, Topics(broker.bootstrap_servers))
        pipeline.send(json.dumps({"inputs": [first]}), id="first", partition=0)
        pipeline.send_all(texts.items())
        settings = pipeline.settings(
            kafka={"session.timeout.ms": 30_000, "reconnect.backoff.max.ms": 500},
            batching={"max_batch_size": 16, "linger_ms": 5},
            delivery={"commit_interval_ms": 50},
        )
        with OnlineChecker(pipeline) as checker, WorkerProcess(tmp_path, settings) as worker:
            wait_until(lambda: len(worker.passes()) > 1, "the first pass runs")
            filler = fill(small_disk)
            gate.touch()
            wait_until(lambda: not broker.alive, "the broker has ended")
            wait_until(lambda: worker.get("/readyz")[0] == 503, "the worker is unready")
            assert worker.get("/livez")[0] == 200
            filler.unlink()
            broker.start()
            reader = pipeline.reader()
            reader.wait_for(len(texts) + 1)
            assert_all_committed(pipeline)
            assert worker.stop() == 0
        checker.assert_kept()
        assert_kept(reader, {**texts, "first": first})
