"""The thread that writes requests, in waves, and records what became of each."""

import random
import threading
import time
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import KafkaError, Message, Producer

from soak.history import Acked, Refused, Unknown
from soak.recorder import Recorder
from soak.requests import Request, ordinary

TICK_S: Final = 0.02
MOST_UNREPORTED: Final = 2_000  # while the broker is away the load waits, and the backlog stays bounded
GIVE_UP_MS: Final = 8_000  # shorter than some outages, so that some ends stay unknown
WAVES: Final = (0.0, 0.3, 1.0, 1.0, 1.0, 3.0)  # of the rate, each for some seconds
_NEVER_WRITTEN: Final = frozenset([KafkaError.MSG_SIZE_TOO_LARGE, KafkaError._QUEUE_FULL])


class Load:
    """A context manager; leaving it stops the thread once the fate of every request is known.

    The client is not idempotent, as plain clients are not: what it repeats may be in the log twice.
    """

    def __init__(
        self, bootstrap_servers: str, topic: str, partitions: int, rate: float, seed: int, recorder: Recorder
    ) -> None:
        self._topic = topic
        self._partitions = partitions
        self._rate = rate
        self._prefix = f"s{seed}"
        self._chance = random.Random(seed)
        self._recorder = recorder
        self._asked: SimpleQueue[Request] = SimpleQueue()
        self._ended = threading.Event()
        self._unreported = 0
        self._count = 0
        self._producer: Any = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "linger.ms": 5,
                "acks": "all",
                "message.timeout.ms": GIVE_UP_MS,
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def ask(self, requests: Sequence[Request]) -> None:
        """Have these written soon, among the others. From any thread."""
        for request in requests:
            self._asked.put(request)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Again has no effect."""
        self._ended.set()
        self._thread.join()

    # ---- the thread

    def _run(self) -> None:
        due = 0.0
        wave, wave_until = 1.0, 0.0
        before = time.monotonic()
        while not self._ended.is_set():
            now = time.monotonic()
            if now > wave_until:
                wave, wave_until = self._chance.choice(WAVES), now + self._chance.uniform(1, 4)
            due = min(due + (now - before) * self._rate * wave, self._rate)  # after a stall, no flood
            before = now
            while due >= 1 and self._unreported < MOST_UNREPORTED:
                due -= 1
                self._count += 1
                self._send(ordinary(self._chance, f"{self._prefix}-{self._count}"))
            self._send_asked()
            self._producer.poll(TICK_S)
        self._send_asked()
        while len(self._producer):  # ends: every message is delivered or given up
            self._producer.flush(1)

    def _send_asked(self) -> None:
        while True:
            try:
                self._send(self._asked.get_nowait())
            except Empty:
                return

    def _send(self, request: Request) -> None:
        id_ = request.sent.id

        def report(error: Any, message: Message) -> None:
            self._unreported -= 1
            if error is None:
                self._recorder.take(Acked(id_, (message.partition() or 0, message.offset() or 0)))
            elif error.code() in _NEVER_WRITTEN:
                self._recorder.take(Refused(id_))
            else:
                self._recorder.take(Unknown(id_))

        self._recorder.take(request.sent)
        self._unreported += 1
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    value=request.value,
                    key=request.key,
                    headers=request.headers,
                    partition=self._chance.randrange(self._partitions),
                    on_delivery=report,
                )
            except BufferError:
                self._producer.poll(0.05)
            else:
                return
