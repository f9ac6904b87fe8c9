"""Time as the pure parts see it: a function, so that tests turn the hands themselves."""

import time
from collections.abc import Callable
from typing import Final

Clock = Callable[[], float]
"""Seconds of a clock that never goes back."""

monotonic: Final[Clock] = time.monotonic
wall: Final[Clock] = time.time
