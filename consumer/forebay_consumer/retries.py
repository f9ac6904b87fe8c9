"""Which failed passes are run again, and when. Pure: chance and waiting are given to it."""

import errno
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ldexp
from typing import Final

from forebay_consumer.errors import TransientError

# OSErrors of a network, of a busy machine, of too many open files: the same call may work in a moment. The others (no
# such file, no permission, an image library's "truncated") say the same again.
_PASSING: Final = frozenset(
    [
        errno.EAGAIN,
        errno.EBUSY,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EINTR,
        errno.EMFILE,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ESTALE,
        errno.ETIMEDOUT,
    ]
)


def is_transient(error: Exception) -> bool:
    """Whether the same pass may succeed a moment later.

    No error of CUDA is: those that are documented to leave the device usable are lack of memory, which has its own
    answer, or mistakes of the caller, which stay.
    """
    if isinstance(error, TransientError | ConnectionError | TimeoutError):
        return True
    return isinstance(error, OSError) and error.errno in _PASSING


@dataclass(frozen=True)
class Retries:
    """How often a pass is run, with exponential backoff and full jitter between.

    Attributes:
        attempts: passes in all, the first included.
        backoff_s: bound on the first wait; it doubles with every further one, up to `max_backoff_s`.
        pause: waits; it may return early, and raises where there is nothing to go on for.
        chance: uniform in [0, 1).
    """

    attempts: int = 1
    backoff_s: float = 0.2
    max_backoff_s: float = 5.0
    pause: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random

    def allow(self, error: Exception, attempt: int) -> bool:
        """Whether a pass whose `attempt` (from 1) raised `error` is run once more."""
        return attempt < self.attempts and is_transient(error)

    def wait(self, attempt: int) -> None:
        """Block between `attempt` and the next; raises what `pause` raises."""
        # Full jitter: instances and workers that failed together do not come back together.
        self.pause(self.chance() * self.bound_s(attempt))

    def bound_s(self, attempt: int) -> float:
        """The longest wait after `attempt`."""
        return min(ldexp(self.backoff_s, min(attempt - 1, 62)), self.max_backoff_s)
