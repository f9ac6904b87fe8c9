"""What a library's exception means is known by its name and words, without the library."""

from concurrent.futures.process import BrokenProcessPool

import pytest

from forebay_consumer.errors import DeviceLost, HelperLost, OutOfMemory, TransientError
from forebay_consumer.meaning import meant, translated

TorchOutOfMemory = type("OutOfMemoryError", (RuntimeError,), {"__module__": "torch"})
AcceleratorError = type("AcceleratorError", (RuntimeError,), {"__module__": "torch"})

CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "1125899906842624 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(MemoryError(), id="python"),
        pytest.param(TorchOutOfMemory("CUDA out of memory. Tried to allocate 2.00 GiB"), id="torch on CUDA"),
        pytest.param(TorchOutOfMemory("whatever it will say"), id="torch, in other words"),
        pytest.param(RuntimeError(CPU), id="torch on the CPU"),
        pytest.param(RuntimeError("CUDA error: out of memory"), id="the driver"),
        pytest.param(RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), id="cuBLAS"),
        pytest.param(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), id="cuDNN"),
    ],
)
def test_lack_of_memory_is_out_of_memory(error: Exception) -> None:
    assert isinstance(meant(error), OutOfMemory)


@pytest.mark.parametrize(
    "words",
    [
        "device-side assert triggered",
        "an illegal memory access was encountered",
        "unspecified launch failure",
        "misaligned address",
        "uncorrectable ECC error encountered",
    ],
)
def test_a_broken_context_of_the_device_ends_the_worker(words: str) -> None:
    lost = meant(AcceleratorError(f"CUDA error: {words}\nCUDA kernel errors might be reported later"))
    assert isinstance(lost, DeviceLost)
    assert words in str(lost)
    assert "reported later" not in str(lost)


@pytest.mark.parametrize("kind", [BrokenProcessPool, type("TerminatedWorkerError", (BrokenProcessPool,), {})])
def test_a_pool_whose_process_ended_ends_the_worker_and_blames_no_request(kind: type[Exception]) -> None:
    lost = meant(kind("a process was terminated abruptly"))
    assert isinstance(lost, HelperLost)
    assert str(lost) == "the model's pool is broken: a process was terminated abruptly"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("out of memory"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        TransientError("busy"),
        OutOfMemory("full"),
        ConnectionError(),
        type("OutOfMemoryError", (Exception,), {"__module__": "shop"})("the cart is full"),
    ],
    ids=repr,
)
def test_anything_else_is_what_it_is(error: Exception) -> None:
    assert meant(error) is error
    with pytest.raises(type(error)) as caught, translated():
        raise error
    assert caught.value is error


def test_the_librarys_own_error_stays_as_the_cause() -> None:
    error = RuntimeError(CPU)
    with pytest.raises(OutOfMemory) as caught, translated():
        raise error
    assert caught.value.__cause__ is error
