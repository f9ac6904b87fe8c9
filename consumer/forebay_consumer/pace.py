"""How soon the next poll comes.

A poll for one or two requests costs nearly as much as one for many: a turn of four threads that share one interpreter
lock, a pass, and a small batch of replies for the broker and whoever reads them. So after a poll that took all there
was, while others are inside anyway, the intake rests, and what comes meanwhile comes together. A lone client does not
wait for it: with its answer confirmed nothing is inside.

Where requests come so fast that a few milliseconds bring a good batch, it *gathers*: it rests for that long, whatever
is inside. Slow machines need it most: small turns leave them no time for more. Clients that wait for their answers may
be too few for that, and then only come more slowly. So the rate is measured without and with it, and where it falls,
gathering is left alone for a while, or until the rate says that it is missed, or that others have come.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Final

from forebay_consumer.clock import Clock, monotonic
from forebay_consumer.flow import Flow

FULL: Final = 200  # what a turn costs is not seen of so many, which are mostly of a backlog
WORTH: Final = 8  # a gathering rest that brings fewer gains little over what comes together by itself
MANY: Final = 32  # of so many, what a turn costs is hardly seen: no rest is longer than they take
GATHER_S: Final = 0.006  # the longest rest for them
REST_S: Final = 0.002  # the longest while others are inside
LOOK_S: Final = 0.1  # what a rate is counted over, at least
SURE: Final = 3  # looks in a row that say the same
KEEPS: Final = 0.9  # of the rate
MORE: Final = 1.3  # times the rate: these are other clients
PAUSE_S: Final = 4.0  # without gathering, once it was no good; twice as long each time
LONGEST_PAUSE_S: Final = 16.0


class Pace:
    """For the intake's thread.

    Args:
        linger_s: no rest is longer than a request may wait for company.
        full: a poll that brought so many need not have taken all there was, and is followed at once.
    """

    def __init__(
        self,
        flow: Flow,
        linger_s: float,
        full: int = FULL,
        clock: Clock = monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._flow = flow
        self._full = full
        self._gather_s = min(GATHER_S, linger_s)
        self._rest_s = min(REST_S, linger_s)
        self._clock = clock
        self._sleep = sleep
        self._records = self._room = 0  # of the last poll
        self._polled_s = self._since_s = clock()
        self._count = 0  # since then
        self._idle = False  # a poll since then brought nothing
        self._gathering = False  # since then
        self._per_s = 0.0  # in the time before that
        # Per second, without and with gathering, as last looked at.
        self._rates: dict[bool, deque[float]] = {False: deque(maxlen=SURE), True: deque(maxlen=SURE)}
        self._worse = self._better = 0
        self._not_before_s = self._since_s
        self._paused_per_s = 0.0  # without gathering, when it was last left alone
        self._pause_s = PAUSE_S

    def polled(self, records: int, room: int) -> None:
        """So many records were polled together, where there was room for so many rows."""
        self._records, self._room = records, room
        self._idle = self._idle or not records
        self._count += records
        self._polled_s = now = self._clock()
        if now - self._since_s >= LOOK_S:
            self._look(now)

    def rest(self) -> None:
        """Wait before a poll, if it pays."""
        if not 0 < self._records < min(self._full, self._room):
            return
        if self._gathering and self._records < MANY:  # else these may be all, and wait for their answers
            # Clients too few for so long a rest ask less often, which must not make it longer.
            per_s = max(self._per_s, self._rate(False))
            rest_s = min(self._gather_s, min(MANY, self._room) / per_s)
            if (left_s := self._polled_s + rest_s - self._clock()) > 0:
                self._sleep(left_s)
        elif self._rest_s:
            self._flow.wait_empty(self._rest_s)

    def _look(self, now: float) -> None:
        self._per_s = per_s = self._count / (now - self._since_s)
        gathering, fast = self._gathering, per_s * self._gather_s >= WORTH
        if not self._idle:  # else they may have had no more to ask
            self._compare(per_s, gathering)
        sure = self._worse >= (SURE if fast else 1)  # too few to gather for, who were more without it
        if gathering and sure:
            self._not_before_s, self._paused_per_s = now + self._pause_s, self._rate(False)
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        elif gathering and self._better >= SURE:
            self._pause_s = PAUSE_S
        looks = self._rates[False]
        others = len(looks) == SURE and min(looks) > MORE * self._paused_per_s
        over = now >= self._not_before_s or others
        may = not sure if gathering else sure or over
        self._gathering = fast and may and not self._idle
        if self._gathering is not gathering:
            self._worse = self._better = 0
            self._rates[self._gathering].clear()
        self._since_s, self._count, self._idle = now, 0, False

    def _compare(self, per_s: float, gathering: bool) -> None:
        """Count the looks in a row at which this way is slower than the other one was, or is not."""
        if per_s < KEEPS * self._rate(not gathering):
            self._worse, self._better = self._worse + 1, 0
        else:
            self._worse, self._better = 0, self._better + 1
        self._rates[gathering].append(per_s)

    def _rate(self, gathering: bool) -> float:
        looks = self._rates[gathering]
        return sum(looks) / len(looks) if looks else 0.0
