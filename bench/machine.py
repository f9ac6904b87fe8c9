"""What the figures were made on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psutil

NO_BFLOAT16: Final = "this CPU has no instructions for bfloat16"
_TOLD: Final = ("torch", "transformers", "confluent-kafka", "orjson", "numpy")
_FLAGS: Final = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def machine_multiplies_bfloat16() -> bool:
    """As the worker finds it. It takes a second: torch is asked."""
    from forebay_consumer.models.precision import multiplies_bfloat16

    return multiplies_bfloat16("cpu")


def machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _TOLD},
    }


def _processor() -> str:
    """The name, and what it has for matrices."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    has = [flag for flag in _FLAGS if flag in flags]
    return f"{name or platform.machine()}{' with ' if has else ''}{', '.join(has)}"
