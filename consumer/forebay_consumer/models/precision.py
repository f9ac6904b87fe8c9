"""Where bfloat16 is multiplied natively, and how far its outputs may be from those of float32.

The bounds are wider than what bfloat16 does to a healthy checkpoint (embeddings of MiniLM-L6: a cosine of at least
0.99987 over texts of 2 to 256 tokens) and narrower than what a client would notice.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch

LEAST_COSINE: Final = 0.999
MOST_SCORE: Final = 0.02


def multiplies_bfloat16(device: str) -> bool:
    """Whether it has instructions of its own for products of bfloat16; without them it is slower than float32."""
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.get_device_capability(device) >= (8, 0))
    if kind != "cpu":
        return False
    found = _cpu()
    return any(found.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16"))


def _cpu() -> Mapping[str, Any]:
    if hasattr(torch.cpu, "get_capabilities"):
        found: Mapping[str, Any] = torch.cpu.get_capabilities()
        return found
    # Before torch 2.10 there are only these, and nothing about ARM.
    return {"amx_bf16": torch.cpu._is_amx_tile_supported(), "avx512_bf16": torch.cpu._is_avx512_bf16_supported()}


def vectors_differ(exact: Any, other: Any) -> str | None:
    """What is wrong when a pair of vectors points in directions with a cosine below `LEAST_COSINE`; else None."""
    pairs = [(np.asarray(one, np.float64), np.asarray(two, np.float64)) for one, two in zip(exact, other, strict=True)]
    with np.errstate(invalid="ignore"):  # a vector of zeros has no direction: NaN
        cosines = [float(one @ two / (np.linalg.norm(one) * np.linalg.norm(two))) for one, two in pairs]
    least = min(cosines, key=lambda cosine: (not np.isnan(cosine), cosine))  # NaN is the worst, and no minimum
    return None if least >= LEAST_COSINE else f"the cosine of a sample's vectors is {least:.5f}, not {LEAST_COSINE}"


def scores_differ(exact: Any, other: Any) -> str | None:
    """What is wrong when a score is off by more than `MOST_SCORE`, or the best is another; else None.

    Another best is none of bfloat16's making where float32 holds the two within `MOST_SCORE` of each other.

    Args:
        exact: [B, C]; as `other`, which is to be judged.
    """
    one, two = np.asarray(exact, np.float64), np.asarray(other, np.float64)
    off = float(np.abs(one - two).max())
    if not off <= MOST_SCORE:
        return f"a sample's score is off by {off:.4f}, more than {MOST_SCORE}"
    behind = one.max(-1) - np.take_along_axis(one, two.argmax(-1)[:, None], -1)[:, 0]  # [B]
    return None if float(behind.max()) <= MOST_SCORE else "a sample's best label is another"
