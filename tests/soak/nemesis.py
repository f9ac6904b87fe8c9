"""The thread that carries out a schedule of faults, and takes each back in time."""

import heapq
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from types import TracebackType
from typing import Final, Self

from forebay_local.broker import Broker
from soak import requests
from soak.fleet import Fleet
from soak.load import Load
from soak.recorder import Recorder
from soak.schedule import (
    BROKER_KILL,
    BROKER_STOP,
    CUT,
    DEAF,
    KILL,
    OVERSIZE,
    POISON,
    REBALANCE,
    REFUSE,
    RESET,
    RESTART,
    SLOW,
    STOP,
    SWALLOW,
    Fault,
)
from support.proxy import Proxy

OVERSIZE_BURST: Final = 3
SLOW_S: Final = 0.3


class Nemesis:
    """A context manager: entering starts the schedule, leaving gives it up where it is. `calm` takes all faults back.

    Faults of workers, network and broker overlap as the schedule has it; a second one of the broker, or of the
    network, while the first lasts is left out, and noted.
    """

    def __init__(
        self, faults: Sequence[Fault], broker: Broker, proxy: Proxy, fleet: Fleet, load: Load, recorder: Recorder
    ) -> None:
        self._broker = broker
        self._proxy = proxy
        self._fleet = fleet
        self._load = load
        self._recorder = recorder
        self._numbers = count()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        for fault in faults:
            self._at(fault.at_s, partial(self._begin, fault))
        self._busy: dict[str, Callable[[], None]] = {}  # what is broken, and how it is taken back
        self._backs: list[threading.Thread] = []
        self._began = 0.0
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="nemesis", daemon=True)

    def check(self) -> None:
        """Raise what ended the thread, if anything did: the broker that did not come back."""
        if self._error is not None:
            raise self._error

    def calm(self) -> None:
        """Give up the rest of the schedule, and take back what lasts. Blocks until the broker answers."""
        self._stop()
        self.check()
        for what in list(self._busy):
            self._take_back(what)
        self._stop()
        self.check()
        self._fleet.calm()
        self._recorder.note("calm")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        self._ended.set()
        self._thread.join()
        for thread in self._backs:
            thread.join()

    # ---- the thread

    def _run(self) -> None:
        self._began = time.monotonic()
        try:
            while self._agenda:
                at_s, _, step = heapq.heappop(self._agenda)
                if self._ended.wait(max(0.0, self._began + at_s - time.monotonic())):
                    return
                step()
        except BaseException as error:
            self._error = error

    def _at(self, at_s: float, step: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (at_s, next(self._numbers), step))

    def _begin(self, fault: Fault) -> None:
        worker, fleet, broker = fault.worker, self._fleet, self._broker
        if fault.kind in (BROKER_KILL, BROKER_STOP):
            what = "broker"
        elif fault.kind == STOP:
            what = f"worker {worker}"
        else:
            what = fault.kind
        if what in self._busy:
            self._recorder.note(f"left out: {fault.text().strip()}")
            return
        self._recorder.note(f"fault: {fault.text().strip()}")
        lasting: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
            STOP: (partial(fleet.pause, worker), partial(fleet.resume, worker)),
            REBALANCE: (fleet.join, fleet.leave),
            BROKER_KILL: (broker.kill, broker.start),
            BROKER_STOP: (broker.pause, broker.resume),
            CUT: (partial(self._cut, fault.variant), self._proxy.heal),
        }
        at_once: dict[str, Callable[[], None]] = {
            KILL: partial(fleet.kill, worker, fault.lasts_s),
            RESTART: partial(fleet.restart, worker),
            POISON: partial(self._load.ask, [requests.poison(self._id(POISON))]),
            OVERSIZE: partial(self._load.ask, [requests.oversize(self._id(OVERSIZE)) for _ in range(OVERSIZE_BURST)]),
        }
        if fault.kind in at_once:
            at_once[fault.kind]()
            return
        begin, back = lasting[fault.kind]
        self._busy[what] = back
        begin()
        self._at(time.monotonic() - self._began + fault.lasts_s, partial(self._take_back, what))

    def _take_back(self, what: str) -> None:
        """In a thread of its own: the broker needs seconds to start, and other faults do not wait for it."""

        def run() -> None:
            try:
                self._busy[what]()
                self._recorder.note(f"{what} is back")
                del self._busy[what]
            except BaseException as error:
                self._error = error

        thread = threading.Thread(target=run, name=f"{what} is back")
        thread.start()
        self._backs.append(thread)

    def _cut(self, way: str) -> None:
        ways: dict[str, Callable[[], None]] = {
            REFUSE: self._proxy.cut,
            SWALLOW: self._proxy.black_hole,
            DEAF: self._proxy.lose_answers,
            SLOW: partial(self._proxy.delay, SLOW_S),
            RESET: self._proxy.reset,
        }
        ways[way]()

    def _id(self, kind: str) -> str:
        return f"{kind}-{next(self._numbers)}"
