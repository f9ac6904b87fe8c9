"""Whether a loaded checkpoint can be packed, and how: tried on its own weights, never read off a list of families."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final

import torch

from forebay_consumer.errors import FatalError
from forebay_consumer.meaning import meant
from forebay_consumer.models.packing import Packing, Scheme, schemes

TOLERANCE: Final = 1e-5
"""Largest difference from the texts alone, as a share of the largest value there; a scheme with more is refused."""

PADDED_TOLERANCE: Final = 1e-4
"""The same for padding, which every answer is promised to bear; without it each length needs a pass of its own."""

PADDED: Final = "padded"
"""Under this name `Differences` has what padding does, where no scheme was found."""

_WORDS_MORE: Final = (0, 1, 5, 17, 23, 40)

Seen = tuple[torch.Tensor, torch.Tensor]
"""The encoder's states of all tokens, [N, D], and the task's outputs, both text by text."""

Differences = Mapping[str, float | str]
"""Of each scheme that was tried: how far it is off, or what was raised."""


def choose(
    model: Any,
    packing: Packing,
    alone: Callable[[], Seen],
    packed: Callable[[], Seen],
    padded: Callable[[], torch.Tensor],
) -> tuple[Scheme | None, Differences]:
    """Leave `packing` with the first scheme under which `packed` gives what `alone` gives, in float32.

    The weights are float32 meanwhile, in place: of a checkpoint in half precision they take twice their memory. What
    has no room for that is not packed. Where no scheme does, the outputs that `padded` gives are compared as well.

    Raises:
        FatalError: the device is lost.
    """
    tried: dict[str, float | str] = {}
    try:
        with in_float32(model), torch.inference_mode():
            expected = alone()
            for scheme in schemes(model.base_model):
                packing.scheme = scheme
                tried[scheme.name] = off = _off(packed, expected)
                if isinstance(off, float) and off <= TOLERANCE:
                    return scheme, tried
            tried[PADDED] = _off(lambda: (padded(),), expected[1:])
    except Exception as error:
        tried["alone"] = _told(error)
    return None, tried


def may_pad(differences: Differences) -> bool:
    """Whether padding was tried and changes no answer, or was not tried."""
    off = differences.get(PADDED, 0.0)
    return isinstance(off, float) and off <= PADDED_TOLERANCE


def _off(together: Callable[[], Sequence[torch.Tensor]], expected: Sequence[torch.Tensor]) -> float | str:
    try:
        return max(difference(found, wanted) for found, wanted in zip(together(), expected, strict=True))
    except Exception as error:  # whatever a model says to inputs that it does not know
        return _told(error)


def _told(error: Exception) -> str:
    if isinstance(known := meant(error), FatalError):
        raise known from error
    return type(known).__name__


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, as a share of the largest value expected; infinite where anything is not a number."""
    off = float((found - expected).abs().max() / expected.abs().max())
    return off if off == off else float("inf")


def sample_rows(
    pattern: Mapping[str, list[int]], special: Sequence[int], words: int, longest: int
) -> list[dict[str, list[int]]]:
    """Rows of unequal length, the longest that are packed among them, of words from all over the vocabulary.

    Args:
        pattern: a short tokenised text, special tokens included; its last word is replaced by others.
        words: token ids are below it.
    """
    ids = pattern["input_ids"]
    place = max((at for at, token in enumerate(ids) if token not in special), default=len(ids) - 1)
    allowed = sorted(set(range(words)) - set(special))
    chance = random.Random(words)
    rows = []
    for more in sorted({*_WORDS_MORE, longest - len(ids)}):
        if 0 <= more <= longest - len(ids):
            drawn = chance.choices(allowed, k=more + 1)
            row = {}
            for name, values in pattern.items():
                body = drawn if name == "input_ids" else [values[place]] * len(drawn)
                row[name] = [*values[:place], *body, *values[place + 1 :]]
            rows.append(row)
    return rows


@contextmanager
def in_float32(model: Any) -> Iterator[None]:
    """The weights in float32, and afterwards as they were, to the bit; also where there was no room for all of them."""
    before = {name: values.dtype for name, values in _floats(model)}
    wider = {name: values.data for name, values in _floats(model) if values.dtype is torch.float64}
    try:
        model.float()
        yield
    finally:
        for name, values in _floats(model):
            values.data = wider.get(name, values.data)
        changed = [(values, before[name]) for name, values in _floats(model) if values.dtype is not before[name]]
        for values, dtype in sorted(changed, key=lambda each: each[0].numel()):  # the small ones make room
            _restore(values, dtype)


def _restore(values: torch.Tensor, dtype: torch.dtype) -> None:
    try:
        values.data = values.data.to(dtype)
    except RuntimeError:  # no room for both on the device
        device = values.device
        values.data = values.data.to("cpu", dtype)
        values.data = values.data.to(device)


def _floats(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    for name, values in chain(model.named_parameters(), model.named_buffers()):
        if values.is_floating_point():
            yield name, values
