"""The cycle collector, and how often it looks: what a request leaves behind holds no cycles."""

import gc
from typing import Final

YOUNG: Final = 50_000  # some batches' worth of objects; at Python's 700 every chunk is walked again and again


def spare_collector() -> None:
    """Call once all is loaded: modules and weights are not looked at again, and requests seldom.

    Affects the process. Memory is freed by reference counts as before; only cycles, as of exceptions, wait longer.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 20)
