"""The promise, checked while it runs: no committed offset passes an unanswered record, and commits never go back."""

import threading
from collections.abc import Collection
from types import TracebackType
from typing import Final, Self

from confluent_kafka import KafkaException

from support.pipeline import Pipeline, committed_offsets

LOOK_WITHIN_S: Final = 5.0


class OnlineChecker:
    """A thread that looks again and again. A context manager; `violations` holds what it saw, in words.

    It reads the committed offsets first and *then* reads the reply topic to its end of that moment: every record
    below a committed offset must have been answered by then. While no broker answers it is blind, and looks again.

    Args:
        visible: (partition, offset) of every request, where the log also holds what no consumer is given
            (transaction markers, aborted batches); without it every offset is a request.
    """

    def __init__(self, pipeline: Pipeline, visible: Collection[tuple[int, int]] | None = None) -> None:
        self.violations: list[str] = []
        self.looks = 0
        self.blind = 0
        self._pipeline = pipeline
        self._visible = None if visible is None else frozenset(visible)
        self._reader = pipeline.reader()
        self._highest: dict[int, int] = {}
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

    def assert_kept(self) -> None:
        """Nothing was seen to break the promise, and something was seen."""
        assert self.violations == []
        assert self.looks > 0

    def _run(self) -> None:
        try:
            while not self._ended.wait(0.05):
                try:
                    self._look()
                except KafkaException:
                    self.blind += 1
        except BaseException as error:
            self._error = error

    def _look(self) -> None:
        pipeline = self._pipeline
        committed = committed_offsets(
            pipeline.bootstrap_servers, pipeline.group, pipeline.requests, pipeline.partitions, LOOK_WITHIN_S
        )
        answered = self._reader.sources(below=self._reader.read_to_end())  # what came meanwhile came too late
        for partition, offset in committed.items():
            before = self._highest.get(partition, 0)
            if 0 <= offset < before:
                self.violations.append(f"partition {partition}: commit went back from {before} to {offset}")
            for below in range(before, offset):
                required = self._visible is None or (partition, below) in self._visible
                if required and (partition, below) not in answered:
                    self.violations.append(f"partition {partition}: {offset} is committed, {below} has no reply")
            self._highest[partition] = max(before, offset)
        self.looks += 1
