"""What the figures were made on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psutil

_TOLD: Final = ("torch", "transformers", "confluent-kafka", "orjson", "numpy")
_FLAGS: Final = ("avx2", "avx512f", "amx_bf16")


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
