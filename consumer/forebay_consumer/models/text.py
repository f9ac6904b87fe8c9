"""Text tasks: sentence embeddings, classification, fill-mask."""

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Final

import torch
import transformers
from transformers.utils import cached_file

from forebay_consumer.errors import BadConfig, ModelUnavailable
from forebay_consumer.models import probes
from forebay_consumer.models.base import (
    Classification,
    TorchModel,
    check_option,
    is_positive,
    top_k,
    translated_memory_errors,
)
from forebay_consumer.models.precision import scores_differ, vectors_differ
from forebay_schemas import InvalidRequest, RequestError, TooLarge, Unsupported

_UNLIMITED: Final = 1_000_000  # tokenizers without a limit say 1e30

Tokens = Mapping[str, list[int]]
"""One prepared row: `input_ids`, and `token_type_ids` where the model has them; no padding, no mask."""


class TextModel(TorchModel):
    """Tokenises without padding, and pads to the longest row of a batch. A row is a `str`, which may be empty.

    Args:
        max_length: most tokens of a row, special ones included; None (default) takes the checkpoint's own limit.
        truncation: cut longer texts (default); False answers them `too_large`.
    """

    def __init__(self, path: str, max_length: int | None = None, truncation: bool = True, **options: Any) -> None:
        super().__init__(path, **options)
        check_option(
            "max_length", max_length, max_length is None or is_positive(max_length), "positive integers, or null"
        )
        check_option("truncation", truncation, isinstance(truncation, bool), "true and false")
        self._max_length = max_length
        self._truncation = truncation
        self._tokenizer: Any = None
        self._limit = 0
        self._names: Sequence[str] = ()

    def _load_processor(self) -> None:
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(
            self._path, trust_remote_code=self._trust_remote_code
        )
        # transformers makes up an empty one where the files are missing, and every word is unknown to it.
        if len(self._tokenizer) <= len(self._tokenizer.all_special_ids):
            raise ValueError("its tokenizer has no vocabulary; is tokenizer.json missing?")

    def load(self, device: str) -> None:
        super().load(device)
        accepted = inspect.signature(self._model.forward).parameters
        self._names = [
            name for name in self._tokenizer.model_input_names if name in accepted and name != "attention_mask"
        ]
        self._limit = self._token_limit()
        # A fast tokenizer keeps its truncation: set here once, no later call changes it under another thread.
        self._tokenize([""])

    def _token_limit(self) -> int:
        limit = int(min(self._tokenizer.model_max_length, _positions(self._model), _UNLIMITED))
        if self._max_length is None:
            return limit
        least = self._tokenizer.num_special_tokens_to_add() + 1
        check_option("max_length", self._max_length, least <= self._max_length <= limit, f"{least} to {limit}")
        return self._max_length

    def preprocess(self, rows: Sequence[Any], parameters: Mapping[str, Any]) -> Sequence[Tokens | RequestError]:
        """Tokenise all texts in one call.

        Returns:
            `Tokens`, or in its place why the row is refused.
        Raises:
            InvalidRequest: a parameter is not allowed.
        """
        self.check_parameters(parameters)
        tokens = self._tokenize([row for row in rows if isinstance(row, str)])
        return [self._checked(next(tokens)) if isinstance(row, str) else _refusal(row) for row in rows]

    def _tokenize(self, texts: list[str]) -> Iterator[Tokens]:
        if not texts:
            return iter(())
        cut: dict[str, Any] = {"truncation": True, "max_length": self._limit} if self._truncation else {}
        encoded = self._tokenizer(texts, padding=False, return_attention_mask=False, verbose=False, **cut)
        columns = [encoded[name] for name in self._names]
        return (dict(zip(self._names, values, strict=True)) for values in zip(*columns, strict=True))

    def _checked(self, tokens: Tokens) -> Tokens | RequestError:
        count = len(tokens["input_ids"])
        return tokens if count <= self._limit else TooLarge(f"text: {count} tokens; the limit is {self._limit}")

    def cost(self, row: Tokens) -> int:
        """Tokens, special ones included."""
        return len(row["input_ids"])

    def collate(self, rows: Sequence[Tokens]) -> dict[str, Any]:
        """Pad to the longest row, on the side that the tokenizer says.

        Returns:
            `input_ids`, `attention_mask` and what else the rows have, int64 [B, T] each, on the model's device.
        """
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])  # [B]
        longest = int(lengths.max())
        places = torch.arange(longest)  # [T]
        if self._tokenizer.padding_side == "left":
            places = places.flip(0)
        mask = places < lengths.unsqueeze(-1)  # [B, T]
        batch = {"attention_mask": mask.long()}
        for name in self._names:
            padded = torch.full(mask.shape, self._filler(name))  # [B, T]
            padded[mask] = torch.tensor([*chain.from_iterable(row[name] for row in rows)])
            batch[name] = padded
        with translated_memory_errors():
            return {name: self.to_device(values) for name, values in batch.items()}

    def _filler(self, name: str) -> int:
        if name != "input_ids":
            return int(self._tokenizer.pad_token_type_id)
        # A decoder finds the last token of a row by the model's own padding token.
        known = (self._tokenizer.pad_token_id, getattr(self._model.config, "pad_token_id", None))
        return next((int(token) for token in known if token is not None), 0)

    def samples(self) -> Sequence[Any]:
        """A short and a longer text; none before `load`."""
        if not self._limit:
            return ()
        texts = [self._sample(words) for words in (3, 60)]
        return [text for text in texts if not isinstance(self.preprocess([text], {})[0], RequestError)]

    def probes(self) -> Sequence[Any]:
        return probes.TEXTS

    def _sample(self, words: int) -> str:
        return " ".join(["water"] * words)


class FeatureExtraction(TextModel):
    """Sentence embeddings: one vector per text, numpy float32 [D].

    Args:
        pooling: `mean` over the text's tokens, or `cls`, its first; None (default) takes what the checkpoint's
            `1_Pooling/config.json` (sentence-transformers) says, and `mean` where there is none.
        normalize: scale vectors to unit length (default).
    """

    auto_class = "AutoModel"
    unused_weights = "pooler"

    def __init__(self, path: str, pooling: str | None = None, normalize: bool = True, **options: Any) -> None:
        super().__init__(path, **options)
        check_option("pooling", pooling, pooling in (None, "mean", "cls"), "mean and cls, or null")
        check_option("normalize", normalize, isinstance(normalize, bool), "true and false")
        self._pooling = pooling
        self._normalize = normalize

    def load(self, device: str) -> None:
        super().load(device)
        if self._pooling is None:
            self._pooling = _saved_pooling(self._path)

    def _run(self, batch: Mapping[str, Any]) -> Any:
        """B vectors, numpy float32 [D] each; vector i belongs to row i of the batch."""
        states = self._model(**batch).last_hidden_state.float()  # [B, T, D]
        mask = batch["attention_mask"]  # [B, T]
        if self._pooling == "cls":
            first = mask.argmax(-1)  # [B], not 0 where the padding is on the left
            pooled = states[torch.arange(len(states), device=states.device), first]  # [B, D]
        else:
            weights = mask.unsqueeze(-1).float()  # [B, T, 1]
            pooled = (states * weights).sum(1) / weights.sum(1)  # [B, D]
        if self._normalize:
            pooled = torch.nn.functional.normalize(pooled, dim=-1)
        return list(pooled.cpu().numpy())

    def differ(self, exact: Any, other: Any) -> str | None:
        return vectors_differ(exact, other)


class TextClassification(Classification, TextModel):
    """The class of a text; see `Classification` and `TextModel`."""

    auto_class = "AutoModelForSequenceClassification"


class FillMask(TextModel):
    """For the masks of a text the likeliest tokens: `{"score", "token", "token_str", "sequence"}`, best first.

    One mask gives a list of `top_k` (request parameter, default 5) of them; several give one such list per mask.
    The output of a pass holds rows × tokens × vocabulary floats for a moment: bound it by `batching.max_batch_cost`.
    """

    auto_class = "AutoModelForMaskedLM"
    allowed_parameters: ClassVar[frozenset[str]] = frozenset({"top_k"})

    def load(self, device: str) -> None:
        super().load(device)
        if self._tokenizer.mask_token_id is None:
            raise ModelUnavailable(f"model.path={self._path!r}: its tokenizer has no mask token, which fill-mask needs")

    def _checked(self, tokens: Tokens) -> Tokens | RequestError:
        if self._tokenizer.mask_token_id in tokens["input_ids"]:
            return super()._checked(tokens)
        within = f" within its first {self._limit} tokens" if len(tokens["input_ids"]) >= self._limit else ""
        mask = self._tokenizer.mask_token
        return InvalidRequest(f"text: no {mask}{within}; write {mask} where a word is missing")

    def _run(self, batch: Mapping[str, Any]) -> Any:
        """Float32 [M, V] on the device: the logits of all masks of the batch, row by row."""
        logits = self._model(**batch).logits  # [B, T, V]
        return logits[batch["input_ids"] == self._tokenizer.mask_token_id].float()  # [M, V]

    def postprocess(self, output: Any, rows: Sequence[Tokens], parameters: Mapping[str, Any]) -> Sequence[Any]:
        vocabulary = output.shape[-1]
        count = min(top_k(parameters, 5) or vocabulary, vocabulary)
        with translated_memory_errors():
            scores, tokens = (best.tolist() for best in output.softmax(-1).topk(count))  # [M, K]
        found = zip(scores, tokens, strict=True)
        outputs: list[Any] = []
        for row in rows:
            ids = row["input_ids"]
            masks = [place for place, token in enumerate(ids) if token == self._tokenizer.mask_token_id]
            each = [self._candidates(ids, place, len(masks), *next(found)) for place in masks]
            outputs.append(each[0] if len(each) == 1 else each)
        return outputs

    def _candidates(
        self, ids: list[int], place: int, masks: int, scores: list[float], tokens: list[int]
    ) -> list[dict[str, Any]]:
        # As transformers' pipeline has it: special tokens show where several masks are, or the others would vanish.
        decode, padding = self._tokenizer.decode, self._tokenizer.pad_token_id
        candidates = []
        for score, token in zip(scores, tokens, strict=True):
            filled = [each for each in (*ids[:place], token, *ids[place + 1 :]) if each != padding]
            sequence = decode(filled, skip_special_tokens=masks == 1)
            candidates.append({"score": score, "token": token, "token_str": decode([token]), "sequence": sequence})
        return candidates

    def differ(self, exact: Any, other: Any) -> str | None:
        return scores_differ(exact.softmax(-1).cpu(), other.softmax(-1).cpu())

    def probes(self) -> Sequence[Any]:
        """Each text with a mask in its middle."""
        words = [text.split() for text in probes.TEXTS]
        mask = self._tokenizer.mask_token
        return [" ".join([*each[: len(each) // 2], mask, *each[len(each) // 2 :]]) for each in words]

    def _sample(self, words: int) -> str:
        return f"{self._tokenizer.mask_token} {super()._sample(words)}"


def _refusal(row: Any) -> RequestError:
    if isinstance(row, bytes):
        return Unsupported(f"expected a text, got {len(row)} bytes that are no text; this model serves text only")
    return InvalidRequest(f"expected a text (a string), got {type(row).__name__}")


def _positions(model: Any) -> int:
    """Most tokens that the model has positions for; `_UNLIMITED` where it needs none."""
    positions: int | None = getattr(model.config, "max_position_embeddings", None)
    if positions is None or positions < 1:
        return _UNLIMITED
    # The RoBERTa family begins to count behind the padding's position.
    for name, table in model.named_modules():
        if name.endswith("position_embeddings") and getattr(table, "padding_idx", None) is not None:
            return positions - int(table.padding_idx) - 1
    return positions


def _saved_pooling(path: str) -> str:
    """`mean` or `cls`, as sentence-transformers saved it beside the checkpoint; `mean` where it saved nothing.

    Raises:
        BadConfig: it saved something else, and another pooling would silently give other vectors.
    """
    saved = cached_file(path, "1_Pooling/config.json", _raise_exceptions_for_missing_entries=False)
    if saved is None:
        return "mean"
    settings = json.loads(Path(saved).read_text())
    modes = [name for name, chosen in settings.items() if name.startswith("pooling_mode_") and chosen]
    if modes == ["pooling_mode_mean_tokens"]:
        return "mean"
    if modes == ["pooling_mode_cls_token"]:
        return "cls"
    raise BadConfig(
        f"model.path={path!r}: its 1_Pooling/config.json asks for {', '.join(modes) or 'none'}, which is not built "
        "in; say model.options.pooling: mean or cls, or write a model of your own"
    )
