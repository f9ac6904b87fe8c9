"""What a process and all it started cost: CPU seconds, memory; and who else used the machine meanwhile."""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

import psutil

MODEL_CORE: Final = 0


def driver_core() -> int:
    """Where driver and broker run: beside the model where there are two cores."""
    return (os.cpu_count() or 1) - 1


def pin(core: int | None) -> None:
    """Keep this process, and what it starts from now on, on one core (None: on all); no effect where that cannot be."""
    if hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, range(os.cpu_count() or 1) if core is None else {core})


class Tree:
    """Processes, with all that they started."""

    def __init__(self, *pids: int) -> None:
        self._roots = [psutil.Process(pid) for pid in pids]

    def __iter__(self) -> Iterator[psutil.Process]:
        for root in self._roots:
            with contextlib.suppress(psutil.NoSuchProcess):
                yield from (root, *root.children(recursive=True))

    def cpu_s(self) -> float:
        """User and system time until now, of ended children too."""
        spent = 0.0
        for process in self:
            with contextlib.suppress(psutil.NoSuchProcess):
                spent += sum(process.cpu_times()[:4])
        return spent

    def peak_mb(self) -> float:
        """The sum of each process's highest resident memory until now; shared pages count in each."""
        return sum(_peak_bytes(process) for process in self) / 1e6

    def suspend(self) -> None:
        for process in self:
            process.suspend()

    def resume(self) -> None:
        for process in self:
            process.resume()


def _peak_bytes(process: psutil.Process) -> int:
    try:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    with contextlib.suppress(psutil.NoSuchProcess):
        return int(process.memory_info().rss)
    return 0


class Meter:
    """Measures a tree from `__enter__` to `__exit__`: `wall_s`, `cpu_s`, `peak_mb`, `strangers` (cores others used)."""

    def __init__(self, measured: Tree, ours: Sequence[Tree] = ()) -> None:
        self._measured, self._ours = measured, [*ours, Tree(os.getpid())]
        self.wall_s = self.cpu_s = self.peak_mb = self.strangers = 0.0

    def __enter__(self) -> Self:
        self._before = (time.perf_counter(), self._measured.cpu_s(), _busy_s(), self._own_s())
        return self

    def __exit__(self, *_: object) -> None:
        wall, cpu, busy, own = self._before
        self.cpu_s = self._measured.cpu_s() - cpu
        self.wall_s = time.perf_counter() - wall
        others = _busy_s() - busy - self.cpu_s - (self._own_s() - own)
        self.strangers = max(0.0, others / self.wall_s)
        self.peak_mb = self._measured.peak_mb()

    def _own_s(self) -> float:
        # Children of the driver are the measured tree and the broker: only its own time is counted here.
        return sum(tree.cpu_s() for tree in self._ours[:-1]) + sum(psutil.Process().cpu_times()[:2])


def _busy_s() -> float:
    times: Any = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))
