"""How soon the next poll comes.

A poll for one or two requests costs nearly as much as one for many: a turn of four threads that share one interpreter
lock, a pass, and a small batch of replies for the broker and whoever reads them. So after a poll that brought few, the
intake rests, and what comes meanwhile comes together. Where requests come so fast that a few milliseconds bring enough
of them, it rests until they should be there; else only while others are inside anyway. A lone client waits for neither:
it does not come that fast, and with its answer confirmed nothing is inside.
"""

import math
import time
from collections.abc import Callable
from typing import Final

from forebay_consumer.clock import Clock, monotonic
from forebay_consumer.flow import Flow

FEW: Final = 24  # from here on a turn costs about what its requests cost
GATHER_S: Final = 0.005  # the longest rest for as many
REST_S: Final = 0.002  # while others are inside
LOOK_S: Final = 0.05  # what the rate is counted over, at least


class Pace:
    """For the intake's thread."""

    def __init__(self, flow: Flow, clock: Clock = monotonic, sleep: Callable[[float], None] = time.sleep) -> None:
        self._flow = flow
        self._clock = clock
        self._sleep = sleep
        self._few = False
        self._polled_s = -math.inf
        self._since_s = clock()
        self._count = 0  # since then
        self._per_s = 0.0  # in the time before that

    def polled(self, records: int, room: int) -> None:
        """So many records were polled together, where there was room for so many rows."""
        self._few = 0 < records < min(FEW, room)
        self._polled_s = now = self._clock()
        self._count += records
        if now - self._since_s >= LOOK_S:
            self._per_s = self._count / (now - self._since_s)
            self._since_s, self._count = now, 0

    def rest(self) -> None:
        """Wait before a poll, if it pays."""
        if not self._few:
            return
        if self._per_s * GATHER_S >= FEW:
            left_s = self._polled_s + FEW / self._per_s - self._clock()
            if left_s > 0:
                self._sleep(left_s)
        else:
            self._flow.wait_empty(REST_S)
