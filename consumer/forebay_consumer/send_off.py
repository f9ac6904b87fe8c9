"""When the producer is told to send what it keeps for company. Pure.

Its linger is long, so that under load batches are large and its thread sleeps; with nothing more to send at hand, a
flush takes the linger's place. One flush at a time is on its way, and what is written meanwhile goes with the next. But
a flush need not have been seen: on a busy core the client's threads, one a broker, may come too late for it. So after a
while without a report, longer than reports take as a rule, it is repeated, ever more seldom.
"""

from collections.abc import Hashable, Mapping
from typing import Any, Final

from forebay_consumer.clock import Clock, monotonic

FIRST_PAUSE_S: Final = 0.002
LONGEST_PAUSE_S: Final = 0.05


class SendOff:
    """Not thread-safe."""

    def __init__(self, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._sent: Hashable = None  # the newest at the last flush that followed a report
        self._sent_at = 0.0
        self._again_at = 0.0
        self._pause_s = 0.0
        self._usual_s = 0.0  # from a flush to its report

    def due(self, unconfirmed: Mapping[Any, Any]) -> bool:
        """Whether to flush now; whoever gets True does so.

        Args:
            unconfirmed: what was produced and not reported on, the newest last.
        """
        if not unconfirmed:
            return False
        now = self._clock()
        if self._sent not in unconfirmed:
            if self._sent is not None:
                took_s = min(now - self._sent_at, LONGEST_PAUSE_S)
                self._usual_s = took_s if took_s < self._usual_s else self._usual_s + (took_s - self._usual_s) / 16
            self._pause_s = min(max(FIRST_PAUSE_S, 2 * self._usual_s), LONGEST_PAUSE_S)
            self._sent, self._sent_at = next(reversed(unconfirmed)), now
        elif now < self._again_at:
            return False
        else:
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._again_at = now + self._pause_s
        return True
