"""How soon the next poll comes.

A poll for one or two requests costs nearly as much as one for many: a turn of four threads that share one interpreter
lock, a pass, and a small batch of replies for the broker and whoever reads them. So after a poll that brought few,
while others are inside anyway, the intake rests, and what comes meanwhile comes together. A lone client does not wait
for it: with its answer confirmed nothing is inside.

Where requests come so fast that a few milliseconds bring many, it *gathers*: it rests until they should be there,
whatever is inside. Clients that wait for their answers may be too few for that, and then only come more slowly. So the
rate is measured without and with it, and where it falls, gathering is left alone for a while.
"""

import time
from collections.abc import Callable
from typing import Final

from forebay_consumer.clock import Clock, monotonic
from forebay_consumer.flow import Flow

FEW: Final = 24  # from here on a turn costs about what its requests cost
GATHER_S: Final = 0.006  # the longest rest for as many
REST_S: Final = 0.002  # the longest while others are inside
LOOK_S: Final = 0.1  # what a rate is counted over, at least
KEEPS: Final = 0.85  # of the rate: some hundred requests in `LOOK_S` vary by several per cent
PAUSE_S: Final = 1.0  # without gathering, once it was no good; twice as long each time
LONGEST_PAUSE_S: Final = 16.0


class Pace:
    """For the intake's thread.

    Args:
        linger_s: no rest is longer than a request may wait for company.
    """

    def __init__(
        self, flow: Flow, linger_s: float, clock: Clock = monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._flow = flow
        self._gather_s = min(GATHER_S, linger_s)
        self._rest_s = min(REST_S, linger_s)
        self._clock = clock
        self._sleep = sleep
        self._few = False
        self._enough = FEW
        self._polled_s = self._since_s = clock()
        self._count = 0  # since then
        self._idle = False  # a poll since then brought nothing
        self._gathering = False  # since then
        self._per_s = 0.0  # in the time before that
        self._ungathered_per_s = 0.0
        self._not_before_s = self._since_s
        self._pause_s = PAUSE_S

    def polled(self, records: int, room: int) -> None:
        """So many records were polled together, where there was room for so many rows."""
        self._enough = min(FEW, room)
        self._few = 0 < records < self._enough
        self._idle = self._idle or not records
        self._count += records
        self._polled_s = now = self._clock()
        if now - self._since_s >= LOOK_S:
            self._look(now)

    def rest(self) -> None:
        """Wait before a poll, if it pays."""
        if not self._few:
            return
        if self._gathering:
            left_s = self._polled_s + self._enough / self._per_s - self._clock()
            if left_s > 0:
                self._sleep(left_s)
        elif self._rest_s:
            self._flow.wait_empty(self._rest_s)

    def _look(self, now: float) -> None:
        self._per_s = self._count / (now - self._since_s)
        if not self._gathering:
            self._ungathered_per_s = self._per_s
        elif self._idle:
            pass  # they may have had no more to ask
        elif self._per_s < KEEPS * self._ungathered_per_s:
            self._not_before_s = now + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        else:
            self._pause_s = PAUSE_S
        fast = self._per_s * self._gather_s >= FEW
        self._gathering = fast and not self._idle and now >= self._not_before_s
        self._since_s, self._count, self._idle = now, 0, False
