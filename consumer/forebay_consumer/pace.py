"""How soon the next poll comes.

A poll for one or two requests costs nearly as much as one for many: a turn of four threads that share one interpreter
lock, a pass, and a small batch of replies for the broker and whoever reads them. So after a poll that took all there
was, while others are inside anyway, the intake rests, and what comes meanwhile comes together. A lone client does not
wait for it: with its answer confirmed nothing is inside.

Where requests come so fast that a few milliseconds bring a good batch, it *gathers*: it lets the turn before end, and
then rests for that long, since those who got their answers together ask together again. A turn that is cut short by the
next one makes both small, and the one after them. Slow machines need it most: small turns leave them no time for more.
Clients that wait for their answers may be too few for that, and then only come more slowly; how long they take to ask
again nobody knows. So there are three ways: to leave it alone, and to rest briefly or for long. Two are tried in turns,
since a machine's own wavering from one second to the next is larger than what is sought; and after a while it is tried
anew.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from forebay_consumer.clock import Clock, monotonic
from forebay_consumer.flow import Flow

ALONE, BRIEFLY, LONG = range(3)  # the ways
FULL: Final = 200  # what a turn costs is not seen of so many, which are mostly of a backlog
WORTH: Final = 5  # a gathering rest that brings fewer gains little over what comes together by itself
MANY: Final = 64  # of so many, what a turn costs is hardly seen: no rest is longer than they take
GATHER_S: Final = 0.006  # the longest rest for them, and before it the longest wait for the answers of the turn before
REST_S: Final = 0.002  # the longest while others are inside
LOOK_S: Final = 0.1  # what a rate is counted over, at least
SURE: Final = 6  # looks in a row that are trusted
VAIN: Final = 3  # comparisons in a row without a verdict: the last one that there was no longer holds
ROUNDS: Final = 6  # of a comparison, at most: a look with gathering and one without
KEEPS: Final = 0.9  # of the rate without, or more, is good: larger turns cost less each
GAINS: Final = 1.05  # of the rate with a brief rest, or more, is worth a long one
MORE: Final = 1.3  # times the rate, or as much less: these are other clients
HOLDS_S: Final = 4.0  # for so long a verdict holds at first, and twice as long each time that it is the same
LONGEST_HOLD_S: Final = 16.0


class _Comparison:
    """Rates of two ways, looked at in turns: more, less, less, more, so that no trend counts.

    Args:
        less, more: the ways; in the second it rests longer.
    """

    def __init__(self, less: int, more: int) -> None:
        self.less = less
        self.more = more
        self._rates: dict[int, list[float]] = {less: [], more: []}

    @property
    def way(self) -> int:
        """That of the next look."""
        return self.more if sum(map(len, self._rates.values())) % 4 in (0, 3) else self.less

    def saw(self, per_s: float, way: int) -> None:
        self._rates[way].append(per_s)

    def mean(self, way: int) -> float:
        looks = self._rates[way]
        return sum(looks) / len(looks) if looks else 0.0

    def verdict(self) -> int | None:
        """The better way; None while that is not sure. The clearer it is, the fewer rounds it takes."""
        rounds = min(map(len, self._rates.values()))
        if rounds < 2:
            return None
        less, more = (sum(self._rates[way][:rounds]) for way in (self.less, self.more))
        wanted = GAINS if self.less else KEEPS
        unsure = 0.4 / rounds if rounds < ROUNDS else 0.0
        if more >= (wanted + unsure) * less:
            return self.more
        return self.less if more < (wanted - unsure) * less else None


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
        self._rests_s = (0.0, self._gather_s / 3, self._gather_s)  # by way
        self._rest_s = min(REST_S, linger_s)
        self._clock = clock
        self._sleep = sleep
        self._records = self._room = 0  # of the last poll
        self._polled_s = self._since_s = clock()
        self._count = 0  # since then
        self._idle = False  # a poll since then brought nothing
        self._way, self._gathered = ALONE, False  # since then: how it is to, and whether it gathered
        self._per_s = 0.0  # in the time before that
        self._looks: deque[float] = deque(maxlen=SURE)  # the last, per second, since a verdict
        self._comparison: _Comparison | None = None  # under way
        self._vain = 0  # those that were given up since a verdict
        self._best = ALONE  # what the last one chose
        self._rival = LONG  # to be compared with it next
        self._second = False  # the comparison under way follows the first one of new clients, or a change, at once
        self._then_per_s = 0.0  # in the way that it chose
        self._plain_per_s = 0.0  # in that with less rest
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
        if self._way:
            self._gathered = True
            self._flow.wait_empty(max(self._polled_s + self._gather_s - self._clock(), 0.0))
            # Clients too few for so long a rest ask less often, which must not make it longer.
            per_s = max(self._per_s, self._plain_per_s)
            self._sleep(min(self._rests_s[self._way], min(MANY, self._room) / per_s))
        elif self._rest_s:
            self._flow.wait_empty(self._rest_s)

    def _look(self, now: float) -> None:
        self._per_s = per_s = self._count / (now - self._since_s)
        if not self._idle:
            self._looks.append(per_s)
        if self._comparison is None:
            self._watch(now)
        elif self._idle or self._gathered is not bool(self._way):
            self._give_up(now)  # they had no more to ask, or a backlog left no occasion: that tells nothing
        else:
            self._comparison.saw(per_s, self._way)
            self._judge(now, self._comparison)
        way = self._best if self._comparison is None else self._comparison.way
        self._way = way if self._fast() and not self._idle else ALONE
        self._since_s, self._count, self._idle, self._gathered = now, 0, False, False

    def _watch(self, now: float) -> None:
        """Begin a comparison when it is time for one."""
        if not self._fast():
            self._until_s = now if self._best else self._until_s
        elif not self._idle and (now >= self._until_s or self._others()):
            if now < self._until_s:
                self._hold_s = HOLDS_S / 2  # they are new
            self._compare()

    def _compare(self) -> None:
        self._comparison = _Comparison(*sorted((self._best, self._rival)))

    def _judge(self, now: float, compared: _Comparison) -> None:
        self._plain_per_s = compared.mean(compared.less)
        if not self._fast():
            self._give_up(now)
        elif (best := compared.verdict()) is not None:
            changed = best != self._best
            if changed:
                self._hold_s = HOLDS_S / 2
            self._comparison, self._best, self._vain = None, best, 0
            self._rival = ALONE + BRIEFLY + LONG - compared.less - compared.more  # the third
            self._then_per_s = compared.mean(best)
            self._looks.clear()
            self._second = not self._second and self._hold_s < HOLDS_S
            if self._second:
                self._compare()
            else:
                self._hold_s = min(2 * self._hold_s, LONGEST_HOLD_S)
                self._until_s = now + self._hold_s

    def _give_up(self, now: float) -> None:
        """End a comparison without a verdict. Of clients with pauses each may end so."""
        self._comparison, self._second, self._until_s = None, False, now + HOLDS_S
        self._vain += 1
        if self._vain >= VAIN:
            self._best, self._rival = ALONE, LONG
        self._looks.clear()

    def _fast(self) -> bool:
        """Whether a rest would bring enough; in a comparison, which may slow them down, by those with less."""
        if self._comparison is not None:
            per_s = self._comparison.mean(self._comparison.less) or math.inf
        else:
            per_s = sum(self._looks) / len(self._looks) if self._looks else self._per_s
        return per_s * self._gather_s >= WORTH

    def _others(self) -> bool:
        """Whether these seem to be other clients than those of the last comparison."""
        if len(self._looks) < SURE:
            return False
        return max(self._looks) * MORE < self._then_per_s or (
            not self._best and min(self._looks) > MORE * self._then_per_s
        )
