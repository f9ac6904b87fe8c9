"""One place for the error that ends the worker, whichever thread meets it."""

import threading
from collections.abc import Callable

import structlog

from forebay_consumer.errors import FatalError, KafkaFailure
from forebay_consumer.logs import where_raised


class Failure:
    """Keeps the first fatal error. Thread-safe; only the intake thread acts on it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._reported = threading.Event()

    @property
    def happened(self) -> bool:
        return self._error is not None

    @property
    def blameless(self) -> bool:
        """There is an error, and nothing that a record did can have caused it."""
        return isinstance(self._error, KafkaFailure)

    def report(self, error: BaseException) -> None:
        with self._lock:
            if self._error is None:
                self._error = error
        self._reported.set()

    def wait(self, timeout_s: float) -> bool:
        """Block until there is an error, at most `timeout_s`; whether there is one."""
        return self._reported.wait(timeout_s)

    def check(self) -> None:
        """Raise the error on the caller's thread, if there is one."""
        if self._error is not None:
            raise self._error

    def guard(self, run: Callable[[], None], stage: str) -> Callable[[], None]:
        """Wrap a thread's whole life: whatever escapes it ends the worker."""

        def guarded() -> None:
            try:
                run()
            except BaseException as error:
                if error is self._error:  # another thread's, by `check`: it is told already
                    return
                self.report(error)  # first: whatever becomes of the line, the worker ends
                # Only our own words are fit for the log: another exception's may quote a request.
                told = {"error": str(error)} if isinstance(error, FatalError) else {"exception": where_raised(error)}
                structlog.get_logger().error("stage failed", action="stage_failed", stage=stage, **told)

        return guarded
