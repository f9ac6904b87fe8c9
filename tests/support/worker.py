"""A real worker process on the real broker, and what it left behind: batches, log lines, metrics."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

TESTS: Final = Path(__file__).parents[1]
WITHIN_S: Final = 60.0
CLASSIC_CLOCKS: Final[Mapping[str, int]] = {"session.timeout.ms": 3000, "heartbeat.interval.ms": 500}


def wait_until(holds: Callable[[], Any], what: str, within_s: float = WITHIN_S) -> Any:
    """Poll until `holds` gives something true, and give that; fails by name when it never does."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {within_s:.0f} s: {what}")


class WorkerProcess:
    """One `forebay-consumer run`. A context manager; leaving it ends the process, by force if need be.

    Args:
        folder: for its configuration, log and journal.
        settings: over the defaults for tests: the scripted model, short clocks, a free metrics port.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], name: str = "worker") -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.journal = folder / f"{name}.journal"
        self._config = folder / f"{name}.yaml"
        defaults = _defaults(self.journal)
        if "task" in settings.get("model", {}):
            del defaults["model"]
        merged = _merge(defaults, settings)
        queue = merged.get("delivery", {}).get("mode") == "queue"
        if queue or merged["kafka"].get("group.protocol") == "consumer":  # there the broker sets the clocks
            merged["kafka"] = {key: value for key, value in merged["kafka"].items() if key not in CLASSIC_CLOCKS}
        self._config.write_text(yaml.safe_dump(merged))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start; returns at once."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "forebay_consumer", "run", "--config", str(self._config)],
                stdout=log,
                stderr=log,
                cwd=TESTS,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if error is not None:
            print(f"--- {self.name}\n{self.log.read_text()[-6000:]}")

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self, within_s: float = WITHIN_S) -> int:
        """SIGTERM, and its exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(within_s)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def lines(self, action: str | None = None) -> list[dict[str, Any]]:
        """Log lines, all or those of one action."""
        found = []
        for line in self.log.read_text().splitlines():
            if line.startswith("{"):
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:  # the last line may be half written
                    continue
                if action is None or entry.get("action") == action:
                    found.append(entry)
        return found

    def wait_serving(self) -> Self:
        """Block until partitions are assigned."""
        wait_until(lambda: self._check_alive() and self._has_partitions(), f"{self.name} has partitions")
        return self

    def _has_partitions(self) -> bool:
        return any(line["partitions"] for line in self.lines("assigned"))  # a first assignment may be of nothing

    def batches(self) -> list[int]:
        """Rows of every batch so far, in order."""
        return [line["rows"] for line in self.lines("batch_done")]

    def passes(self) -> list[dict[str, Any]]:
        """What the scripted model noted of its forward passes, the warm-up's included."""
        return [line for line in self._noted() if "rows" in line]

    def loads(self) -> list[str]:
        return [line["loaded"] for line in self._noted() if "loaded" in line]

    @property
    def port(self) -> int:
        served = wait_until(lambda: self._check_alive() and self.lines("listening"), f"{self.name} listens")
        return int(served[0]["port"])

    def get(self, path: str) -> tuple[int, str]:
        """A page of its port: status and text."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """The value of one metric, 0 when it is not there yet."""
        _, page = self.get("/metrics")
        wanted = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))  # as the client writes them
        series = name + (f"{{{wanted}}}" if wanted else "")
        found = re.search(rf"^{re.escape(series)} (\S+)$", page, re.MULTILINE)
        return float(found.group(1)) if found else 0.0

    def _noted(self) -> list[dict[str, Any]]:
        if not self.journal.exists():
            return []
        return [json.loads(line) for line in self.journal.read_text().splitlines() if line.endswith("}")]

    def _check_alive(self) -> bool:
        if (code := self.process.poll()) is not None:
            raise AssertionError(f"{self.name} ended with {code}:\n{self.log.read_text()[-4000:]}")
        return True


def _defaults(journal: Path) -> dict[str, Any]:
    return {
        "kafka": dict(CLASSIC_CLOCKS),
        "model": {"name": "scripted", "class": "support.scripted:Scripted", "options": {"journal": str(journal)}},
        "metrics": {"host": "127.0.0.1", "port": 0},
        "logging": {"format": "json", "level": "debug"},
    }


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged
