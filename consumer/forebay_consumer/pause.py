"""A wait that does not outlast the worker."""

from typing import Final

from forebay_consumer.clock import Clock, monotonic
from forebay_consumer.failure import Failure
from forebay_consumer.shutdown import Shutdown

SLICE_S: Final = 0.05  # how soon a wait sees that the worker is to drain


class Pause:
    """Waits on an instance's thread between two tries of a pass.

    A draining worker waits no more: what is left of its tries follows at once, so that it ends in time. When the worker
    fails, the wait ends and raises what it failed of.
    """

    def __init__(self, failure: Failure, shutdown: Shutdown, clock: Clock = monotonic) -> None:
        self._failure = failure
        self._shutdown = shutdown
        self._clock = clock

    def __call__(self, seconds: float) -> None:
        until = self._clock() + seconds
        while not self._shutdown.asked and (left := until - self._clock()) > 0:
            if self._failure.wait(min(left, SLICE_S)):
                break
        self._failure.check()
