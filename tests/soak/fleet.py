"""The workers of a soak: started again when they end, unless they shall stay away."""

import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from soak.recorder import Recorder
from soak.requests import EXIT_CODE
from support.worker import WorkerProcess, wait_until

BACK_AFTER_S: Final = 0.5
TURN_S: Final = 0.1
EXTRA: Final = "extra"


class _Slot:
    """One worker's place. `due_s` is when it shall run again, None while it shall not."""

    def __init__(self, worker: WorkerProcess) -> None:
        self.worker = worker
        self.running = False
        self.stopped = False
        self.due_s: float | None = None
        self.why = ""  # the signal that we sent last

    @property
    def name(self) -> str:
        return self.worker.name


class Fleet:
    """A context manager: entering starts the workers, leaving ends whoever is left, by force.

    All methods return at once, except `wait_serving` and `stop`.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], count: int, recorder: Recorder) -> None:
        self._recorder = recorder
        self._lock = threading.RLock()
        self._slots = [_Slot(WorkerProcess(folder, settings, f"worker-{number}")) for number in range(count)]
        self._extra = _Slot(WorkerProcess(folder, settings, EXTRA))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fleet", daemon=True)
        self.exits: list[tuple[str, int, str]] = []

    def kill(self, number: int, back_after_s: float) -> None:
        """SIGKILL, and a new one after that time."""
        with self._lock:
            slot = self._slots[number]
            self._signal(slot, signal.SIGKILL, "kill")
            slot.due_s = time.monotonic() + back_after_s

    def restart(self, number: int) -> None:
        """SIGTERM, and a new one once it has ended."""
        with self._lock:
            self._signal(self._slots[number], signal.SIGTERM, "term")

    def pause(self, number: int) -> None:
        """SIGSTOP."""
        with self._lock:
            slot = self._slots[number]
            if slot.running:
                slot.worker.signal(signal.SIGSTOP)
                slot.stopped = True

    def resume(self, number: int) -> None:
        """SIGCONT; to a worker that is not paused it does nothing."""
        with self._lock:
            slot = self._slots[number]
            if slot.running and slot.stopped:
                slot.worker.signal(signal.SIGCONT)
                slot.stopped = False

    def join(self) -> None:
        """One more worker, if it is not there already."""
        with self._lock:
            self._extra.due_s = time.monotonic()

    def leave(self) -> None:
        """SIGTERM to that one more."""
        with self._lock:
            self._extra.due_s = None
            self._signal(self._extra, signal.SIGTERM, "term")

    def calm(self) -> None:
        """End all faults: nobody is paused, and whoever shall be there comes at once."""
        with self._lock:
            for number, slot in enumerate(self._slots):
                self.resume(number)
                slot.due_s = time.monotonic()
            self.leave()

    def wait_serving(self) -> None:
        """Block until the first workers have partitions. Raises AssertionError with the log of one that ended."""
        for slot in self._slots:
            wait_until(lambda slot=slot: slot.running, f"{slot.name} is started")  # type: ignore[misc]
            slot.worker.wait_serving()

    def stop(self, within_s: float) -> None:
        """SIGTERM to all, and wait for them; whoever does not end in time is killed, and its exit says so."""
        with self._lock:
            for slot in self._all():
                slot.due_s = None
                self._signal(slot, signal.SIGTERM, "term")
        deadline = time.monotonic() + within_s
        while any(slot.running for slot in self._all()) and time.monotonic() < deadline:
            time.sleep(TURN_S)
        with self._lock:
            for slot in self._all():
                if slot.running:
                    self._signal(slot, signal.SIGKILL, f"kill, as it did not end in {within_s:.0f} s")
        while any(slot.running for slot in self._all()):
            time.sleep(TURN_S)

    def __enter__(self) -> Self:
        self._thread.start()
        with self._lock:
            for slot in self._slots:
                slot.due_s = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        for slot in self._all():
            if slot.running:
                slot.worker.kill()

    # ---- the thread

    def _run(self) -> None:
        while not self._ended.wait(TURN_S):
            with self._lock:
                for slot in self._all():
                    self._tend(slot)

    def _tend(self, slot: _Slot) -> None:
        if slot.running and (code := slot.worker.process.poll()) is not None:
            slot.running = slot.stopped = False
            why = slot.why or ("poison" if code == EXIT_CODE else "by itself")
            slot.why = ""
            self.exits.append((slot.name, code, why))
            self._recorder.note("worker ended", name=slot.name, code=code, why=why)
            if slot.due_s is not None:
                slot.due_s = max(slot.due_s, time.monotonic() + BACK_AFTER_S)
        if not slot.running and slot.due_s is not None and slot.due_s <= time.monotonic():
            slot.worker.start()
            slot.running = True
            self._recorder.note("worker started", name=slot.name, pid=slot.worker.process.pid)

    # ---- inside

    def _all(self) -> list[_Slot]:
        return [*self._slots, self._extra]

    def _signal(self, slot: _Slot, number: signal.Signals, why: str) -> None:
        if slot.running and slot.worker.process.poll() is None:
            slot.why = "term, twice" if slot.why.startswith(why) and why == "term" else why
            slot.worker.signal(number)
