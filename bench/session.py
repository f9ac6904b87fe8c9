"""One run of the benchmark: a broker, a folder, topics, and the rows that were found."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import psutil

from bench.checkpoints import checkpoint
from bench.drive.http import HttpDriver
from bench.drive.kafka import KafkaDriver
from bench.drive.sample import NotAnswered, Plan, Tally, Work, checked_rows
from bench.figures import percentile
from bench.load import rows_of
from bench.measure import MODEL_CORE, Meter, Tree, driver_core, pin
from bench.peers.base import BATCH, ROOT, WINDOW_MS, Job, NotInstalled, Peer, free_port, started
from bench.peers.consumers import Batch
from forebay_local.broker import Broker
from forebay_local.topics import create_topics, delete_topics

RESULTS: Final = ROOT / "bench" / "results"
ROWS: Final[Mapping[str, int]] = {"T1": 384, "T2": 64, "T3": 1024}
COUNTS: Final[Mapping[str, Mapping[int, int]]] = {
    "T1": {1: 64, 16: 192, 64: 384},
    "T2": {1: 48, 16: 128, 64: 256},
    "T3": {1: 1_000, 16: 8_000, 64: 16_000},
}
"""Requests of a closed loop, by requests in flight; all the same for every contender but in T3, where time ends it."""
BACKLOGS: Final[Mapping[str, int]] = {"T1": 384, "T2": 256, "T3": 60_000}
FOR_S: Final[Mapping[str, float]] = {"T1": 90.0, "T2": 60.0, "T3": 8.0}
WARM_S: Final = 20.0
"""A broker that began just now answers several times more slowly than one that its machine code has been made for."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How much is measured: `scale` shortens every loop."""

    scale: float = 1.0

    def of(self, count: int) -> int:
        return max(16, round(count * self.scale))

    def plan(self, load: str, in_flight: int) -> Plan:
        count = max(in_flight, self.of(COUNTS[load][in_flight]))
        return Plan(in_flight, count, FOR_S[load] * self.scale)

    def backlog(self, load: str, most: int | None) -> int:
        return self.of(min(BACKLOGS[load], most or BACKLOGS[load]))

    def rows(self, load: str) -> int:
        return self.of(ROWS[load])


def _nice(pids: Sequence[int], value: int) -> None:
    """Of all threads, each of which has its own on Linux."""
    for pid in pids:
        for thread in psutil.Process(pid).threads():
            with contextlib.suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, thread.id, value)


class Session:
    """A context manager. Not thread-safe."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.rows: list[Row] = []
        self._broker = Broker(heap_mb=1024)
        self._folder = tempfile.TemporaryDirectory(prefix="forebay-bench-")
        self._expected: dict[tuple[str, str, int], dict[int, list[float]]] = {}
        self._runs = 0

    def __enter__(self) -> Self:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started must end with us
        pin(driver_core())
        self._broker.start()
        self._warm_broker()
        return self

    def __exit__(self, *_: object) -> None:
        self._broker.stop()
        self._folder.cleanup()

    def _warm_broker(self) -> None:
        """By another's worker, that none of ours profits alone."""
        with self.asked(Batch(), self.work("T3", "float32")) as (driver, _):
            driver.closed(Plan(64, sys.maxsize, WARM_S))

    @property
    def servers(self) -> str:
        return self._broker.bootstrap_servers

    def work(self, load: str, dtype: str, count: int | None = None) -> Work:
        """The rows of a load, and what the model says to some of them; `T1:all short` names a mix of lengths."""
        kind = load.partition(":")[0]
        count = self.size.rows(kind) if count is None else count
        known = (load, dtype, count)
        if known not in self._expected:
            places = ",".join(map(str, checked_rows(count)))
            told = child("bench.limits", "expected", load, dtype, str(count), places)
            self._expected[known] = {int(place): values for place, values in told.items()}
        return Work(kind, dtype, rows_of(load, count), self._expected[known])

    @contextmanager
    def job(self, load: str, dtype: str, partitions: int = 1) -> Iterator[Job]:
        """A contender's job, with topics and a folder of its own."""
        self._runs += 1
        requests, replies = f"requests-{self._runs}", f"replies-{self._runs}"
        folder = Path(self._folder.name) / str(self._runs)
        folder.mkdir()
        create_topics(self.servers, dict.fromkeys((requests, replies), partitions))
        yield Job(
            load=load, path=checkpoint(load), dtype=dtype, batch=BATCH[load], window_ms=WINDOW_MS,
            servers=self.servers, requests=requests, replies=replies, port=free_port(), folder=str(folder),
        )  # fmt: skip
        delete_topics(self.servers, (requests, replies))

    @contextmanager
    def modest(self) -> Iterator[None]:
        """Broker and driver give way to the contenders, where these have all cores."""
        _nice((self._broker.pid, os.getpid()), 19)
        try:
            yield
        finally:
            with contextlib.suppress(PermissionError):  # only the superuser may take it back
                _nice((self._broker.pid, os.getpid()), 0)

    def meter(self, tree: Tree) -> Meter:
        return Meter(tree, [Tree(self._broker.pid)])

    @contextmanager
    def asked(
        self, peer: Peer, work: Work, partitions: int = 1, cores: Sequence[int | None] = (MODEL_CORE,), **changes: Any
    ) -> Iterator[tuple[KafkaDriver | HttpDriver, Tree]]:
        """A contender that serves, and its driver; `changes` go over its job.

        Raises:
            NotInstalled: it cannot be had here.
            NotAnswered: it is not ready in time; the end of its log is kept among the results.
        """
        with self.job(work.load, work.dtype, partitions) as job:
            job = replace(job, **changes)
            driver = KafkaDriver(peer, job, work, partitions) if peer.by_kafka else HttpDriver(peer, job, work)
            with driver, started(peer, job, cores) as tree:
                try:
                    driver.wait_ready()
                    yield driver, tree
                except NotAnswered:
                    _keep_log(peer, job)
                    raise

    def measure(self, peer: Peer, load: str, dtype: str, closed: Sequence[int], common: Row) -> None:
        """One contender with one load: its rows, or one row that says why there are none."""
        about = {**common, "peer": peer.name, "load": load, "dtype": dtype}
        try:
            with self.asked(peer, self.work(load, peer.computes_in(dtype))) as (driver, tree):
                driver.closed(Plan(16, 64 if load == "T3" else 16))  # warm
                for in_flight in closed:
                    found = self.closed(driver, tree, self.size.plan(load, in_flight))
                    self.rows.append({**about, "mode": f"closed {in_flight}", **found})
                if isinstance(driver, KafkaDriver):
                    found = self.backlog(driver, tree, self.size.backlog(load, peer.backlog))
                    self.rows.append({**about, "mode": "backlog", **found})
        except NotInstalled as error:
            self.rows.append({**about, "not_measured": str(error)})
        except NotAnswered as error:
            self.rows.append({**about, "failed": str(error)})

    def closed(self, driver: KafkaDriver | HttpDriver, tree: Tree, plan: Plan) -> Row:
        with self.meter(tree) as meter:
            tally = driver.closed(plan)
        return figures(tally, meter)

    def backlog(self, driver: KafkaDriver | HttpDriver, tree: Tree, count: int) -> Row:
        assert isinstance(driver, KafkaDriver), "a backlog is Kafka's"
        meter = self.meter(tree)
        return figures(driver.backlog(count, tree, meter), meter)

    def limits(self, load: str, dtype: str, common: Row, count: int | None = None) -> list[Row]:
        """The model alone, in its loops."""
        kind = load.partition(":")[0]
        count = count or (self.size.rows(kind) if kind != "T3" else 64 * self.size.rows(kind))
        found = child("bench.limits", "loops", load, dtype, str(count))
        return [{**common, "load": kind, "dtype": dtype, "mode": "loop", **row} for row in found]

    def kafka_alone(self, peer: Peer, common: Row) -> None:
        """The backlog of T3 through a bare loop."""
        count = self.size.backlog("T3", None)
        work = self.work("T3", "float32")
        with self.job("T3", "float32") as job, KafkaDriver(peer, job, work) as driver:
            driver.fill(count)
            for mode, what in (("copy", "Kafka alone, bytes copied"), ("orjson", "Kafka alone, with orjson")):
                replies = f"{job.replies}-{mode}"
                create_topics(self.servers, {replies: 1, f"{replies}-first": 1})
                found = child("bench.kafka_alone", self.servers, job.requests, replies, str(count), mode)
                about = {**common, "load": "T3", "dtype": "float32", "mode": "backlog", "peer": what}
                self.rows.append({**about, **found})
                delete_topics(self.servers, [replies, f"{replies}-first"])


def figures(tally: Tally, meter: Meter) -> Row:
    """What a run comes to; `strangers` is how many cores others kept busy meanwhile."""
    count = len(tally.latencies_s)
    shares = {f"p{share}_ms": 1000 * percentile(tally.latencies_s, share / 100) for share in (50, 95, 99)}
    return {
        "count": count,
        "checked": tally.checked,
        "per_s": count / meter.wall_s,
        "cpu_ms": 1000 * meter.cpu_s / count,
        "peak_mb": meter.peak_mb,
        "strangers": meter.strangers,
        **shares,
    }


def child(module: str, *arguments: str) -> Any:
    """Run a loop in a process of its own; what it printed, from JSON."""
    environment = Job("", "", "", 0, 0, "", "", "", 0, "").environment()
    told = subprocess.run(
        [sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, check=True, cwd=ROOT, env=environment
    )
    return json.loads(told.stdout)


def _keep_log(peer: Peer, job: Job) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    end = (Path(job.folder) / "log.txt").read_bytes()[-20_000:]
    (RESULTS / f"{peer.name}-{job.load}.log").write_bytes(end)
