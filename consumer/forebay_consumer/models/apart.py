"""Attention run text by text within packed rows: a mask has all of a row computed, and most of it discarded."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Final

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

_NAME: Final = "forebay_apart"

Span = tuple[int, int, int]
"""Row, first cell in it and the one behind the last, of one text."""

_pass = threading.local()  # of each instance's thread: the spans of the pass that runs


@contextmanager
def apart(model: Any, spans: Sequence[Span]) -> Iterator[None]:
    """Passes of `model` without a mask have each text see itself alone; padding gets zeros.

    Does nothing for a model whose attention is not transformers' own: what comes out is wrong, then.
    """
    config = model.config
    before = config._attn_implementation
    _pass.spans = spans
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        del _pass.spans


def _attend(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, _mask: Any, **options: Any
) -> tuple[torch.Tensor, None]:
    """As transformers' own functions of attention: takes [B, H, R, D], gives [B, R, H, D]."""
    if not torch.compiler.is_compiling():
        return _text_by_text(module, query, key, value, options), None
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    groups = getattr(module, "num_key_value_groups", 1)
    return _opaque(query, key, value, causal, groups, options.get("scaling")), None


def _text_by_text(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, options: Mapping[str, Any]
) -> torch.Tensor:
    batch, heads, width, _ = query.shape
    seen = query.new_zeros(batch, width, heads, value.shape[-1])
    for row, begin, end in _pass.spans:
        text = (states[row : row + 1, :, begin:end] for states in (query, key, value))
        seen[row, begin:end] = sdpa_attention_forward(module, *text, None, **options)[0][0]
    return seen


def _closed(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, causal: bool, groups: int, scaling: float | None
) -> torch.Tensor:
    """The same for the compiler, which shall not look inside: it would compile anew for other texts in the rows."""
    module = SimpleNamespace(is_causal=causal, num_key_value_groups=groups)
    return _text_by_text(module, query, key, value, {"scaling": scaling})


def _shape(
    query: torch.Tensor, _key: torch.Tensor, value: torch.Tensor, _causal: bool, _groups: int, _scaling: float | None
) -> torch.Tensor:
    batch, heads, width, _ = query.shape
    return query.new_empty(batch, width, heads, value.shape[-1])


_opaque: Final = torch.library.custom_op("forebay::text_by_text", _closed, mutates_args=())
_opaque.register_fake(_shape)

AttentionInterface.register(_NAME, _attend)
