"""The work that every contender does, made the same way each time."""

import random
from collections.abc import Sequence
from typing import Final

_WORDS: Final = """
the of and to in is that it was for on are as with his they at be this from have or by one had not but what all were
when we there can an your which their said if do will each about how up out them then she many some so these would
other into has more her two like him see time could no make than first been its who now people my made over did down
only way find use may water long little very after words called just where most know
"""


def texts(count: int, seed: int = 1) -> list[str]:
    """Texts of log-normal length: about 49 tokens in the mean, 13 / 34 / 103 / 253 at p10 / p50 / p90 / p99."""
    chance = random.Random(seed)
    words = _WORDS.split()
    return [
        " ".join(chance.choices(words, k=max(2, min(400, round(chance.lognormvariate(3.5, 0.82))))))
        for _ in range(count)
    ]


def small_requests(count: int) -> Sequence[bytes]:
    """JSON requests of some 60 bytes."""
    return [b'{"id":"%d","inputs":["request number %d"]}' % (number, number) for number in range(count)]
