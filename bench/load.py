"""The work that every contender does, made the same way each time.

T1  texts of mixed length, for MiniLM-L6: an answer is a vector of 384 floats
T2  JPEG pictures of 224 x 224, for a ViT-tiny: an answer is a label and its score
T3  JSON rows of 16 floats, for one linear layer: an answer is 2 floats
"""

import io
import random
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

_WORDS: Final = """
the of and to in is that it was for on are as with his they at be this from have or by one had not but what all were
when we there can an your which their said if do will each about how up out them then she many some so these would
other into has more her two like him see time could no make than first been its who now people my made over did down
only way find use may water long little very after words called just where most know
"""


LOADS: Final = ("T1", "T2", "T3")
SHORT: Final = 8
LONG: Final = 240
FLOATS: Final = 16
PICTURE: Final = 224


def texts(count: int, seed: int = 1) -> list[str]:
    """Texts of log-normal length: about 49 tokens in the mean, 13 / 34 / 103 / 253 at p10 / p50 / p90 / p99."""
    return mixed("log-normal", count, seed)


def _log_normal(chance: random.Random) -> int:
    return max(2, min(400, round(chance.lognormvariate(3.5, 0.82))))


_LENGTHS: Final[Mapping[str, Callable[[random.Random], int]]] = MappingProxyType(
    {
        "all short": lambda _: SHORT,
        "all long": lambda _: LONG,
        "log-normal": _log_normal,
        "bimodal": lambda chance: chance.choice((SHORT, LONG)),
        "sorted": _log_normal,
    }
)
MIXES: Final = tuple(_LENGTHS)
"""Distributions of length; `sorted` is log-normal in order of length, as a table's export may be."""


def mixed(mix: str, count: int, seed: int = 1) -> list[str]:
    """Texts whose numbers of words follow one of `MIXES`; a word is about one token."""
    chance, words = random.Random(seed), _WORDS.split()
    made = [" ".join(chance.choices(words, k=_LENGTHS[mix](chance))) for _ in range(count)]
    return sorted(made, key=lambda text: text.count(" ")) if mix == "sorted" else made


def pictures(count: int, seed: int = 1) -> list[bytes]:
    """JPEG files of some 10 kB: a coarse random pattern, enlarged, so that they decode like photographs."""
    from PIL import Image

    chance = random.Random(seed)
    made = []
    for _ in range(count):
        coarse = Image.frombytes("RGB", (14, 14), chance.randbytes(14 * 14 * 3))
        file = io.BytesIO()
        coarse.resize((PICTURE, PICTURE), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        made.append(file.getvalue())
    return made


def vectors(count: int, seed: int = 1) -> list[list[float]]:
    """Rows of 16 floats with few digits, as a feature store would give them."""
    chance = random.Random(seed)
    return [[round(chance.uniform(-1, 1), 4) for _ in range(FLOATS)] for _ in range(count)]


def rows_of(load: str, count: int) -> Sequence[Any]:
    """The first rows of a load, which longer runs go round in; `T1:all short` is T1 with a mix of lengths."""
    load, _, mix = load.partition(":")
    if mix:
        return mixed(mix, count)
    makers: Mapping[str, Callable[[int], Sequence[Any]]] = {"T1": texts, "T2": pictures, "T3": vectors}
    return makers[load](count)


def small_requests(count: int) -> Sequence[bytes]:
    """JSON requests of some 60 bytes."""
    return [b'{"id":"%d","inputs":["request number %d"]}' % (number, number) for number in range(count)]
