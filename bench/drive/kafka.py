"""Asks over Kafka: a closed loop, or a backlog that waits when the contender is let go."""

import time
from typing import Any, Final

from confluent_kafka import Consumer, Producer, TopicPartition

from bench.drive.sample import NotAnswered, Plan, Tally, Work
from bench.measure import Meter, Tree
from bench.peers.base import Job, Peer

READY_WITHIN_S: Final = 120.0
BACKLOG_WITHIN_S: Final = 240.0


class KafkaDriver:
    """One topic to write, one to read. Not thread-safe; a context manager."""

    def __init__(self, peer: Peer, job: Job, work: Work, partitions: int = 1) -> None:
        self._peer, self.job, self._work = peer, job, work
        self._headers = list(peer.headers())
        self._producer: Any = Producer({"bootstrap.servers": job.servers, "linger.ms": 0, "log_level": 4})
        self._consumer: Any = Consumer({"bootstrap.servers": job.servers, "group.id": "driver"})
        self._replies = [TopicPartition(job.replies, number, 0) for number in range(partitions)]
        self._consumer.assign(self._replies)

    def __enter__(self) -> "KafkaDriver":
        return self

    def __exit__(self, *_: object) -> None:
        self._producer.flush(5)
        self._consumer.close()

    def wait_ready(self) -> None:
        """Ask one request a second until one is answered.

        Raises:
            NotAnswered: none was within two minutes.
        """
        tally = self._tally()
        deadline, ask_at = time.monotonic() + READY_WITHIN_S, 0.0
        while time.monotonic() < deadline:
            if time.monotonic() >= ask_at:
                self._send(tally)
                ask_at = time.monotonic() + 1.0
            if self._read(tally, 0.1):
                return
        raise NotAnswered(f"not ready within {READY_WITHIN_S:.0f} s")

    def closed(self, plan: Plan) -> Tally:
        """Keep `in_flight` requests under way.

        Raises:
            NotAnswered: one was not, or wrongly.
        """
        tally, started = self._tally(), time.perf_counter()
        for _ in range(min(plan.in_flight, plan.count)):
            self._send(tally)
        answered_at = time.perf_counter()
        while tally.waiting:
            now = time.perf_counter()
            if self._read(tally, 0.05):
                answered_at = now
                if tally.sent < plan.count and now - started < plan.for_s:
                    self._send(tally)
            elif now - answered_at > plan.within_s:
                raise NotAnswered(
                    f"{len(tally.waiting)} of {tally.sent} requests not answered within {plan.within_s:.0f} s"
                )
        return tally

    def fill(self, count: int) -> Tally:
        """Write a backlog; returns when the broker has it."""
        tally = self._tally()
        for _ in range(count):
            self._send(tally)
        if self._producer.flush(120):
            raise NotAnswered("the broker did not take the backlog")
        return tally

    def fill_unanswered(self, count: int) -> None:
        """Write more requests, whose answers nobody waits for."""
        value = self._peer.body("unanswered", self._work.rows[0])
        for _ in range(count):
            self._produce(b"unanswered", value)
        self._producer.flush(120)

    def drain(self, tally: Tally, within_s: float = BACKLOG_WITHIN_S, left: int = 0) -> None:
        """Read until all are answered, but for `left`.

        Raises:
            NotAnswered: they are not, in time.
        """
        deadline = time.monotonic() + within_s
        while len(tally.waiting) > left:
            for message in self._consumer.consume(2_000, 0.02):
                self._take(tally, message)
            if time.monotonic() > deadline:
                raise NotAnswered(f"{len(tally.waiting)} of {tally.sent} not answered within {within_s:.0f} s")

    def replied(self) -> int:
        """How many replies there are, whoever asked."""
        return sum(self._consumer.get_watermark_offsets(each, timeout=10)[1] for each in self._replies)

    def backlog(self, count: int, tree: Tree, meter: Meter) -> Tally:
        """Write `count` requests while the contender is stopped; measured is from then to the last answer."""
        tree.suspend()
        try:
            tally = self.fill(count)
        except BaseException:
            tree.resume()
            raise
        with meter:
            tree.resume()
            self.drain(tally)
        return tally

    def _tally(self) -> Tally:
        return Tally(self._work, self._peer.answer)

    def _send(self, tally: Tally) -> None:
        request_id, row = tally.ask()
        self._produce(request_id.encode(), self._peer.body(request_id, row))

    def _produce(self, key: bytes, value: bytes) -> None:
        while True:
            try:
                self._producer.produce(self.job.requests, value, key, headers=self._headers)
                self._producer.poll(0)
                return
            except BufferError:
                self._producer.poll(0.05)

    def _read(self, tally: Tally, within_s: float) -> bool:
        message = self._consumer.poll(within_s)
        return message is not None and self._take(tally, message)

    def _take(self, tally: Tally, message: Any) -> bool:
        if message.error() is not None:
            return False
        return tally.take((message.key() or b"").decode(), message.value())
