"""A model that takes real memory of torch's, in a process that may have only so much of it."""

import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forebay_consumer import Model

MIB = 1024 * 1024


def address_space() -> int:
    """Bytes of address space that this process has taken."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


class Hungry(Model):
    """Takes `row_mib` of address space per row of a pass, and limits the process to `spare_mib` more than it has.

    The memory is never touched, so none of it is real: the limit is met long before the machine's.
    """

    def __init__(self, row_mib: int, spare_mib: int, journal: str | None = None) -> None:
        self._row_mib = row_mib
        self._spare_mib = spare_mib

    def load(self, device: str) -> None:
        import torch

        torch.empty(1)
        most = address_space() + self._spare_mib * MIB
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))

    def forward(self, batch: Sequence[Any]) -> Sequence[Any]:
        import torch

        rows = sum(row.get("rows", 1) if isinstance(row, dict) else 1 for row in batch)
        activations = torch.empty((rows, self._row_mib, MIB), dtype=torch.uint8)
        assert activations.numel() == rows * self._row_mib * MIB
        return [len(batch)] * len(batch)
