"""The model of each load as a user would write it with torch and transformers; every contender but Forebay runs this.

It imports nothing of Forebay, so that it runs in each contender's own environment, and what Forebay does better than
padding a list of rows is not given to the others.
"""

import io
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

import numpy as np

FLOATS, OUTPUTS = 16, 2
_SEED: Final = 7


class Runner(Protocol):
    """A loaded model."""

    def run(self, rows: Sequence[Any]) -> Any:
        """One forward pass over all rows, padded to the longest.

        Returns:
            Float32 [B, D]: row i is the answer to `rows[i]`: a unit vector (T1), probabilities (T2), outputs (T3).
        """


def loaded(load: str, path: str, dtype: str = "float32") -> Runner:
    """The model of a load on the CPU, with one torch thread."""
    if load == "T3":
        return Linear()
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(1)
    return Texts(path, dtype) if load == "T1" else Pictures(path, dtype)


class Texts:
    """MiniLM: mean of the last states, unit length."""

    def __init__(self, path: str, dtype: str) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(path)
        self.model: Any = AutoModel.from_pretrained(path, dtype=getattr(torch, dtype)).eval()
        self.limit = min(int(self.tokenizer.model_max_length), int(self.model.config.max_position_embeddings))

    def run(self, rows: Sequence[str]) -> Any:
        batch = self.tokenizer(list(rows), padding=True, truncation=True, max_length=self.limit, return_tensors="pt")
        return self.embed(batch)

    def embed(self, batch: Any) -> Any:
        """Tensors `input_ids`, `attention_mask`, int64 [B, T] → float32 [B, D]."""
        import torch

        with torch.inference_mode():
            states = self.model(**batch).last_hidden_state.float()  # [B, T, D]
            mask = batch["attention_mask"].unsqueeze(-1).float()  # [B, T, 1]
            pooled = (states * mask).sum(1) / mask.sum(1)  # [B, D]
            return torch.nn.functional.normalize(pooled, dim=-1).numpy()


class Pictures:
    """ViT: decode, scale, classify."""

    def __init__(self, path: str, dtype: str) -> None:
        import torch
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        self.dtype = getattr(torch, dtype)
        self.processor: Any = AutoImageProcessor.from_pretrained(path)
        self.model: Any = AutoModelForImageClassification.from_pretrained(path, dtype=self.dtype).eval()

    def run(self, rows: Sequence[bytes]) -> Any:
        import torch
        from PIL import Image

        images = [Image.open(io.BytesIO(row)).convert("RGB") for row in rows]
        pixels = self.processor(images, return_tensors="pt")["pixel_values"].to(self.dtype)  # [B, 3, 224, 224]
        with torch.inference_mode():
            return self.model(pixel_values=pixels).logits.float().softmax(-1).numpy()


class Linear:
    """One layer, 16 to 2, in numpy: all that is measured is what is around it."""

    def __init__(self) -> None:
        chance = np.random.default_rng(_SEED)
        self.weights = chance.standard_normal((FLOATS, OUTPUTS), dtype=np.float32)  # [16, 2]

    def run(self, rows: Sequence[Sequence[float]]) -> Any:
        return np.asarray(rows, dtype=np.float32) @ self.weights


def answers(load: str, outputs: Any) -> Iterator[Any]:
    """Of each row what is sent back: a list of floats (T1, T3), or `{"label", "score"}` (T2)."""
    if load != "T2":
        yield from outputs.tolist()
        return
    for row, best in zip(outputs, outputs.argmax(-1), strict=True):
        yield {"label": f"LABEL_{best}", "score": float(row[best])}


def agrees(load: str, answer: Any, expected: Sequence[float], dtype: str = "float32") -> bool:
    """Whether an answer is the model's own for that row, within what the order of sums and bfloat16 change."""
    wanted = np.asarray(expected)
    if load == "T2":
        # Two labels may be equally likely: what counts is that the model gives this one this score, and none more.
        score = wanted[int(answer["label"].removeprefix("LABEL_"))]
        near = 2e-2 if dtype == "bfloat16" else 1e-4
        return bool(abs(answer["score"] - score) < near and abs(wanted.max() - score) < near)
    given = np.asarray(answer, dtype=np.float64)
    if given.shape != wanted.shape:
        return False
    if dtype == "bfloat16":
        return bool(given @ wanted > 0.999)
    return bool(np.abs(given - wanted).max() < 1e-4)
