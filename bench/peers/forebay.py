"""Forebay, as `forebay-consumer run` with a configuration of its own for each load."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.machine import NO_BFLOAT16, machine_multiplies_bfloat16
from bench.peers.base import BATCH, Job, Peer

# T1 and T2: what the worker's own profile finds; T3: what all have.
_BATCHING: Final[Mapping[str, Mapping[str, Any]]] = {"T1": {}, "T2": {}, "T3": {"max_batch_size": BATCH["T3"]}}
_TASKS: Final[Mapping[str, str]] = {"T1": "feature-extraction", "T2": "image-classification"}


class Forebay(Peer):
    name = "Forebay"
    what = "the worker, at-least-once"

    def __init__(self, workers: int = 1, **settings: Mapping[str, Any]) -> None:
        """Settings go over those of the load, part by part: `batching={"linger_ms": 0}`."""
        self._workers, self._settings = workers, settings

    def commands(self, job: Job) -> Sequence[Sequence[str]]:
        config = Path(job.folder) / "worker.json"
        config.write_text(json.dumps(self._config(job)))
        command = [sys.executable, "-m", "forebay_consumer", "run", "--config", str(config)]
        return [command] * self._workers

    def _config(self, job: Job) -> dict[str, Any]:
        model: dict[str, Any] = {"name": "bench", "class": "bench.linear:Linear"}
        if job.load in _TASKS:
            options = {"threads": 1, "dtype": job.dtype}
            model = {"name": "bench", "task": _TASKS[job.load], "path": job.path, "options": options}
        config: dict[str, Any] = {
            "kafka": {"bootstrap.servers": job.servers, "group.id": f"{job.requests}-forebay"},
            "topics": {"requests": [job.requests], "replies": [job.replies]},
            "model": model,
            "batching": {**_BATCHING[job.load], "linger_ms": job.window_ms},
            "metrics": {"port": None},
            "logging": {"format": "json"},
        }
        for part, values in self._settings.items():
            config[part] = {**config.get(part, {}), **values}
        return config


class Fast(Forebay):
    """The precision that Forebay chooses where exactness is not asked for, among the others' default."""

    name = "Forebay, dtype: fast"
    what = "the same with `dtype: fast`"

    def takes(self, load: str, dtype: str) -> bool:
        return load in _TASKS and dtype == "float32"

    def not_here(self) -> str | None:
        return None if machine_multiplies_bfloat16() else NO_BFLOAT16

    def computes_in(self, dtype: str) -> str:  # noqa: ARG002
        return "bfloat16"

    def _config(self, job: Job) -> dict[str, Any]:
        config = super()._config(job)
        config["model"]["options"]["dtype"] = "fast"
        return config
