"""Attention run text by text within packed rows: a mask has all of a row computed, and most of it discarded."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    batch, heads, width, _ = query.shape
    seen = query.new_zeros(batch, width, heads, value.shape[-1])
    for row, begin, end in _pass.spans:
        text = (states[row : row + 1, :, begin:end] for states in (query, key, value))
        seen[row, begin:end] = sdpa_attention_forward(module, *text, None, **options)[0][0]
    return seen, None


AttentionInterface.register(_NAME, _attend)
