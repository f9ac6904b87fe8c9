"""The C library's allocator, told to keep what a pass has freed for the next pass.

Left alone, glibc gives large blocks, and an emptied arena's end, back to the system after each pass, and the next one
faults every page in again: a tenth of the CPU time of a ViT on eight pictures. With `mallopt(3)` what one thread frees
stays for that thread: all of it up to 64 MB, the size of an arena's heap, and most of it beyond. One thread needs no
more at its peak; of several, each keeps its own, where they would have taken turns.
"""

import contextlib
import ctypes
import os
from typing import Final

_TRIM_THRESHOLD: Final = -1  # the options' numbers in malloc.h
_MMAP_THRESHOLD: Final = -3
KEPT: Final = 1 << 30  # bytes free at an arena's end before they are given back; more than any heap but the first has
FROM_ARENA: Final = 32 << 20  # bytes of a block; more is refused
_SAID: Final = frozenset(["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"])
_TUNED: Final = ("glibc.malloc.trim_threshold", "glibc.malloc.mmap_threshold")


def keep_memory() -> bool:
    """From now on, in all threads; whether it was done.

    Does nothing where the environment says otherwise (`MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`, or
    their names in `GLIBC_TUNABLES`), or where the C library knows no `mallopt`. An allocator that was preloaded is not
    touched.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if os.environ.keys() & _SAID or any(name in tunables for name in _TUNED):
        return False
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(_MMAP_THRESHOLD, FROM_ARENA)) and bool(mallopt(_TRIM_THRESHOLD, KEPT))
    return False
