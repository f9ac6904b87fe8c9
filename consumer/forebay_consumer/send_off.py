"""When the producer is told to send what it keeps for company. Pure.

Its linger is long, so that under load batches are large and its thread sleeps; with nothing more to send at hand, a
flush takes the linger's place. One flush at a time is on its way, and what is written meanwhile goes with the next. But
a flush need not have been seen: on a busy core the client's thread may come too late for it. So after a while without a
report it is repeated, ever more seldom.
"""

from collections.abc import Container, Hashable
from typing import Final

from forebay_consumer.clock import Clock, monotonic

FIRST_PAUSE_S: Final = 0.002
LONGEST_PAUSE_S: Final = 0.05


class SendOff:
    """Not thread-safe."""

    def __init__(self, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._newest: Hashable = None
        self._sent: Hashable = None  # the newest at the last flush
        self._again_at = 0.0
        self._pause_s = FIRST_PAUSE_S

    def produced(self, message: Hashable) -> None:
        self._newest = message

    def due(self, unconfirmed: Container[Hashable]) -> bool:
        """Whether to flush now; whoever gets True does so."""
        if self._newest not in unconfirmed:
            return False
        now = self._clock()
        if self._sent not in unconfirmed:
            self._pause_s = FIRST_PAUSE_S
        elif now < self._again_at:
            return False
        else:
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._sent = self._newest
        self._again_at = now + self._pause_s
        return True
