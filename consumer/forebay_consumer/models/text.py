"""Text tasks: sentence embeddings, classification, fill-mask."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import torch

from forebay_consumer.errors import BadConfig
from forebay_consumer.models.base import TorchModel, labelled, scores, top_k
from forebay_schemas import InvalidRequest, RequestError, TooLarge, Unsupported

_LONGEST: Final = 100_000  # tokenizers without a limit say 1e30

Tokens = Mapping[str, list[int]]
"""One prepared row: `input_ids`, and `token_type_ids` where the model has them; no padding, no mask."""


class TextModel(TorchModel):
    """Tokenises without padding, and pads to the longest row of a batch.

    Args:
        max_length: most tokens of a row; None takes the checkpoint's own limit.
        truncation: cut longer texts (default); False answers them `too_large`.
    """

    def __init__(self, path: str, max_length: int | None = None, truncation: bool = True, **options: Any) -> None:
        super().__init__(path, **options)
        self._max_length = max_length
        self._truncation = truncation
        self._tokenizer: Any = None

    def _load_processor(self, transformers: Any) -> None:
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(Path(self._path).expanduser()), trust_remote_code=self._trust_remote_code
        )

    def load(self, device: str) -> None:
        super().load(device)
        positions = getattr(self._model.config, "max_position_embeddings", _LONGEST)
        if self._model.config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet"):
            positions -= 2  # their positions start behind padding_idx
        self._limit = min(self._max_length or _LONGEST, self._tokenizer.model_max_length, positions)

    def preprocess(self, rows: Sequence[Any], parameters: Mapping[str, Any]) -> Sequence[Tokens | RequestError]:
        self._check_parameters(parameters)
        texts = [row for row in rows if isinstance(row, str)]
        encoded = self._tokenize(texts) if texts else {}
        names = [name for name in self._tokenizer.model_input_names if name in encoded and name != "attention_mask"]
        each = (
            dict(zip(names, values, strict=True)) for values in zip(*(encoded[name] for name in names), strict=True)
        )
        return [self._checked(next(each)) if isinstance(row, str) else _not_text(row) for row in rows]

    def _tokenize(self, texts: Sequence[str]) -> Mapping[str, list[list[int]]]:
        cut: dict[str, Any] = {"truncation": True, "max_length": self._limit} if self._truncation else {}
        encoded: Mapping[str, list[list[int]]] = self._tokenizer(
            list(texts), padding=False, return_attention_mask=False, verbose=False, **cut
        )
        return encoded

    def _checked(self, tokens: Tokens) -> Tokens | RequestError:
        if len(tokens["input_ids"]) > self._limit:
            return TooLarge(f"text: {len(tokens['input_ids'])} tokens; the model takes {self._limit}")
        return tokens

    def cost(self, row: Tokens) -> int:
        return len(row["input_ids"])

    def collate(self, rows: Sequence[Tokens]) -> dict[str, Any]:
        """int64 [B, T] each of `input_ids`, `attention_mask` and what else the rows have, padded to the longest."""
        longest = max(len(row["input_ids"]) for row in rows)
        right = self._tokenizer.padding_side == "right"
        fill = {"input_ids": self._tokenizer.pad_token_id or 0, "token_type_ids": self._tokenizer.pad_token_type_id}

        def padded(values: list[int], filler: int) -> list[int]:
            padding = [filler] * (longest - len(values))
            return values + padding if right else padding + values

        batch = {name: [padded(row[name], fill.get(name, 0)) for row in rows] for name in rows[0]}
        batch["attention_mask"] = [padded([1] * len(row["input_ids"]), 0) for row in rows]
        return {name: torch.tensor(values).to(self._device) for name, values in batch.items()}  # [B, T]

    def samples(self) -> Sequence[Any]:
        return ("a short text", "a rather long text that says the same thing over and over again " * 4)


def _not_text(row: Any) -> RequestError:
    if isinstance(row, bytes):
        return Unsupported("this model takes text; got an image")
    return InvalidRequest(f"expected a string (text), got {type(row).__name__}")


class FeatureExtraction(TextModel):
    """Sentence embeddings: one vector per text.

    Args:
        pooling: `mean` over the text's tokens or `cls`, its first; None takes what the folder's
            `1_Pooling/config.json` (sentence-transformers) says, else mean.
        normalize: scale vectors to unit length (default).
    """

    auto_class = "AutoModel"

    def __init__(self, path: str, pooling: str | None = None, normalize: bool = True, **options: Any) -> None:
        super().__init__(path, **options)
        if pooling not in (None, "mean", "cls"):
            raise BadConfig(f"model.options.pooling={pooling!r}: allowed are mean and cls")
        self._pooling = pooling
        self._normalize = normalize

    def load(self, device: str) -> None:
        super().load(device)
        self._pooling = self._pooling or _saved_pooling(Path(self._path).expanduser())

    def _run(self, batch: Mapping[str, Any]) -> Any:
        """Float32 [B, D]; row i belongs to row i of the batch."""
        states = self._model(**batch).last_hidden_state  # [B, T, D]
        if self._pooling == "cls":
            pooled = states[:, 0].float()  # [B, D]
        else:
            mask = batch["attention_mask"].unsqueeze(-1).to(states.dtype)  # [B, T, 1]
            pooled = ((states * mask).sum(1) / mask.sum(1)).float()  # [B, D]
        return torch.nn.functional.normalize(pooled, dim=-1) if self._normalize else pooled

    def postprocess(self, output: Any, rows: Sequence[Tokens], parameters: Mapping[str, Any]) -> Sequence[Any]:
        return list(output.cpu().numpy())


def _saved_pooling(folder: Path) -> str:
    saved = folder / "1_Pooling" / "config.json"
    return "cls" if saved.is_file() and json.loads(saved.read_text()).get("pooling_mode_cls_token") else "mean"


class TextClassification(TextModel):
    """`{"label", "score"}`, the best one; request parameter `top_k` gives a list."""

    auto_class = "AutoModelForSequenceClassification"
    allowed_parameters: ClassVar[frozenset[str]] = frozenset({"top_k"})

    def preprocess(self, rows: Sequence[Any], parameters: Mapping[str, Any]) -> Sequence[Tokens | RequestError]:
        top_k(parameters, None)
        return super().preprocess(rows, parameters)

    def postprocess(self, output: Any, rows: Sequence[Tokens], parameters: Mapping[str, Any]) -> Sequence[Any]:
        return labelled(scores(output.logits, self._model.config), self._model.config, parameters)


class FillMask(TextModel):
    """For each mask the likeliest tokens: `{"score", "token", "token_str", "sequence"}`, best first.

    One mask gives a list of `top_k` (default 5) candidates; several give one such list per mask.
    """

    auto_class = "AutoModelForMaskedLM"
    allowed_parameters: ClassVar[frozenset[str]] = frozenset({"top_k"})

    def preprocess(self, rows: Sequence[Any], parameters: Mapping[str, Any]) -> Sequence[Tokens | RequestError]:
        top_k(parameters, None)
        return super().preprocess(rows, parameters)

    def _checked(self, tokens: Tokens) -> Tokens | RequestError:
        if self._tokenizer.mask_token_id not in tokens["input_ids"]:
            return InvalidRequest(f"text: it has no mask; write {self._tokenizer.mask_token} where a word is missing")
        return super()._checked(tokens)

    def _run(self, batch: Mapping[str, Any]) -> Any:
        """Float32 [M, V]: the logits of all masks of the batch, row by row; the rest of [B, T, V] is let go."""
        states = self._model(**batch).logits  # [B, T, V]
        return states[batch["input_ids"] == self._tokenizer.mask_token_id].float()  # [M, V]

    def postprocess(self, output: Any, rows: Sequence[Tokens], parameters: Mapping[str, Any]) -> Sequence[Any]:
        wanted = top_k(parameters, 5) or output.shape[-1]
        values, tokens = output.softmax(-1).topk(min(wanted, output.shape[-1]))  # [M, K]
        found = iter(zip(values.tolist(), tokens.tolist(), strict=True))
        outputs: list[Any] = []
        for row in rows:
            ids = row["input_ids"]
            masks = [place for place, token in enumerate(ids) if token == self._tokenizer.mask_token_id]
            each = [self._candidates(ids, place, *next(found), one=len(masks) == 1) for place in masks]
            outputs.append(each[0] if len(each) == 1 else each)
        return outputs

    def _candidates(
        self, ids: list[int], place: int, values: list[float], tokens: list[int], *, one: bool
    ) -> list[dict[str, Any]]:
        candidates = []
        for value, token in zip(values, tokens, strict=True):
            filled = [*ids[:place], token, *ids[place + 1 :]]
            # As transformers' pipeline: other masks stay visible in the sequence, special tokens too then.
            sequence = self._tokenizer.decode(filled, skip_special_tokens=one)
            candidates.append(
                {"score": value, "token": token, "token_str": self._tokenizer.decode([token]), "sequence": sequence}
            )
        return candidates
