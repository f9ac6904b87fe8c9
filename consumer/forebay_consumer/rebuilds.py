"""How often something that broke may be made anew before it is no accident any more. Pure, but for its clock."""

from collections import deque

from forebay_consumer.clock import Clock, monotonic


class Rebuilds:
    """At most `most` in any `within_s` seconds."""

    def __init__(self, most: int, within_s: float, clock: Clock = monotonic) -> None:
        self._most = most
        self._within_s = within_s
        self._clock = clock
        self._made: deque[float] = deque()

    def another(self) -> bool:
        """Whether one more may be made now; then it counts."""
        now = self._clock()
        while self._made and self._made[0] <= now - self._within_s:
            self._made.popleft()
        if len(self._made) >= self._most:
            return False
        self._made.append(now)
        return True
