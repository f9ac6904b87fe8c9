"""What an exception of a model means to the worker. Pure: torch's are known by name and words, and torch is not
imported, so that models of the user's own are understood as the built-in ones are."""

from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from typing import Final

from forebay_consumer.errors import DeviceLost, HelperLost, OutOfMemory

# The CPU's allocator, CUDA's driver, and cuBLAS or cuDNN for their workspace.
_NO_MEMORY: Final = ("can't allocate memory", "not enough memory", "out of memory", "STATUS_ALLOC_FAILED")

# "This leaves the process in an inconsistent state and any further CUDA work will return the same error", says the CUDA
# runtime's page of these. One bad request must not become a failure of all that come after it.
_DEVICE_LOST: Final = (
    "an illegal memory access was encountered",
    "device-side assert triggered",
    "hardware stack error",
    "an illegal instruction was encountered",
    "misaligned address",
    "operation not supported on global/shared address space",
    "invalid program counter",
    "unspecified launch failure",
    "the launch timed out and was terminated",
    "uncorrectable ECC error encountered",
)


def meant(error: Exception) -> Exception:
    """`OutOfMemory`, `DeviceLost` or `HelperLost` where that is what it says; else `error` itself."""
    if is_out_of_memory(error):
        return OutOfMemory("the device could not hold the batch")
    if isinstance(error, RuntimeError) and any(words in str(error) for words in _DEVICE_LOST):
        return DeviceLost(f"the device is lost to this process: {str(error).splitlines()[0]}")
    if isinstance(error, BrokenExecutor):
        return HelperLost(f"the model's pool is broken: {error}")
    return error


@contextmanager
def translated() -> Iterator[None]:
    """The edge around a model's code: what it raises comes out as what it means."""
    try:
        yield
    except Exception as error:
        if (known := meant(error)) is error:
            raise
        raise known from error


def is_out_of_memory(error: Exception) -> bool:
    """Whether a library says "out of memory", which torch does in several ways."""
    if isinstance(error, OutOfMemory):
        return False  # said already
    if isinstance(error, MemoryError) or _is_torchs(error, "OutOfMemoryError"):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def _is_torchs(error: Exception, name: str) -> bool:
    return any(kind.__name__ == name and kind.__module__.startswith("torch") for kind in type(error).__mro__)
