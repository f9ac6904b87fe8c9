"""What a contender is to the driver: a process to start, a way to ask it, and how to read its answers."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import orjson
import psutil

from bench.measure import MODEL_CORE, Tree, driver_core, pin
from bench.peers.venvs import NotInstalled, python_of

ROOT: Final = Path(__file__).parents[2]
BATCH: Final[Mapping[str, int]] = {"T1": 32, "T2": 8, "T3": 256}
"""Rows in a batch, for all: 8 pictures are the best number on a CPU, 32 is what the sources and most users take, and
256 small requests cost a model hardly more than one."""
WINDOW_MS: Final = 5.0
"""How long a batch waits for company, for all."""


@dataclass(frozen=True)
class Job:
    """What a contender serves, and where; its program reads it from the environment variable BENCH_JOB."""

    load: str
    path: str
    dtype: str
    batch: int
    window_ms: float
    servers: str
    requests: str
    replies: str
    port: int
    folder: str

    def environment(self) -> dict[str, str]:
        known = {
            "BENCH_JOB": json.dumps(asdict(self)),
            "PYTHONPATH": str(ROOT),
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            "TOKENIZERS_PARALLELISM": "false",
        }
        # One thread for all: neither torch nor numpy may spread over cores that others are measured on.
        return {**os.environ, **known, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Peer(ABC):
    """A contender. `by_kafka` ones read and write topics, the others answer HTTP POSTs at `url_path`."""

    name: ClassVar[str]
    what: ClassVar[str]
    by_kafka: ClassVar[bool] = True
    requirements: ClassVar[str | None] = None
    url_path: ClassVar[str] = "/"
    backlog: ClassVar[int | None] = None
    """Most requests that it is given at once; None is no bound."""

    def takes(self, load: str, dtype: str) -> bool:  # noqa: ARG002 - most take all
        """Whether it is to be measured with them."""
        return True

    def not_here(self) -> str | None:
        """Why measuring it on this machine would tell nothing; None where it does."""
        return None

    def computes_in(self, dtype: str) -> str:
        """The precision that its answers are held to, where `dtype` is asked of all."""
        return dtype

    def python(self) -> Path:
        """The interpreter to run its program with.

        Raises:
            NotInstalled: it, or something that it needs, cannot be had here.
        """
        return Path(sys.executable) if self.requirements is None else python_of(self.requirements)

    @abstractmethod
    def commands(self, job: Job) -> Sequence[Sequence[str]]:
        """The programs to start; may write files into `job.folder`."""

    def services(self, job: Job) -> Sequence[Sequence[str]]:  # noqa: ARG002 - most need none
        """Programs that it needs beside it; like the broker they are not measured."""
        return ()

    def body(self, request_id: str, row: Any) -> bytes:
        """The request for one row: an image as it is, anything else in JSON."""
        return row if isinstance(row, bytes) else orjson.dumps({"id": request_id, "inputs": [row]})

    def headers(self) -> Sequence[tuple[str, bytes]]:
        return ()

    def answer(self, load: str, body: bytes) -> Any:  # noqa: ARG002 - for those whose replies know no objects
        """The answer to a request's row.

        Raises:
            ValueError: it is an error.
        """
        reply = orjson.loads(body)
        if "outputs" not in reply:
            raise ValueError(f"{self.name} answered {body[:200]!r}")
        return reply["outputs"][0]


class ProgramPeer(Peer):
    """A contender whose program is a module of `bench.peers.programs`."""

    program: ClassVar[str]
    arguments: ClassVar[Sequence[str]] = ()

    def commands(self, job: Job) -> Sequence[Sequence[str]]:  # noqa: ARG002 - the program reads the job itself
        return [[str(self.python()), "-m", f"bench.peers.programs.{self.program}", *self.arguments]]


class V2Peer(Peer):
    """Speaks the Open Inference Protocol: a tensor of one row in, one out."""

    def body(self, request_id: str, row: Any) -> bytes:
        if isinstance(row, list):
            tensor = {"name": "rows", "shape": [1, len(row)], "datatype": "FP32", "data": row}
        else:
            value = base64.b64encode(row).decode() if isinstance(row, bytes) else row
            tensor = {"name": "rows", "shape": [1, 1], "datatype": "BYTES", "data": [value]}
        return orjson.dumps({"id": request_id, "inputs": [tensor]})

    def answer(self, load: str, body: bytes) -> Any:
        reply = orjson.loads(body)
        if not reply.get("outputs"):
            raise ValueError(f"{self.name} answered {body[:200]!r}")
        values = reply["outputs"][0]["data"]
        return {"label": f"LABEL_{round(values[0])}", "score": values[1]} if load == "T2" else values


@contextmanager
def started(peer: Peer, job: Job, cores: Sequence[int | None] = (MODEL_CORE,)) -> Iterator[Tree]:
    """The peer's processes, each with all that it starts on a core of its own; ended on leaving. Not yet ready.

    Raises:
        NotInstalled: it cannot be had here.
    """
    commands = [(core, command) for core, command in zip(cores, peer.commands(job), strict=True)]
    services = [(driver_core(), command) for command in peer.services(job)]
    processes: list[subprocess.Popen[bytes]] = []
    with (Path(job.folder) / "log.txt").open("ab") as log:
        try:
            for core, command in [*services, *commands]:
                processes.append(
                    subprocess.Popen(
                        command, stdout=log, stderr=log, cwd=job.folder, env=job.environment(),
                        start_new_session=True, preexec_fn=partial(pin, core),
                    )
                )  # fmt: skip
            yield Tree(*(process.pid for process in processes[len(services) :]))
        finally:
            for process in reversed(processes):
                _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(children, timeout=3)
    for child in alive:
        child.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


__all__ = ["BATCH", "WINDOW_MS", "Job", "NotInstalled", "Peer", "ProgramPeer", "V2Peer", "free_port", "started"]
