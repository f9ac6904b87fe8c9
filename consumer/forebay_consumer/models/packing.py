"""Several texts in one row, kept apart in attention alone: a pass without padding.

How a checkpoint wants to be told, if it can be at all, is found on its own weights: `schemes` says what might do,
`packing_probe.choose` tries it.
"""

import inspect
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from forebay_consumer.models.apart import apart
from forebay_consumer.models.layout import Layout, lay_out


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a model is told where a text begins and ends in its row.

    Attributes:
        name: in logs and metrics.
        first: the position of a text's first token; None where the model is told no positions.
        apart: attention is run text by text, and needs no mask; see `apart`.
        causal: a token sees none behind it, as in a decoder.
        window: masks by kind of layer; the sliding ones see so many tokens to each side. None gives one mask for all.
    """

    name: str
    first: int | None
    apart: bool = False
    causal: bool = False
    window: int | None = None


def schemes(base: Any) -> list[Scheme]:
    """What might do for `base`, the fastest and likeliest first; none of them can break a device that runs it."""
    known = inspect.signature(base.forward).parameters
    table = padding_index(base)
    counts = [("positions-from-0", 0)] if "position_ids" in known else []
    if counts and table is not None:  # elsewhere the last of them may lie outside of the table, which loses a GPU
        counts.append(("positions-from-padding", table + 1))
    offered = []
    if base.device.type == "cpu":  # a GPU would launch a kernel for each text and layer
        offered += [Scheme(f"apart-{name}", first, apart=True) for name, first in counts]
    offered += [Scheme(name, first) for name, first in counts]
    offered.append(Scheme("no-positions", None))
    first = 0 if counts else None
    if (window := _window(base.config)) is not None:
        offered.append(Scheme("by-layer", first, window=window))
        offered.append(Scheme("causal-by-layer", first, causal=True, window=window - 1))
    offered.append(Scheme("causal", first, causal=True))
    return offered


def padding_index(model: Any) -> int | None:
    """The padding's position, in a model that counts positions from behind it (the RoBERTa family)."""
    for name, table in model.named_modules():
        if name.endswith("position_embeddings") and getattr(table, "padding_idx", None) is not None:
            return int(table.padding_idx)
    return None


def _window(config: Any) -> int | None:
    """What transformers calls `sliding_window`, of a model that has such layers among others."""
    sliding = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    return getattr(config, "sliding_window", None) if sliding else None


@dataclass(frozen=True, slots=True)
class Packed:
    """Input for one pass over texts in packed rows, on the model's device.

    Attributes:
        inputs: what the base model gets: `input_ids`, `attention_mask`, ..., [B, R] or [B, 1, R, R].
        outer: what the task's model gets, whose head may look at the texts; its base model gets `inputs` instead.
        cells: int64 [.., ..]; the base model's states at these cells are what the head gets, in this shape.
        layout: where the texts are.
    """

    inputs: Mapping[str, Any]
    outer: Mapping[str, Any]
    cells: torch.Tensor
    layout: Layout


class Packing:
    """Lets a loaded model run packed rows, by hooks on its base model that rest in every other pass.

    The head runs on states that are unpacked already, whatever its architecture: on a packed row it would answer once
    for all texts in it. A pooler counts as a head, hence the hooks within the base model.

    Args:
        model: the task's model; its `base_model` is the encoder with its embeddings.
        width: tokens in a row; longer texts are not packed.
        most: no row gets longer, since the model has no positions for it.
    """

    def __init__(self, model: Any, width: int, most: int) -> None:
        self.width = min(width, most)
        self.scheme = Scheme("", None)
        self._most = most
        self._model = model
        self._now: Packed | None = None  # from the beginning to the end of a packed pass
        base = model.base_model
        encoder, pooler = (getattr(base, name, None) for name in ("encoder", "pooler"))
        self._hooks = [base.register_forward_pre_hook(self._give, with_kwargs=True)]
        if isinstance(encoder, torch.nn.Module):
            self._hooks.append(encoder.register_forward_hook(self._take))
        else:
            self._hooks.append(base.register_forward_hook(self._take))
            if isinstance(pooler, torch.nn.Module):
                self._hooks.append(pooler.register_forward_pre_hook(self._pool))

    def remove(self) -> None:
        """Leave the model as it was."""
        for hook in self._hooks:
            hook.remove()

    def lay_out(self, lengths: Sequence[int]) -> Layout:
        return lay_out(lengths, self.width, self._most)

    def pointers(self, layout: Layout) -> dict[str, Any]:
        """`attention_mask` and what else tells the texts of a row apart, by the scheme, on the model's device."""
        texts = layout.texts.to(self._model.device)  # [B, R]
        positions = {}
        if self.scheme.first is not None:
            positions["position_ids"] = layout.places.to(texts.device) + self.scheme.first
        return {"attention_mask": None if self.scheme.apart else self._masks(texts), **positions}

    def _masks(self, texts: torch.Tensor) -> Any:
        """One [B, 1, R, R], or one by kind of layer."""
        mask = texts.unsqueeze(2) == texts.unsqueeze(1)  # [B, R, R]; padding sees padding, so no cell sees nothing
        cell = torch.arange(texts.shape[1], device=texts.device)
        ahead = cell - cell.unsqueeze(1)  # [R, R], how far the seen is ahead of the one that sees
        if self.scheme.causal:
            mask = mask & (ahead <= 0)
        if self.scheme.window is None:
            return self._additive(mask)
        near = mask & (ahead.abs() <= self.scheme.window)
        return {"full_attention": self._additive(mask), "sliding_attention": self._additive(near)}

    def _additive(self, mask: torch.Tensor) -> torch.Tensor:
        """[B, 1, R, R]. Never a bool: eager attention would add it, as 1, and say nothing."""
        dtype = self._model.dtype
        return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min).unsqueeze(1)

    def run(self, packed: Packed) -> Any:
        """The task's output, of its own head on unpacked states."""
        return self._with(packed, self._model, packed.outer)

    def states(self, packed: Packed) -> torch.Tensor:
        """The base model's states at `cells`, [.., .., D]."""
        states: torch.Tensor = self._with(packed, self._model.base_model, packed.inputs)[0]
        return states

    def _with(self, packed: Packed, run: Any, inputs: Mapping[str, Any]) -> Any:
        self._now = packed
        try:
            with apart(self._model.base_model, packed.layout.spans) if self.scheme.apart else nullcontext():
                return run(**inputs)
        finally:
            self._now = None

    def _give(self, _module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return (args, kwargs) if self._now is None else ((), {**kwargs, **self._now.inputs})

    def _take(self, _module: Any, _args: Any, output: Any) -> Any:
        if self._now is None:
            return output
        if isinstance(output, tuple):
            return (self._kept(self._now, output[0]), *output[1:])
        output.last_hidden_state = self._kept(self._now, output.last_hidden_state)
        return output

    def _pool(self, _module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return args if self._now is None else (self._kept(self._now, args[0]), *args[1:])

    def _kept(self, packed: Packed, states: torch.Tensor) -> torch.Tensor:
        return states.flatten(0, 1)[packed.cells]  # [.., .., D]
