"""The promise, checked while it runs: no committed offset passes an unanswered record, and commits never go back."""

import threading
from types import TracebackType
from typing import Self

from support.pipeline import Pipeline, committed_offsets


class OnlineChecker:
    """A thread that looks again and again. A context manager; `violations` holds what it saw, in words.

    It reads the committed offsets first and *then* reads the reply topic to its end of that moment: every record
    below a committed offset must have been answered by then.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.violations: list[str] = []
        self.looks = 0
        self._pipeline = pipeline
        self._reader = pipeline.reader()
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="checker")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._reader.close()
        if self._error is not None and error is None:
            raise self._error

    def _run(self) -> None:
        try:
            highest: dict[int, int] = {}
            while not self._ended.wait(0.05):
                highest = self._look(highest)
        except BaseException as error:
            self._error = error

    def _look(self, highest: dict[int, int]) -> dict[int, int]:
        pipeline = self._pipeline
        committed = committed_offsets(
            pipeline.bootstrap_servers, pipeline.group, pipeline.requests, pipeline.partitions
        )
        self._reader.read_to_end()
        answered = self._reader.sources()
        for partition, offset in committed.items():
            if offset < (before := highest.get(partition, offset)):
                self.violations.append(f"partition {partition}: commit went back from {before} to {offset}")
            for unanswered in (below for below in range(offset) if (partition, below) not in answered):
                self.violations.append(f"partition {partition}: {offset} is committed, {unanswered} has no reply")
        self.looks += 1
        return {partition: max(offset, highest.get(partition, offset)) for partition, offset in committed.items()}
