"""The cycle collector, and how often it looks: what a request leaves behind holds no cycles."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

YOUNG: Final = 50_000  # some batches' worth of objects; at Python's 700 every chunk is walked again and again


@contextmanager
def collector_spared() -> Iterator[None]:
    """For the time from when all is loaded: modules and weights are not looked at again, and requests seldom.

    Affects the process. Memory is freed by reference counts as before; only cycles, as of exceptions, wait longer.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()  # else the interpreter's end frees nothing, and libraries report leaks
