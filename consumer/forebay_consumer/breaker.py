"""Stops the worker when nearly everything fails in the model. Pure, but for a lock.

Weights that are gone, or a device that is lost, fail every request: without a breaker the worker would empty the
topic into the dead letters. What the requests themselves are to blame for (not decodable, too large, expired) is not
counted.
"""

from collections import deque
from collections.abc import Sequence
from itertools import repeat
from threading import Lock
from typing import Final

from forebay_consumer.errors import FatalError
from forebay_consumer.record import Fault, Outcome
from forebay_schemas import Code

COUNTED: Final = frozenset({Code.MODEL_ERROR, Code.OUT_OF_MEMORY, Code.INTERNAL})


class ModelFails(FatalError):
    """Nearly all recent requests failed in the model."""


class Breaker:
    """Thread-safe. Watches the last `window` outcomes of one copy's passes.

    Args:
        share: of them that may fail, 0 to 1; more stops the worker. 1 never does.
    """

    def __init__(self, window: int, share: float) -> None:
        self._share = share
        self._lock = Lock()
        self._failed: deque[bool] = deque(maxlen=window)
        self._window = window
        self._failures = 0

    def check(self, outcomes: Sequence[Outcome]) -> None:
        """Note the outcomes of one batch, before any of them is published.

        Raises:
            ModelFails: the window is full, and more than the share of it failed. None of these may be published.
        """
        with self._lock:
            if not self._failures and Fault not in set(map(type, outcomes)):  # nearly always: nothing to count
                self._failed.extend(repeat(False, min(len(outcomes), self._window - len(self._failed))))
                return
            for outcome in outcomes:
                failed = isinstance(outcome, Fault)
                if isinstance(outcome, Fault) and outcome.code not in COUNTED:
                    continue
                if len(self._failed) == self._window:
                    self._failures -= self._failed[0]
                self._failed.append(failed)
                self._failures += failed
            if len(self._failed) == self._window and self._failures > self._share * self._window:
                raise ModelFails(
                    f"{self._failures} of the last {self._window} requests failed in the model, more than "
                    f"retry.breaker_share={self._share} allows; nothing more is answered or committed: look at the "
                    "model, or raise the share"
                )
