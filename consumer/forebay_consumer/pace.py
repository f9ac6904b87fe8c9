"""How soon the next poll comes.

A poll for one or two requests costs nearly as much as one for many: a turn of four threads that share one interpreter
lock, a pass, and a small batch of replies for the broker and whoever reads them. So after a poll that took all there
was, while others are inside anyway, the intake rests, and what comes meanwhile comes together. A lone client does not
wait for it: with its answer confirmed nothing is inside.

Where requests come so fast that a few milliseconds bring a good batch, it *gathers*: it rests for that long, whatever
is inside. Slow machines need it most: small turns leave them no time for more. Clients that wait for their answers may
be too few for that, and then only come more slowly. So it is tried, in turns with leaving it alone, since a machine's
own wavering from one second to the next is larger than what is sought; and after a while it is tried anew.
"""

import math
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
SURE: Final = 6  # looks in a row that are trusted
VAIN: Final = 3  # comparisons in a row without a verdict: the last one that there was no longer holds
ROUNDS: Final = 6  # of a comparison, at most: a look with gathering and one without
KEEPS: Final = 0.9  # of the rate without, or more, is good
MORE: Final = 1.3  # times the rate, or as much less: these are other clients
HOLDS_S: Final = 4.0  # for so long a verdict holds at first, and twice as long each time that it is the same
LONGEST_HOLD_S: Final = 16.0


class _Comparison:
    """Rates with and without gathering, looked at in turns: with, without, without, with, so that no trend counts."""

    def __init__(self) -> None:
        self._rates: dict[bool, list[float]] = {False: [], True: []}

    @property
    def gathers(self) -> bool:
        """Whether the next look is one with gathering."""
        return sum(map(len, self._rates.values())) % 4 in (0, 3)

    def saw(self, per_s: float, gathering: bool) -> None:
        self._rates[gathering].append(per_s)

    def mean(self, gathering: bool) -> float:
        looks = self._rates[gathering]
        return sum(looks) / len(looks) if looks else 0.0

    def verdict(self) -> bool | None:
        """Whether gathering is good; None while that is not sure. The clearer it is, the fewer rounds it takes."""
        rounds = min(map(len, self._rates.values()))
        if rounds < 2:
            return None
        without, gathered = (sum(self._rates[gathering][:rounds]) for gathering in (False, True))
        unsure = 0.4 / rounds if rounds < ROUNDS else 0.0
        if gathered >= (KEEPS + unsure) * without:
            return True
        return False if gathered < (KEEPS - unsure) * without else None


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
        self._gathering = self._gathered = False  # since then: whether it is to, and whether there was occasion
        self._per_s = 0.0  # in the time before that
        self._looks: deque[float] = deque(maxlen=SURE)  # the last, per second, since a verdict
        self._comparison: _Comparison | None = None  # under way
        self._vain = 0  # those that were given up since
        self._good = False  # what the last one said of gathering
        self._then_per_s = 0.0  # in the way that it chose
        self._plain_per_s = 0.0  # in that without gathering
        self._until_s = self._since_s  # it holds
        self._hold_s = HOLDS_S / 2

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
            per_s = max(self._per_s, self._plain_per_s)
            rest_s = min(self._gather_s, min(MANY, self._room) / per_s)
            if (left_s := self._polled_s + rest_s - self._clock()) > 0:
                self._gathered = True
                self._sleep(left_s)
        elif self._rest_s:
            self._flow.wait_empty(self._rest_s)

    def _look(self, now: float) -> None:
        self._per_s = per_s = self._count / (now - self._since_s)
        if not self._idle:
            self._looks.append(per_s)
        if self._comparison is None:
            self._watch(now)
        elif self._idle or self._gathering is not self._gathered:
            self._give_up(now)  # they had no more to ask, or a backlog left no occasion: that tells nothing
        else:
            self._comparison.saw(per_s, self._gathering)
            self._judge(now, self._comparison)
        trying = self._good if self._comparison is None else self._comparison.gathers
        self._gathering = trying and self._fast() and not self._idle
        self._since_s, self._count, self._idle, self._gathered = now, 0, False, False

    def _watch(self, now: float) -> None:
        """Begin a comparison when it is time for one."""
        if not self._fast():
            self._until_s = now if self._good else self._until_s
        elif not self._idle and (now >= self._until_s or self._others()):
            self._comparison = _Comparison()

    def _judge(self, now: float, compared: _Comparison) -> None:
        self._plain_per_s = compared.mean(False)
        if not self._fast():
            self._give_up(now)
        elif (good := compared.verdict()) is not None:
            self._hold_s = min(2 * self._hold_s, LONGEST_HOLD_S) if good is self._good else HOLDS_S
            self._comparison, self._good, self._until_s, self._vain = None, good, now + self._hold_s, 0
            self._then_per_s = compared.mean(good)
            self._looks.clear()

    def _give_up(self, now: float) -> None:
        """End a comparison without a verdict. Of clients with pauses each may end so."""
        self._comparison, self._until_s = None, now + HOLDS_S
        self._vain += 1
        self._good = self._good and self._vain < VAIN
        self._looks.clear()

    def _fast(self) -> bool:
        """Whether a rest would bring enough; in a comparison, which may slow them down, by the looks without."""
        if self._comparison is not None:
            per_s = self._comparison.mean(False) or math.inf
        else:
            per_s = sum(self._looks) / len(self._looks) if self._looks else self._per_s
        return per_s * self._gather_s >= WORTH

    def _others(self) -> bool:
        """Whether these seem to be other clients than those of the last comparison."""
        if len(self._looks) < SURE:
            return False
        return max(self._looks) * MORE < self._then_per_s or (
            not self._good and min(self._looks) > MORE * self._then_per_s
        )
