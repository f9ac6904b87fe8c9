"""Text tasks: sentence embeddings, classification, fill-mask."""

import inspect
import sys
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, ClassVar, Final

import structlog
import tokenizers
import torch
import transformers

from forebay_consumer.errors import ModelUnavailable
from forebay_consumer.model import PADS
from forebay_consumer.models import precision_rows
from forebay_consumer.models.base import (
    Classification,
    TorchModel,
    check_option,
    is_positive,
    numbers,
    top_k,
    translated_memory_errors,
)
from forebay_consumer.models.layout import Layout
from forebay_consumer.models.packing import Packed, Packing, padding_index
from forebay_consumer.models.packing_probe import Seen, choose, may_pad, sample_rows
from forebay_consumer.models.precision import scores_differ, vectors_differ
from forebay_consumer.models.sentences import check_modules, lowers, saved_pooling
from forebay_schemas import InvalidRequest, RequestError, TooLarge, Unsupported

_UNLIMITED: Final = 1_000_000  # tokenizers without a limit say 1e30
_CHARACTERS: Final = 8  # of a token; English has four to five
_RAGGED_TOKENS: Final = 256
"""So many after the last that counts: where a text is cut, a word may be cut; of WordPiece's a hundred tokens."""

_PACKED_TOKENS: Final = 256
"""Tokens in a packed row: measured best on a CPU, and half of what most encoders take."""

_MOST_CANDIDATES: Final = 100
_MOST_CANDIDATES_OF_A_ROW: Final = 500

Tokens = Mapping[str, list[int]]
"""One prepared row: `input_ids`, and `token_type_ids` where the model has them; no padding, no mask."""

Padded = Mapping[str, Any]
"""`input_ids`, `attention_mask` and what else the rows have, int64 [B, T] each, on the model's device."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A batch without padding: some texts in packed rows, others with those of the very same length.

    Attributes:
        order: int64 [n], on the device: which of the parts' outputs, one after another, comes first, second, ...
        padding: share of all cells that is padding.
    """

    parts: Sequence[Packed | Padded]
    order: torch.Tensor
    padding: float


Batch = Padded | Parts


class TextModel(TorchModel):
    """Tokenises without padding, and packs a batch or pads it to its longest row. A row is a `str`, which may be empty.

    Args:
        max_length: most tokens of a row, special ones included; None (default) takes the checkpoint's own limit.
        truncation: cut longer texts (default); False answers them `too_large`.
        packing: `auto` (default) packs where loading finds that answers stay the same, and pads only where they do
            then; `off` always pads.
    """

    def __init__(
        self,
        path: str,
        max_length: int | None = None,
        truncation: bool = True,
        packing: str | bool = "auto",
        **options: Any,
    ) -> None:
        super().__init__(path, **options)
        # YAML reads a bare off as false.
        check_option("packing", packing, packing in ("auto", "off") or packing is False, "auto and off")
        check_option(
            "max_length", max_length, max_length is None or is_positive(max_length), "positive integers, or null"
        )
        check_option("truncation", truncation, isinstance(truncation, bool), "true and false")
        self._max_length = max_length
        self._truncation = truncation
        self._may_pack = packing == "auto"
        self._packing: Packing | None = None
        self._may_pad = True
        self._tokenizer: Any = None
        self._limit = 0
        self._looked_at = sys.maxsize  # characters of a text, at first
        self._embeddings = 0
        self._padding_token = 0
        self._names_padding = True
        self._told_positions = False
        self._uncounted: int | None = None
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
        self._embeddings = self._model.get_input_embeddings().num_embeddings
        # The RoBERTa family counts by itself, and not the padding.
        self._uncounted = padding_index(self._model)
        self._told_positions = "position_ids" in accepted and self._uncounted is None
        self._settle_padding()
        if self._tokenizer.is_fast and self._tokenizer.truncation_side == "right" and self._limit < _UNLIMITED:
            self._looked_at = _CHARACTERS * (self._limit + _RAGGED_TOKENS)
        # A fast tokenizer keeps its truncation: set here once, no later call changes it under another thread.
        (added,) = self._tokenize([""])
        if max(added["input_ids"], default=0) >= self._embeddings:
            raise ModelUnavailable(
                f"model.path={self._path!r}: its tokenizer adds token {max(added['input_ids'])} to every text, and the "
                f"model has embeddings for {self._embeddings} tokens"
            )
        if self._may_pack:
            self._choose_packing()

    def _settle_padding(self) -> None:
        """A classifier's head looks for the last token before the model's own padding token, which must be ours."""
        own = getattr(self._model.config.get_text_config(), "pad_token_id", None)
        # A tokenizer may have got one that the model, which was not made larger, has no state for.
        known = [
            token
            for token in (own, self._tokenizer.pad_token_id, self._tokenizer.eos_token_id)
            if token is not None and 0 <= token < self._embeddings
        ]
        self._names_padding = own in known
        self._pad_with(known[0] if known else 0)

    def _pad_with(self, token: int) -> None:
        self._model.config.get_text_config().pad_token_id = self._padding_token = int(token)

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
        encoded = self._encoded([text[: self._looked_at] for text in texts])
        columns = [encoded[name] for name in self._names]
        rows = (dict(zip(self._names, values, strict=True)) for values in zip(*columns, strict=True))
        if max(map(len, texts)) <= self._looked_at:  # as mostly
            return rows
        return map(self._enough, texts, rows, encoded.encodings)

    def _encoded(self, texts: list[str]) -> transformers.BatchEncoding:
        cut: dict[str, Any] = {"truncation": True, "max_length": self._limit} if self._truncation else {}
        return self._tokenizer(texts, padding=False, return_attention_mask=False, verbose=False, **cut)

    def _enough(self, text: str, row: Tokens, whole: tokenizers.Encoding) -> Tokens:
        """The tokens of a text, of which more and more is looked at while its beginning gave too few."""
        looked_at = self._looked_at
        while looked_at < len(text):
            added = self._tokenizer.num_special_tokens_to_add()
            further = sum(len(rest) - added for rest in whole.overflowing)
            if len(row["input_ids"]) + further > self._limit + _RAGGED_TOKENS:
                break
            looked_at *= 4
            encoded = self._encoded([text[:looked_at]])
            row, whole = {name: encoded[name][0] for name in self._names}, encoded.encodings[0]
        return row

    def _checked(self, tokens: Tokens) -> Tokens | RequestError:
        count = len(tokens["input_ids"])
        if not count:
            return InvalidRequest("text: no tokens; this model has no answer to an empty text")
        if count > self._limit:
            looked_at = self._limit + _RAGGED_TOKENS
            told = str(count) if count < looked_at else f"{looked_at} or more"
            return TooLarge(f"text: {told} tokens; the limit is {self._limit}")
        return tokens if max(tokens["input_ids"]) < self._embeddings else self._unknown(tokens)

    def _unknown(self, tokens: Tokens) -> InvalidRequest:
        """A tokenizer may have more tokens than its model; one such on a GPU would end the worker."""
        place, token = next((at, each) for at, each in enumerate(tokens["input_ids"]) if each >= self._embeddings)
        name = self._tokenizer.convert_ids_to_tokens(token)
        return InvalidRequest(f"text: token {place} is {name!r:.40}, which the tokenizer has and the model has not")

    def cost(self, row: Tokens) -> int:
        """Tokens, special ones included."""
        return len(row["input_ids"])

    def collate(self, rows: Sequence[Tokens]) -> Batch:
        """Pack the rows, else pad them to the longest, on the side that the tokenizer says, or part them by length."""
        with translated_memory_errors():
            return self._padded(rows) if self._packing is None and self._may_pad else self._parts(rows)

    def batches_of_each_kind(self, rows: Sequence[Tokens]) -> Iterable[Sequence[Tokens]]:
        """What is packed is a case beside what is padded, in a single row or in several."""
        batches = [*super().batches_of_each_kind(rows)]
        if not self._tokenizer.num_special_tokens_to_add():  # a text of one token is a case of its own
            word = {name: values[:1] for name, values in rows[-1].items()}
            batches += [[word], [word] * 2]
        if self._packing is not None:
            unequal = sorted({self.cost(row): row for row in rows}.items())[:2]
            if len(unequal) == 2 and unequal[-1][0] <= self._packing.width:
                pair = [row for _, row in unequal]
                batches += [pair, pair * (1 + 2 * self._packing.width // sum(cost for cost, _ in unequal))]
        return batches

    def padding(self, batch: Batch) -> float | None:
        return batch.padding if isinstance(batch, Parts) else None

    def _padded(self, rows: Sequence[Tokens]) -> Padded:
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])  # [B]
        longest = int(lengths.max())
        places = torch.arange(longest)  # [T]
        if self._tokenizer.padding_side == "left":
            places = places.flip(0)
        mask = places < lengths.unsqueeze(-1)  # [B, T]
        batch = {"attention_mask": mask.long()}
        if self._packing is None and self._told_positions and self._tokenizer.padding_side == "left":
            batch["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)  # else padding counts, where it is in front
        for name in self._names:
            padded = torch.full(mask.shape, self._filler(name))  # [B, T]
            padded[mask] = torch.tensor([*chain.from_iterable(row[name] for row in rows)])
            batch[name] = padded
        return {name: self.to_device(values) for name, values in batch.items()}

    def _parts(self, rows: Sequence[Tokens]) -> Parts:
        """Rows that are alone of their length, or cannot be packed, go as they are: there is nothing to mask."""
        alike: dict[int, list[int]] = {}
        packable: list[int] = []
        for place, row in enumerate(rows):
            (packable if self._fits(row) else alike.setdefault(len(row["input_ids"]), [])).append(place)
        groups = [*alike.values(), *([packable] if packable else [])]
        parts: list[Packed | Padded] = []
        tokens = cells = 0
        for places in groups:
            chosen = [rows[place] for place in places]
            lengths = [len(row["input_ids"]) for row in chosen]
            tokens += sum(lengths)
            if len(set(lengths)) == 1:
                parts.append(self._padded(chosen))
                cells += sum(lengths)
            else:
                packed = self._packed(chosen)
                parts.append(packed)
                cells += packed.layout.texts.numel()
        owners = [place for places in groups for place in places for _ in range(self._outputs_of(rows[place]))]
        order = self.to_device(torch.tensor(owners).argsort(stable=True))
        return Parts(parts, order, 1 - tokens / cells)

    def _fits(self, row: Tokens) -> bool:
        """Whether it may share a row; a text that says the padding token itself has other positions than are told."""
        if self._packing is None:
            return False
        ids = row["input_ids"]
        return len(ids) <= self._packing.width and (self._uncounted is None or self._uncounted not in ids)

    def _packed(self, rows: Sequence[Tokens]) -> Packed:
        assert self._packing is not None
        layout = self._packing.lay_out([len(row["input_ids"]) for row in rows])
        inputs = {
            name: self.to_device(layout.spread([row[name] for row in rows], self._filler(name))) for name in self._names
        }  # [B, R] each
        inputs |= self._packing.pointers(layout)
        outer, cells = self._head_inputs(rows, layout)
        return Packed(inputs, outer or {"input_ids": inputs["input_ids"]}, self.to_device(cells), layout)

    def _outputs_of(self, row: Tokens) -> int:  # noqa: ARG002 - a task may look
        """How many outputs of the model belong to a row."""
        return 1

    @abstractmethod
    def _head_inputs(self, rows: Sequence[Tokens], layout: Layout) -> tuple[Padded, torch.Tensor]:
        """What the task's head is given of packed rows: `Packed.outer`, empty where it looks at none, and `cells`."""

    def _outputs(self, batch: Batch) -> torch.Tensor:
        """The outputs of all rows, in order, however they were batched."""
        if not isinstance(batch, Parts):
            return self._of_padded(batch)
        outputs = [self._of_packed(part) if isinstance(part, Packed) else self._of_padded(part) for part in batch.parts]
        return torch.cat(outputs)[batch.order]

    @abstractmethod
    def _of_padded(self, batch: Padded) -> torch.Tensor:
        """The outputs of the rows, one after another, float32 [n, ..]."""

    @abstractmethod
    def _of_packed(self, packed: Packed) -> torch.Tensor:
        """The same of packed rows."""

    def _choose_packing(self) -> None:
        """Pack from now on, if this checkpoint answers then as it does for every text alone; else pad, if so."""
        packing = Packing(self._model, _PACKED_TOKENS, _positions(self._model))
        (pattern,) = self._tokenize([self._sample(1)])
        words = min(len(self._tokenizer), self._embeddings)
        rows = sample_rows(pattern, self._tokenizer.all_special_ids, words, packing.width)
        self._packing = packing
        scheme, differences = choose(
            self._model,
            packing,
            lambda: self._seen_alone(rows),
            lambda: self._seen_packed(packing, rows),
            lambda: self._seen_padded(rows),
        )
        if scheme is None:
            packing.remove()
            self._packing = None
            self._may_pad = may_pad(differences)
            self.unpacked = PADS if self._may_pad else "equal-lengths"
        self.packing = None if scheme is None else scheme.name
        log = structlog.get_logger()
        (log.info if self._may_pad else log.warning)(
            "packing chosen",
            action="packing",
            scheme=self.packing or self.unpacked,
            tokens=packing.width,
            differences=differences,
        )

    def _seen_alone(self, rows: Sequence[Tokens]) -> Seen:
        alone = [self._padded([row]) for row in rows]
        states = [self._model.base_model(**row)[0].flatten(0, 1) for row in alone]  # [T, D] each
        return torch.cat(states), torch.cat([self._of_padded(row) for row in alone])

    def _seen_packed(self, packing: Packing, rows: Sequence[Tokens]) -> Seen:
        packed = self._packed(rows)
        everything = replace(packed, cells=packed.layout.cells.to(self._device).unsqueeze(0))  # [1, N]
        return packing.states(everything)[0], self._of_packed(packed)

    def _seen_padded(self, rows: Sequence[Tokens]) -> torch.Tensor:
        self._packing = None  # no scheme was found, and what is padded then may be told other positions
        return self._of_padded(self._padded(rows))

    def _filler(self, name: str) -> int:
        if name != "input_ids":
            return int(self._tokenizer.pad_token_type_id)
        return self._padding_token

    def samples(self) -> Sequence[Any]:
        """A short and a longer text; none before `load`."""
        if not self._limit:
            return ()
        texts = [self._sample(words) for words in (3, 60)]
        return [text for text in texts if not isinstance(self.preprocess([text], {})[0], RequestError)]

    def precision_rows(self) -> Sequence[Any]:
        return precision_rows.TEXTS

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
        self._lowers = False

    def load(self, device: str) -> None:
        super().load(device)
        check_modules(self._path)
        self._lowers = lowers(self._path)
        if self._pooling is None:
            self._pooling = saved_pooling(self._path)

    def preprocess(self, rows: Sequence[Any], parameters: Mapping[str, Any]) -> Sequence[Tokens | RequestError]:
        """As for every text, in small letters where sentence-transformers would write it so."""
        if self._lowers:
            rows = [row.lower() if isinstance(row, str) else row for row in rows]
        return super().preprocess(rows, parameters)

    def _run(self, batch: Batch) -> Any:
        """B vectors, numpy float32 [D] each; vector i belongs to row i of the batch."""
        pooled = self._outputs(batch)  # [B, D]
        if self._normalize:
            pooled = torch.nn.functional.normalize(pooled, dim=-1)
        return list(numbers(pooled))

    def _of_padded(self, batch: Padded) -> torch.Tensor:
        states = self._model(**batch).last_hidden_state.float()  # [B, T, D]
        mask = batch["attention_mask"]  # [B, T]
        if self._pooling == "cls":
            first = mask.argmax(-1)  # [B], not 0 where the padding is on the left
            return states[torch.arange(len(states), device=states.device), first]  # [B, D]
        weights = mask.unsqueeze(-1).float()  # [B, T, 1]
        pooled: torch.Tensor = (states * weights).sum(1) / weights.sum(1)  # [B, D]
        return pooled

    def _head_inputs(self, rows: Sequence[Tokens], layout: Layout) -> tuple[Padded, torch.Tensor]:  # noqa: ARG002
        cells = layout.cells[layout.starts] if self._pooling == "cls" else layout.cells
        return {}, cells.unsqueeze(0)

    def _of_packed(self, packed: Packed) -> torch.Tensor:
        assert self._packing is not None
        states = self._packing.run(packed).last_hidden_state[0].float()  # [N, D], or [n, D] of first tokens
        if self._pooling == "cls":
            return states
        lengths = torch.tensor(packed.layout.lengths, device=states.device)  # [n]
        owners = packed.layout.owners.to(states.device)  # [N]
        sums = states.new_zeros(len(lengths), states.shape[-1]).index_add_(0, owners, states)  # [n, D]
        return sums / lengths.unsqueeze(-1)

    def differ(self, exact: Any, other: Any) -> str | None:
        return vectors_differ(exact, other)


class TextClassification(Classification, TextModel):
    """The class of a text; see `Classification` and `TextModel`."""

    auto_class = "AutoModelForSequenceClassification"

    def collate(self, rows: Sequence[Tokens]) -> Batch:
        """As for every text; padded with a token that no row has where the checkpoint itself names none.

        A decoder's head would skip a text's own last token if that were the padding.
        """
        if not self._names_padding:
            self._pad_with(self._token_of_none(rows))
        return super().collate(rows)

    def _token_of_none(self, rows: Sequence[Tokens]) -> int:
        """The padding token as long as it will do, for which kernels may be compiled; else the last of the others."""
        said = set(chain.from_iterable(row["input_ids"] for row in rows))
        others = (token for token in range(self._embeddings - 1, -1, -1) if token not in said)
        return next(others, self._padding_token) if self._padding_token in said else self._padding_token

    def _logits(self, batch: Batch) -> torch.Tensor:
        return self._outputs(batch)

    def _of_padded(self, batch: Padded) -> torch.Tensor:
        return super()._logits(batch)

    def _head_inputs(self, rows: Sequence[Tokens], layout: Layout) -> tuple[Padded, torch.Tensor]:
        """All of it: some heads take the first state, some the last, some the mean."""
        padded = self._padded(rows)
        mask = padded["attention_mask"].bool().cpu()  # [n, T]
        # Padding gets the state of the text's first token: something finite, which no head may look at.
        cells = layout.cells[layout.starts].unsqueeze(1).repeat(1, mask.shape[1])  # [n, T]
        cells[mask] = layout.cells
        return padded, cells

    def _of_packed(self, packed: Packed) -> torch.Tensor:
        assert self._packing is not None
        logits: torch.Tensor = self._packing.run(packed).logits.float()  # [n, C]
        return logits


class FillMask(TextModel):
    """For the masks of a text the likeliest tokens: `{"score", "token", "token_str", "sequence"}`, best first.

    One mask gives a list of `top_k` (request parameter, default 5) of them; several give one such list per mask.
    The output of a pass holds rows × tokens × vocabulary floats for a moment: bound it by `batching.max_batch_cost`.
    """

    auto_class = "AutoModelForMaskedLM"
    allowed_parameters: ClassVar[frozenset[str]] = frozenset({"top_k"})

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        """As for every task; and `top_k` is bounded: each candidate is a whole text, up to 1 ms to write."""
        super().check_parameters(parameters)
        _candidates(parameters)

    def load(self, device: str) -> None:
        super().load(device)
        if self._tokenizer.mask_token_id is None:
            raise ModelUnavailable(f"model.path={self._path!r}: its tokenizer has no mask token, which fill-mask needs")

    def preprocess(self, rows: Sequence[Any], parameters: Mapping[str, Any]) -> Sequence[Tokens | RequestError]:
        """As for every text; and a row whose masks would get too many candidates together is refused."""
        prepared = super().preprocess(rows, parameters)
        count = _candidates(parameters)
        return [row if isinstance(row, RequestError) else self._bounded(row, count) for row in prepared]

    def _bounded(self, row: Tokens, count: int) -> Tokens | RequestError:
        masks = self._outputs_of(row)
        if masks * count <= _MOST_CANDIDATES_OF_A_ROW:
            return row
        return TooLarge(
            f"text: {masks} masks with top_k={count} are {masks * count} candidates; the limit is "
            f"{_MOST_CANDIDATES_OF_A_ROW}"
        )

    def _checked(self, tokens: Tokens) -> Tokens | RequestError:
        if self._tokenizer.mask_token_id in tokens["input_ids"] or len(tokens["input_ids"]) > self._limit:
            return super()._checked(tokens)
        within = f" within its first {self._limit} tokens" if len(tokens["input_ids"]) >= self._limit else ""
        mask = self._tokenizer.mask_token
        return InvalidRequest(f"text: no {mask}{within}; write {mask} where a word is missing")

    def _run(self, batch: Batch) -> Any:
        """Float32 [M, V] on the device: the logits of all masks of the batch, row by row."""
        return self._outputs(batch)

    def _outputs_of(self, row: Tokens) -> int:
        return row["input_ids"].count(self._tokenizer.mask_token_id)

    def _of_padded(self, batch: Padded) -> torch.Tensor:
        logits = self._model(**batch).logits  # [B, T, V]
        masked: torch.Tensor = logits[batch["input_ids"] == self._tokenizer.mask_token_id].float()  # [M, V]
        return masked

    def _head_inputs(self, rows: Sequence[Tokens], layout: Layout) -> tuple[Padded, torch.Tensor]:
        """The masks alone: the head makes a vocabulary's worth of numbers for each state."""
        ids = torch.tensor([*chain.from_iterable(row["input_ids"] for row in rows)])  # [N]
        return {}, layout.cells[ids == self._tokenizer.mask_token_id].unsqueeze(0)  # [1, M]

    def _of_packed(self, packed: Packed) -> torch.Tensor:
        assert self._packing is not None
        logits: torch.Tensor = self._packing.run(packed).logits[0].float()  # [M, V]
        return logits

    def postprocess(self, output: Any, rows: Sequence[Tokens], parameters: Mapping[str, Any]) -> Sequence[Any]:
        vocabulary = output.shape[-1]
        count = min(_candidates(parameters), vocabulary)
        with translated_memory_errors():
            scores, tokens = output.softmax(-1).topk(count)  # [M, K]
        found = zip(numbers(scores).tolist(), tokens.tolist(), strict=True)
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

    def precision_rows(self) -> Sequence[Any]:
        """Each text with a mask in its middle."""
        words = [text.split() for text in precision_rows.TEXTS]
        mask = self._tokenizer.mask_token
        return [" ".join([*each[: len(each) // 2], mask, *each[len(each) // 2 :]]) for each in words]

    def _sample(self, words: int) -> str:
        return f"{self._tokenizer.mask_token} {super()._sample(words)}"


def _candidates(parameters: Mapping[str, Any]) -> int:
    """How many of them a request asks for; InvalidRequest where that is more than are written."""
    count = top_k(parameters, 5)
    if count is None or count > _MOST_CANDIDATES:
        raise InvalidRequest(f"parameters: top_k={count} is not allowed; 1 to {_MOST_CANDIDATES} are")
    return count


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
    padding = padding_index(model)
    return positions if padding is None else positions - padding - 1
