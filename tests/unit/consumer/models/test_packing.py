"""Packed rows: which checkpoints take them, that no answer changes, and that whatever would change one is found."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import structlog

from forebay_consumer.errors import BadConfig, DeviceLost, OutOfMemory
from forebay_consumer.models.registry import model_class
from unit.consumer.models.tiny import TEXTS, Checkpoint, Loaded, run

pytestmark = pytest.mark.models

HEADS = {"feature-extraction": "encoder", "text-classification": "classes", "fill-mask": "masked"}
SCHEMES = {
    "bert": "positions-from-0",
    "electra": "positions-from-0",
    "albert": "positions-from-0",
    "distilbert": "positions-from-0",
    "nomic_bert": "positions-from-0",
    "roberta": "positions-from-padding",
    "mpnet": "positions-from-padding",
    "roformer": "no-positions",
    "modernbert": "by-layer",
    "qwen3": "causal",
    "gemma3": "causal-by-layer",
}
DECODERS = {"qwen3", "gemma3"}
APART = {"bert", "electra", "albert", "distilbert", "nomic_bert", "roberta", "qwen3"}
"""Families that call transformers' own functions of attention, with no window shorter than a row."""
MIXED = [*TEXTS, "word " * 7, "two words", "another five words of text", "word " * 30, "word " * 30]
CASES = [
    pytest.param(family, task, id=f"{family}-{task}")
    for family in SCHEMES
    for task in HEADS
    if not (family in DECODERS and task == "fill-mask")
]


def raw(model: Any, texts: list[str]) -> Any:
    """What the task's model gives, before it is made an answer."""
    import torch

    with torch.inference_mode():
        return model._outputs(model.collate(model.preprocess(texts, {})))


def of(task: str, texts: list[str]) -> list[str]:
    if task != "fill-mask":
        return texts
    return [f"{text[:150]} [MASK]{' and [MASK]' * (number % 3)}" for number, text in enumerate(texts)]


def assert_same(found: Any, expected: Any) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Two would wait for each other more than they compute."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: no attention text by text."""
    from forebay_consumer.models import packing_probe
    from forebay_consumer.models.packing import schemes

    monkeypatch.setattr(packing_probe, "schemes", lambda base: [scheme for scheme in schemes(base) if not scheme.apart])


@pytest.mark.parametrize(("family", "task"), CASES)
@pytest.mark.usefixtures("masked")
def test_a_packed_batch_answers_as_each_text_alone(loaded: Loaded, family: str, task: str) -> None:
    check(loaded, family, task, SCHEMES[family])


@pytest.mark.parametrize(
    ("family", "task"), [case for case in CASES if case.values[0] in APART or case.values[1] == "feature-extraction"]
)
def test_so_it_does_with_attention_run_text_by_text(loaded: Loaded, family: str, task: str) -> None:
    name = SCHEMES[family]
    if family in APART:
        name = "apart-positions-from-" + ("padding" if family == "roberta" else "0")
    check(loaded, family, task, name)


def check(loaded: Loaded, family: str, task: str, scheme: str) -> None:
    import torch

    model, padded = (loaded(task, f"{family}.{HEADS[task]}", packing=packing) for packing in ("auto", "off"))
    assert model.packing == scheme
    texts = of(task, MIXED)
    batch: Any = model.collate(model.preprocess(texts, {}))
    assert len(batch.parts) == 1, "packed, all of it"
    alone = torch.cat([raw(padded, [text]) for text in texts])
    assert len(alone) >= len(texts)
    assert_same(raw(model, texts), alone)


@pytest.mark.parametrize("task", HEADS)
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_long_texts_and_those_of_one_length_go_unmasked_and_in_their_places(
    loaded: Loaded, task: str, pooling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr("forebay_consumer.models.text._PACKED_TOKENS", 16)
    options = {"pooling": pooling} if task == "feature-extraction" else {}
    model = loaded(task, f"bert.{HEADS[task]}", **options)
    texts = of(task, MIXED)
    batch: Any = model.collate(model.preprocess(texts, {}))
    assert 3 <= len(batch.parts) < len(texts)
    assert_same(raw(model, texts), torch.cat([raw(model, [text]) for text in texts]))
    short = of(task, ["a", "b", "c"])
    (only,) = model.collate(model.preprocess(short, {})).parts[:1]
    assert task == "fill-mask" or set(only) == {"input_ids", "token_type_ids", "attention_mask"}


@pytest.mark.parametrize("family", ["roberta", "mpnet", "bert"])
@pytest.mark.parametrize("task", ["feature-extraction", "text-classification"])
def test_a_text_that_says_the_padding_token_is_answered_in_company_as_alone(
    loaded: Loaded, family: str, task: str
) -> None:
    """The RoBERTa family gives that token no position of its own, wherever it stands."""
    import torch

    model: Any = loaded(task, f"{family}.{HEADS[task]}")
    rows = model.preprocess([*MIXED, "water falls on the turbine", "water falls here"], {})
    for place, row in enumerate(rows[-2:], 1):
        row["input_ids"][place] = model._model.config.pad_token_id
    batch: Any = model.collate(rows)
    assert len(batch.parts) == (1 if family == "bert" else 3), "each of its own length"
    with torch.inference_mode():
        alone = [model._outputs(model.collate([row])) for row in rows]
        assert_same(model._outputs(batch), torch.cat(alone))


@pytest.mark.parametrize("family", ["deberta-v2", "mobilebert", "mistral"])
def test_what_cannot_be_packed_is_refused_and_padded(loaded: Loaded, family: str) -> None:
    """MobileBERT convolves over neighbours, DeBERTa makes its own mask; this Mistral's window is shorter than a row."""
    with structlog.testing.capture_logs() as logs:
        model = loaded("feature-extraction", f"{family}.encoder")
    assert model.packing is None
    (line,) = [line for line in logs if line["action"] == "packing"]
    assert line["scheme"] == "none"
    assert line["differences"].pop("padded") < 1e-5
    assert len(line["differences"]) >= 2
    assert all(isinstance(off, str) or off > 0.01 for off in line["differences"].values()), "not by a hair"
    together = run(model, TEXTS)
    for text, vector in zip(TEXTS, together, strict=True):
        assert np.allclose(run(model, [text])[0], vector, atol=1e-5)


@pytest.mark.parametrize("family", ["fnet", "convbert"])
@pytest.mark.parametrize("task", HEADS)
def test_what_cannot_be_padded_either_has_texts_of_one_length_together(loaded: Loaded, family: str, task: str) -> None:
    """FNet mixes all places of a row, ConvBERT convolves over neighbours, and both see the padding."""
    import torch

    with structlog.testing.capture_logs() as logs:
        model: Any = loaded(task, f"{family}.{HEADS[task]}")
    assert (model.packing, model.unpacked) == (None, "equal-lengths")
    (line,) = [line for line in logs if line["action"] == "packing"]
    assert (line["scheme"], line["log_level"]) == ("equal-lengths", "warning")
    assert line["differences"]["padded"] > 0.01
    texts = of(task, MIXED)
    rows = model.preprocess(texts, {})
    batch: Any = model.collate(rows)
    assert len(batch.parts) == len({model.cost(row) for row in rows}) < len(texts)
    assert model.padding(batch) == 0
    assert_same(raw(model, texts), torch.cat([raw(model, [text]) for text in texts]))


@pytest.mark.parametrize(
    ("differences", "pads"),
    [
        pytest.param({}, True, id="not tried: it packs"),
        pytest.param({"padded": 9e-5}, True, id="noise"),
        pytest.param({"padded": 2e-4}, False, id="seen"),
        pytest.param({"padded": "ValueError: no mask"}, False, id="not to be had"),
    ],
)
def test_padding_is_given_up_only_where_an_answer_would_be_another(
    differences: dict[str, float | str], pads: bool
) -> None:
    from forebay_consumer.models.packing_probe import may_pad

    assert may_pad(differences) is pads


def test_the_choice_is_logged_with_what_was_measured(loaded: Loaded) -> None:
    with structlog.testing.capture_logs() as logs:
        loaded("text-classification", "roberta.classes")
    (line,) = [line for line in logs if line["action"] == "packing"]
    assert line["scheme"] == "apart-positions-from-padding"
    assert line["differences"]["apart-positions-from-0"] > 0.1
    assert line["differences"]["apart-positions-from-padding"] < 1e-5


def leaking(_packing: Any, mask: Any) -> Any:
    import torch

    return torch.zeros(mask.shape).unsqueeze(1)


def one_neighbour(_packing: Any, mask: Any) -> Any:
    import torch

    mask[:, 1:, :-1] |= torch.eye(mask.shape[1] - 1, dtype=torch.bool)  # each token sees the one before it
    return torch.zeros(mask.shape).masked_fill_(~mask, torch.finfo(torch.float32).min).unsqueeze(1)


def a_bool(_packing: Any, mask: Any) -> Any:
    return mask.unsqueeze(1)


@pytest.mark.parametrize("masks", [leaking, one_neighbour, a_bool])
@pytest.mark.parametrize("task", HEADS)
@pytest.mark.usefixtures("masked")
def test_a_mask_that_lets_neighbours_be_seen_is_found(
    checkpoint: Checkpoint, loaded: Loaded, monkeypatch: pytest.MonkeyPatch, masks: Callable[..., Any], task: str
) -> None:
    import transformers

    from forebay_consumer.models.packing import Packing

    made = getattr(transformers, model_class(task, None).auto_class)  # type: ignore[attr-defined]
    eager = made.from_pretrained(checkpoint(f"bert.{HEADS[task]}"), attn_implementation="eager")
    report: dict[str, Any] = {"missing_keys": []}
    monkeypatch.setattr(made, "from_pretrained", lambda *_, **__: (eager, report))
    assert loaded(task, f"bert.{HEADS[task]}").packing == "positions-from-0", "eager attention is no hindrance"
    monkeypatch.setattr(Packing, "_additive", masks)
    assert loaded(task, f"bert.{HEADS[task]}").packing is None


@pytest.mark.parametrize(
    "spoilt",
    [
        pytest.param(lambda row, _begin, end: (row, 0, end), id="it sees those before it in its row"),
        pytest.param(lambda row, begin, end: (row, begin, end - (end - begin > 1)), id="its last token is left out"),
    ],
)
def test_attention_that_strays_from_the_text_is_found(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch, spoilt: Callable[..., Any]
) -> None:
    from forebay_consumer.models.layout import Layout

    assert loaded("feature-extraction", "bert.encoder").packing == "apart-positions-from-0"
    honest = Layout.spans.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(Layout, "spans", property(lambda layout: [spoilt(*span) for span in honest(layout)]))
    assert loaded("feature-extraction", "bert.encoder").packing == "positions-from-0", "found, and done by a mask"


def test_positions_that_go_on_from_text_to_text_are_found(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from forebay_consumer.models.packing import Packing

    honest = Packing.pointers

    def going_on(packing: Packing, layout: Any) -> dict[str, Any]:
        width = layout.places.shape[1]
        return {**honest(packing, layout), "position_ids": torch.arange(width).expand_as(layout.places)}

    monkeypatch.setattr(Packing, "pointers", going_on)
    assert loaded("feature-extraction", "bert.encoder").packing is None


def test_a_head_that_answers_for_another_text_is_found(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    from forebay_consumer.models.text import TextClassification

    honest = TextClassification._head_inputs

    def shifted(model: Any, rows: Any, layout: Any) -> Any:
        outer, cells = honest(model, rows, layout)
        return outer, cells.roll(1, 0)

    monkeypatch.setattr(TextClassification, "_head_inputs", shifted)
    assert loaded("text-classification", "bert.classes").packing is None


def test_weights_are_tried_in_float32_and_left_as_they_were(checkpoint: Checkpoint, loaded: Loaded) -> None:
    import torch

    model: Any = loaded("text-classification", "bert.classes", dtype="bfloat16")
    plain: Any = loaded("text-classification", "bert.classes", dtype="bfloat16", packing="off")
    assert model.packing == "apart-positions-from-0", "bfloat16 is no evidence against it"
    for one, other in zip(model._model.state_dict().values(), plain._model.state_dict().values(), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    packed, alone = raw(model, MIXED), torch.cat([raw(plain, [text]) for text in MIXED])
    assert float((packed - alone).abs().max()) < 0.05 * float(alone.abs().max())


def test_what_has_more_bits_than_float32_keeps_them() -> None:
    import torch

    from forebay_consumer.models.packing_probe import in_float32

    model = torch.nn.Linear(3, 3).double()
    model.register_buffer("scale", torch.tensor([1 / 3], dtype=torch.float64))
    before = {name: values.clone() for name, values in model.state_dict().items()}
    with in_float32(model):
        assert {values.dtype for values in model.state_dict().values()} == {torch.float32}
    for name, values in model.state_dict().items():
        assert values.dtype is torch.float64
        assert torch.equal(values, before[name]), name


def test_out_of_memory_in_a_packed_pass_is_said_and_leaves_the_model_as_it_was(loaded: Loaded) -> None:
    import torch

    model: Any = loaded("feature-extraction", "bert.encoder")
    rows = model.preprocess(MIXED, {})
    expected = model.forward(model.collate(rows))

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    hook = model._model.encoder.layer[1].register_forward_pre_hook(full)
    with pytest.raises(OutOfMemory):
        model.forward(model.collate(rows))
    hook.remove()
    assert model._model.config._attn_implementation == "sdpa"
    assert np.array_equal(model.forward(model.collate(rows)), expected)


def test_a_device_that_is_lost_in_the_trial_ends_the_worker(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    from forebay_consumer.models.packing import Packing

    def lost(*_: Any) -> Any:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(Packing, "run", lost)
    with pytest.raises(DeviceLost):
        loaded("feature-extraction", "bert.encoder")


def test_no_room_for_the_trial_means_padding(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.nn.Module, "float", full)
    model = loaded("feature-extraction", "bert.encoder")
    assert model.packing is None
    assert len(run(model, TEXTS)) == len(TEXTS)


def test_weights_of_which_some_had_no_room_in_float32_are_all_as_they_were(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is there room on the device then for a second copy of the largest."""
    import torch

    half = torch.bfloat16
    convert, copied = torch.nn.Module.float, torch.Tensor.to
    refused: list[int] = []

    def some(module: Any) -> Any:
        convert(module.embeddings)
        refused.append(0)
        raise torch.OutOfMemoryError("CUDA out of memory.")

    def to(values: Any, *args: Any, **kwargs: Any) -> Any:
        if refused and args == (half,) and values.numel() > 100_000:
            refused.append(values.numel())
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return copied(values, *args, **kwargs)

    monkeypatch.setattr(torch.nn.Module, "float", some)
    monkeypatch.setattr(torch.Tensor, "to", to)
    model: Any = loaded("feature-extraction", "bert.encoder", dtype="bfloat16")
    assert model.packing is None
    assert len(refused) > 1
    assert {values.dtype for values in model._model.parameters()} == {half}


@pytest.mark.parametrize("off", ["off", False])
def test_packing_can_be_switched_off(loaded: Loaded, off: Any) -> None:
    model: Any = loaded("feature-extraction", "bert.encoder", packing=off)
    assert model.packing is None
    batch = model.collate(model.preprocess(TEXTS, {}))
    assert batch["attention_mask"].shape == (len(TEXTS), 52)
    assert model.padding(batch) is None


def test_another_value_of_packing_is_refused(loaded: Loaded) -> None:
    with pytest.raises(BadConfig, match=r"model\.options\.packing='on': allowed are auto and off"):
        loaded("feature-extraction", "bert.encoder", packing="on")


def test_the_padding_of_a_packed_batch_is_told(loaded: Loaded) -> None:
    model: Any = loaded("feature-extraction", "bert.encoder")
    batch = model.collate(model.preprocess(TEXTS, {}))
    tokens = sum(model.cost(row) for row in model.preprocess(TEXTS, {}))
    assert model.padding(batch) == pytest.approx(1 - tokens / batch.parts[0].layout.texts.numel())
    assert model.padding(model.collate(model.preprocess(["a b", "c d"], {}))) == 0
