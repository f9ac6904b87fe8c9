"""Asks over HTTP: as many threads as requests in flight, each with a connection that it keeps."""

import http.client
import threading
import time
from typing import Final

from bench.drive.sample import NotAnswered, Plan, Tally, Work
from bench.peers.base import Job, Peer

READY_WITHIN_S: Final = 120.0


class HttpDriver:
    """A context manager like `KafkaDriver`; there is no backlog over HTTP."""

    def __init__(self, peer: Peer, job: Job, work: Work) -> None:
        self._peer, self.job, self._work = peer, job, work

    def __enter__(self) -> "HttpDriver":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait_ready(self) -> None:
        """Ask until one request is answered.

        Raises:
            NotAnswered: none was within two minutes.
        """
        deadline = time.monotonic() + READY_WITHIN_S
        said = "no connection"
        while time.monotonic() < deadline:
            connection = http.client.HTTPConnection("127.0.0.1", self.job.port, timeout=30)
            try:
                tally = Tally(self._work, self._peer.answer)
                self._ask(connection, tally, threading.Lock())
                return
            except (OSError, http.client.HTTPException, NotAnswered) as error:
                said = str(error) or type(error).__name__
                time.sleep(0.3)
            finally:
                connection.close()
        raise NotAnswered(f"not ready within {READY_WITHIN_S:.0f} s: {said}")

    def closed(self, plan: Plan) -> Tally:
        """Keep `in_flight` requests under way.

        Raises:
            NotAnswered: one was not, or wrongly.
        """
        tally, lock = Tally(self._work, self._peer.answer), threading.Lock()
        until, failed = time.perf_counter() + plan.for_s, list[Exception]()

        def loop() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self.job.port, timeout=plan.within_s)
            try:
                while tally.sent < plan.count and time.perf_counter() < until and not failed:
                    self._ask(connection, tally, lock)
            except (OSError, http.client.HTTPException, NotAnswered) as error:
                failed.append(error)
            finally:
                connection.close()

        threads = [threading.Thread(target=loop, daemon=True) for _ in range(min(plan.in_flight, plan.count))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            answered = len(tally.latencies_s)
            raise NotAnswered(f"{answered} of {tally.sent} requests answered: {str(failed[0]) or type(failed[0])}")
        return tally

    def _ask(self, connection: http.client.HTTPConnection, tally: Tally, lock: threading.Lock) -> None:
        with lock:
            request_id, row = tally.ask()
        body = self._peer.body(request_id, row)
        connection.request("POST", self._peer.url_path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        told = response.read()
        if response.status != http.client.OK:
            raise NotAnswered(f"HTTP {response.status}: {told[:150]!r}")
        with lock:
            tally.take(request_id, told)
