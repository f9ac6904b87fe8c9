"""The C library's allocator, told to keep what a pass has freed for the next pass.

Left alone, glibc gives large blocks, and an emptied arena's end, back to the system after each pass, and the next one
faults every page in again: a tenth of the CPU time of a ViT on eight pictures. Both bounds below are glibc's own, of
`mallopt(3)`. A process needs as much at its peak either way; between peaks it keeps more.
"""

import contextlib
import ctypes
import os
from typing import Final

_TRIM_THRESHOLD: Final = -1  # the options' numbers in malloc.h
_MMAP_THRESHOLD: Final = -3
KEPT: Final = 1 << 30  # bytes free at an arena's end before they are given back
FROM_ARENA: Final = 32 << 20  # bytes of a block; more is refused
_SAID: Final = frozenset(["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"])


def keep_memory() -> bool:
    """From now on, in all threads; whether it was done.

    Does nothing where the environment says otherwise (`MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`, or
    `GLIBC_TUNABLES` of malloc), or where the C library knows no `mallopt`. An allocator of the user's own, preloaded,
    is not touched.
    """
    if os.environ.keys() & _SAID or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(_MMAP_THRESHOLD, FROM_ARENA)) and bool(mallopt(_TRIM_THRESHOLD, KEPT))
    return False
