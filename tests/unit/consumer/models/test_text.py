"""Text tasks against transformers' own pipelines and models."""

import json
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from forebay_consumer.errors import BadConfig, ModelUnavailable
from forebay_consumer.models.registry import model_class
from forebay_schemas import InvalidRequest, RequestError, TooLarge, Unsupported
from unit.consumer.models.tiny import TEXTS, Checkpoint, Loaded, assert_close, run

pytestmark = pytest.mark.models

Reference = Callable[[str, str], Any]
MASKED = (
    "The [MASK] runs full.",
    "[MASK]",
    "Water from the [MASK] falls on the [MASK] of the turbine.",
    "one two three four five six seven eight nine ten " * 4 + "[MASK]",
)


def embedded_by_transformers(folder: str, text: str, pooling: str, normalize: bool) -> Any:
    """One vector by AutoModel alone, unpadded: float [D]."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder)
    with torch.inference_mode():
        states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]  # [T, D]
    vector = states[0] if pooling == "cls" else states.mean(0)  # [D]
    return (vector / vector.norm() if normalize else vector).tolist()


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_embeddings_equal_those_of_the_bare_model(
    loaded: Loaded, checkpoint: Checkpoint, pooling: str, normalize: bool
) -> None:
    model = loaded("feature-extraction", "encoder", pooling=pooling, normalize=normalize)
    expected = [embedded_by_transformers(str(checkpoint("encoder")), text, pooling, normalize) for text in TEXTS]
    together = run(model, TEXTS)
    assert [(vector.dtype.name, vector.shape) for vector in together] == [("float32", (32,))] * len(TEXTS)
    assert_close([vector.tolist() for vector in together], expected)
    assert_close([run(model, [text])[0].tolist() for text in TEXTS], expected)


def test_padding_on_the_left_gives_each_text_its_own_first_token(loaded: Loaded) -> None:
    model: Any = loaded("feature-extraction", "encoder", pooling="cls", normalize=False, packing="off")
    model._tokenizer.padding_side = "left"
    batch = model.collate(model.preprocess(["a", "a longer text"], {}))
    assert batch["attention_mask"].tolist() == [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert batch["input_ids"][0].tolist() == [0, 0, 101, 1037, 102]  # [PAD] [PAD] [CLS] a [SEP]
    # A model whose states are its tokens: a vector then names the token it was taken from.
    model._model = lambda input_ids, **_: SimpleNamespace(last_hidden_state=input_ids.unsqueeze(-1))  # [B, T, 1]
    assert [vector.tolist() for vector in model.forward(batch)] == [[101], [101]]


@pytest.mark.parametrize("kind", ["encoder", "qwen3.encoder"])
def test_padding_on_the_left_moves_no_position(loaded: Loaded, kind: str) -> None:
    model: Any = loaded("feature-extraction", kind, packing="off")
    model._tokenizer.padding_side = "left"
    alone = [run(model, [text])[0].tolist() for text in TEXTS]
    assert_close([vector.tolist() for vector in run(model, TEXTS)], alone, 1e-5)


@pytest.mark.parametrize("packing", ["auto", "off"])
@pytest.mark.parametrize("padding", [None, -1, 7])
def test_a_decoders_head_finds_the_last_token_whatever_its_configuration_pads_with(
    checkpoint: Checkpoint, tmp_path: Path, padding: int | None, packing: str
) -> None:
    """A head looks for the model's own padding token: missing, as in GPT-2's, or another than the tokenizer's."""
    folder = tmp_path / "decoder"
    shutil.copytree(checkpoint("qwen3.classes"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": padding}))
    model: Any = model_class("text-classification", None)(path=str(folder), packing=packing)  # type: ignore[call-arg]
    model.load("cpu")
    assert (model.packing is not None) is (packing == "auto")
    import transformers

    pipeline = transformers.pipeline("text-classification", str(folder))
    expected = [pipeline(text, top_k=None) for text in TEXTS]
    assert_close(run(model, TEXTS, {"top_k": None}), expected, 1e-5)


@pytest.mark.parametrize("packing", ["auto", "off"])
@pytest.mark.parametrize("padding", [None, -1])
@pytest.mark.parametrize("added", ["[SEP]", ""], ids=["ends every text", "ends none"])
def test_a_texts_own_end_is_no_padding_where_the_configuration_names_none(
    checkpoint: Checkpoint, tmp_path: Path, padding: int | None, packing: str, added: str
) -> None:
    """A pipeline then answers by the last token, whichever it is; and the tokenizer names no padding either."""
    import transformers
    from tokenizers.processors import TemplateProcessing

    shutil.copytree(checkpoint("llama.classes"), tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "pad_token_id": padding}))
    backend = transformers.AutoTokenizer.from_pretrained(tmp_path).backend_tokenizer
    backend.no_padding()
    backend.post_processor = TemplateProcessing(f"$A {added}".strip(), "$A $B", [("[SEP]", 102)])
    ending = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="[SEP]", model_max_length=64)
    ending.save_pretrained(tmp_path)
    model: Any = model_class("text-classification", None)(path=str(tmp_path), packing=packing)  # type: ignore[call-arg]
    model.load("cpu")
    assert (model.packing is not None) is (packing == "auto")
    last = model._tokenizer.convert_ids_to_tokens(model._embeddings - 1)
    texts = [*filter(None, TEXTS), "water [SEP]", "[SEP]", "the river [SEP] [SEP]", "water [PAD]", f"water {last}"]
    pipeline = transformers.pipeline("text-classification", str(tmp_path))
    expected = [pipeline(text, top_k=None) for text in texts]
    assert_close([run(model, [text], {"top_k": None})[0] for text in texts], expected, 1e-5)
    assert_close(run(model, texts, {"top_k": None}), expected, 1e-5)


@pytest.fixture
def sentences(checkpoint: Checkpoint, tmp_path: Path) -> Callable[..., Any]:
    """The encoder, loaded with a file that sentence-transformers would have saved beside it."""
    folder = tmp_path / "encoder"

    def load(name: str, saved: str, **options: Any) -> Any:
        shutil.copytree(checkpoint("encoder"), folder)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(saved)
        model: Any = model_class("feature-extraction", None)(path=str(folder), **options)  # type: ignore[call-arg]
        model.load("cpu")
        return model

    return load


@pytest.mark.parametrize(
    ("saved", "vector"),
    [
        ('{"pooling_mode_cls_token": true}', "cls"),
        ('{"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true}', "mean"),
        ('{"embedding_dimension": 32, "pooling_mode": "mean", "include_prompt": true}', "mean"),
        ('{"embedding_dimension": 32, "pooling_mode": "cls", "include_prompt": true}', "cls"),
        ('{"embedding_dimension": 32, "pooling_mode": ["cls"], "include_prompt": true}', "cls"),
    ],
)
def test_pooling_is_taken_from_what_sentence_transformers_saved(
    sentences: Callable[..., Any], checkpoint: Checkpoint, saved: str, vector: str
) -> None:
    expected = embedded_by_transformers(str(checkpoint("encoder")), TEXTS[2], vector, True)
    assert_close(run(sentences("1_Pooling/config.json", saved), TEXTS)[2].tolist(), expected)


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        ('{"pooling_mode_lasttoken": true, "pooling_mode_cls_token": false}', "pooling_mode_lasttoken"),
        ('{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true}', "mean_tokens, pooling_mode_cls_token"),
        ('{"pooling_mode": "lasttoken"}', "lasttoken"),
        ('{"pooling_mode": ["mean", "max"]}', "mean, max"),
        ('{"embedding_dimension": 32}', "none"),
    ],
)
def test_another_pooling_that_was_saved_is_refused_by_its_name(
    sentences: Callable[..., Any], saved: str, said: str
) -> None:
    with pytest.raises(BadConfig, match=f"1_Pooling/config.json asks for .*{said}, which is not built in"):
        sentences("1_Pooling/config.json", saved)


def module(kind: str) -> dict[str, Any]:
    return {"idx": 0, "name": "0", "path": "", "type": kind}


@pytest.mark.parametrize("pooling", [None, "mean"])
@pytest.mark.parametrize(
    "kind",
    ["sentence_transformers.models.Dense", "sentence_transformers.base.modules.dense.Dense", "a_checkpoints.LayerNorm"],
)
def test_a_module_that_would_change_the_vectors_is_refused_by_its_name(
    sentences: Callable[..., Any], kind: str, pooling: str | None
) -> None:
    saved = [module(f"sentence_transformers.models.{each}") for each in ("Transformer", "Pooling")]
    with pytest.raises(BadConfig, match=rf"modules\.json has a module {kind}; built in are only Transformer, "):
        sentences("modules.json", json.dumps([*saved, module(kind)]), pooling=pooling)


@pytest.mark.parametrize("package", ["sentence_transformers.models", "sentence_transformers.base.modules.transformer"])
def test_modules_that_are_built_in_are_served(
    sentences: Callable[..., Any], checkpoint: Checkpoint, package: str
) -> None:
    saved = [module(f"{package}.{kind}") for kind in ("Transformer", "Pooling", "Normalize")]
    expected = embedded_by_transformers(str(checkpoint("encoder")), TEXTS[2], "mean", True)
    assert_close(run(sentences("modules.json", json.dumps(saved)), TEXTS[2:3])[0].tolist(), expected)


@pytest.mark.parametrize("name", ["sentence_bert_config.json", "sentence_roberta_config.json"])
@pytest.mark.parametrize("lowers", [True, False])
def test_a_text_is_written_in_small_letters_where_sentence_transformers_does_so(
    sentences: Callable[..., Any], name: str, lowers: bool
) -> None:
    from tokenizers import normalizers

    model = sentences(name, json.dumps({"max_seq_length": 32, "do_lower_case": lowers}))
    model._tokenizer.backend_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)  # as of a cased model
    assert (model.preprocess(["Water"], {}) == model.preprocess(["water"], {})) is lowers
    assert isinstance(model.preprocess([b"Water"], {})[0], Unsupported)


PROMPTS = {"query": "search for: ", "document": ""}


@pytest.mark.parametrize("saved", [{"prompts": PROMPTS}, {}])
def test_a_prompt_before_every_text_is_refused_by_its_name(
    sentences: Callable[..., Any], saved: dict[str, Any]
) -> None:
    with pytest.raises(BadConfig, match="default_prompt_name='query', and prompts are not built in"):
        sentences("config_sentence_transformers.json", json.dumps({**saved, "default_prompt_name": "query"}))


@pytest.mark.parametrize(
    "saved",
    [
        pytest.param({"__version__": {}}, id="none known"),
        pytest.param({"prompts": PROMPTS, "default_prompt_name": None}, id="none by default"),
        pytest.param({"prompts": PROMPTS, "default_prompt_name": "document"}, id="an empty one"),
    ],
)
def test_prompts_that_change_no_text_are_no_hindrance(sentences: Callable[..., Any], saved: dict[str, Any]) -> None:
    assert len(run(sentences("config_sentence_transformers.json", json.dumps(saved)), TEXTS)) == len(TEXTS)


@pytest.mark.parametrize("kind", ["classes", "several-labels", "one-label", "regression", "distilbert", "roberta"])
def test_classification_equals_transformers_pipeline(loaded: Loaded, reference: Reference, kind: str) -> None:
    model, pipeline = loaded("text-classification", kind), reference("text-classification", kind)
    expected = [pipeline(text)[0] for text in TEXTS]
    assert_close(run(model, TEXTS), expected)
    assert_close([run(model, [text])[0] for text in TEXTS], expected)
    ranked = [pipeline(text, top_k=2) for text in TEXTS]
    assert_close(run(model, TEXTS, {"top_k": 2}), ranked)


@pytest.mark.parametrize("everything", [None, -1, 1000])
def test_top_k_may_ask_for_all_classes(loaded: Loaded, reference: Reference, everything: int | None) -> None:
    model, pipeline = loaded("text-classification", "classes"), reference("text-classification", "classes")
    answers = run(model, TEXTS, {"top_k": everything})
    assert_close(answers, [pipeline(text, top_k=None) for text in TEXTS])


def test_fill_mask_equals_transformers_pipeline(loaded: Loaded, reference: Reference) -> None:
    model, pipeline = loaded("fill-mask", "masked"), reference("fill-mask", "masked")
    expected = [pipeline(text) for text in MASKED]
    assert [len(answer) for answer in expected] == [5, 5, 2, 5]
    assert_close(run(model, MASKED), expected)
    assert_close([run(model, [text])[0] for text in MASKED], expected)
    assert_close(run(model, MASKED, {"top_k": 3}), [pipeline(text, top_k=3) for text in MASKED])


@pytest.mark.parametrize("count", [101, None, -1])
def test_candidates_are_bounded_since_each_is_a_whole_text(loaded: Loaded, count: int | None) -> None:
    model = loaded("fill-mask", "masked")
    assert len(run(model, MASKED[:1], {"top_k": 100})[0]) == 100
    with pytest.raises(InvalidRequest, match=r"top_k=.* is not allowed; 1 to 100 are"):
        model.preprocess(MASKED[:1], {"top_k": count})


def test_candidates_of_all_masks_of_a_row_are_bounded_together(loaded: Loaded) -> None:
    model = loaded("fill-mask", "masked")
    fits, many, none = model.preprocess(["[MASK] " * 5, "[MASK] " * 6, "No gap."], {"top_k": 100})
    assert "input_ids" in fits
    assert isinstance(many, TooLarge)
    assert many.message == "text: 6 masks with top_k=100 are 600 candidates; the limit is 500"
    assert isinstance(none, InvalidRequest)
    assert "input_ids" in model.preprocess(["[MASK] " * 62], {})[0]


def test_a_text_without_a_mask_is_refused_and_its_neighbours_are_not(loaded: Loaded) -> None:
    model = loaded("fill-mask", "masked", max_length=8)
    rows = ["No gap.", "A [MASK].", "one two three four five six seven [MASK]"]
    none, good, cut = model.preprocess(rows, {})
    assert isinstance(none, InvalidRequest)
    assert none.message == "text: no [MASK]; write [MASK] where a word is missing"
    assert "input_ids" in good
    assert isinstance(cut, InvalidRequest)
    assert "within its first 8 tokens" in cut.message


def test_a_text_whose_mask_lies_far_behind_the_limit_is_too_large_and_not_without_one(loaded: Loaded) -> None:
    model = loaded("fill-mask", "masked", max_length=8, truncation=False)
    (far,) = model.preprocess(["one " * 5000 + "[MASK]"], {})
    assert isinstance(far, TooLarge)


def test_a_bad_row_among_good_ones_is_refused_alone(loaded: Loaded) -> None:
    model = loaded("text-classification", "classes")
    prepared = model.preprocess(["good", b"\xff\xd8", 7, None, ["nested"], "good too"], {})
    assert [type(row) for row in prepared[1:5]] == [Unsupported, InvalidRequest, InvalidRequest, InvalidRequest]
    assert [row.message for row in prepared[2:5]] == [
        f"expected a text (a string), got {kind}" for kind in ("int", "NoneType", "list")
    ]
    assert_close(
        model.postprocess(model.forward(model.collate([prepared[0], prepared[5]])), (), {}),
        [run(model, ["good"])[0], run(model, ["good too"])[0]],
    )


def test_a_token_that_the_model_has_no_embedding_for_is_refused_alone(loaded: Loaded) -> None:
    model: Any = loaded("feature-extraction", "encoder")
    model._tokenizer.add_tokens(["<reservoir>"])
    before, refused, after = model.preprocess(["good", "the <reservoir> is full", "good too"], {})
    assert isinstance(refused, InvalidRequest)
    assert refused.message == "text: token 2 is '<reservoir>', which the tokenizer has and the model has not"
    assert len(model.forward(model.collate([before, after]))) == 2


def test_a_model_without_the_tokens_that_its_tokenizer_adds_to_every_text_is_refused(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    import transformers

    transformers.AutoTokenizer.from_pretrained(checkpoint("encoder")).save_pretrained(tmp_path)
    model = transformers.AutoModel.from_pretrained(checkpoint("encoder"))
    model.resize_token_embeddings(102)
    model.save_pretrained(tmp_path)
    with pytest.raises(ModelUnavailable, match="adds token 102 to every text, and the model has embeddings for 102"):
        model_class("feature-extraction", None)(path=str(tmp_path)).load("cpu")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        pytest.param({"temperature": 1}, "'temperature' is unknown; allowed: top_k", id="unknown"),
        pytest.param({"top_k": 0}, "top_k=0 is not allowed", id="zero"),
        pytest.param({"top_k": -2}, "top_k=-2 is not allowed", id="negative"),
        pytest.param({"top_k": True}, "top_k=True is not allowed", id="boolean"),
        pytest.param({"top_k": "3"}, "top_k='3' is not allowed", id="string"),
        pytest.param({"top_k": 1.0}, "top_k=1.0 is not allowed", id="float"),
    ],
)
def test_a_bad_parameter_is_refused_naming_what_is_allowed(
    loaded: Loaded, parameters: dict[str, Any], said: str
) -> None:
    for model in (loaded("text-classification", "classes"), loaded("fill-mask", "masked")):
        with pytest.raises(InvalidRequest) as refused:
            model.preprocess(["A [MASK]."], parameters)
        assert said in refused.value.message


def test_a_task_without_parameters_says_so(loaded: Loaded) -> None:
    with pytest.raises(InvalidRequest, match="'top_k' is unknown; allowed: none"):
        loaded("feature-extraction", "encoder").preprocess(["text"], {"top_k": 1})


def test_long_texts_are_cut_at_the_models_limit(loaded: Loaded) -> None:
    model = loaded("text-classification", "classes")
    long = "word " * 1000
    (row,) = model.preprocess([long], {})
    assert model.cost(row) == 64  # the model's positions, fewer than the tokenizer's 512
    assert_close(run(model, [long]), run(model, ["word " * 62]))


def test_a_roberta_loses_the_positions_up_to_its_paddings(loaded: Loaded) -> None:
    model = loaded("text-classification", "roberta")
    (row,) = model.preprocess(["word " * 1000], {})
    assert model.cost(row) == 63
    run(model, ["word " * 1000])


def test_no_call_after_load_changes_the_tokenizer(loaded: Loaded) -> None:
    for options, expected in (({}, 64), ({"max_length": 9}, 9), ({"truncation": False}, None)):
        model: Any = loaded("text-classification", "classes", **options)
        backend = model._tokenizer.backend_tokenizer
        before = backend.truncation, backend.padding
        run(model, ["short", "word " * 40] if expected is None else TEXTS)
        assert (backend.truncation, backend.padding) == before
        assert (before[0] or {}).get("max_length") == expected


def test_max_length_cuts_sooner(loaded: Loaded) -> None:
    model = loaded("text-classification", "classes", max_length=6)
    short, long = model.preprocess(["word", "word " * 9], {})
    assert (model.cost(short), model.cost(long)) == (3, 6)


def test_without_truncation_a_long_text_is_too_large(loaded: Loaded) -> None:
    model = loaded("text-classification", "classes", max_length=6, truncation=False)
    fits, long = model.preprocess(["word " * 4, "word " * 5], {})
    assert model.cost(fits) == 6
    assert isinstance(long, TooLarge)
    assert long.message == "text: 7 tokens; the limit is 6"


PIECES = ("water", "river's", " " * 40, "\n", "!?", "水は", "x" * 150, "é", "\u0301", "1234567", "a.b.c", "naïve", "🙂")


@pytest.fixture(scope="module")
def with_tokenizer(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """A loaded classifier with a tokenizer of this kind, which knows the pieces."""

    def load(kind: str) -> Any:
        import tokenizers
        import transformers
        from tokenizers import decoders, models, pre_tokenizers, trainers

        folder = tmp_path_factory.mktemp(kind.split()[0])
        shutil.copytree(checkpoint("classes"), folder, dirs_exist_ok=True)
        if kind != "WordPiece":
            trainer: Any
            if kind == "Unigram":
                backend = tokenizers.Tokenizer(models.Unigram())
                backend.pre_tokenizer = pre_tokenizers.Metaspace()
                trainer = trainers.UnigramTrainer(vocab_size=300, unk_token="<unk>", special_tokens=["<unk>", "<s>"])
            else:
                backend = tokenizers.Tokenizer(models.BPE())
                trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>", "<s>"])
                if kind == "byte pairs":
                    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
                    backend.decoder = decoders.ByteLevel()
            backend.train_from_iterator([" ".join(PIECES), "".join(PIECES), *PIECES] * 20, trainer)
            made = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", pad_token="<s>")
            made.save_pretrained(folder)
        model: Any = model_class("text-classification", None)(path=str(folder))  # type: ignore[call-arg]
        model.load("cpu")
        assert type(model._tokenizer.backend_tokenizer.model).__name__ in (kind, "BPE")
        return model

    return load


@pytest.mark.parametrize("kind", ["WordPiece", "Unigram", "byte pairs", "pairs, and no words"])
def test_a_long_text_of_which_only_the_beginning_is_looked_at_has_the_tokens_of_the_whole(
    with_tokenizer: Callable[[str], Any], kind: str
) -> None:
    model = with_tokenizer(kind)
    chance = random.Random(5)
    for of in range(len(PIECES)):
        for pieces in (PIECES, PIECES[of : of + 1], PIECES[of : of + 2]):
            for joints in ("",), ("", " ", "\n"):
                whole = "".join(chance.choice(pieces) + chance.choice(joints) for _ in range(900))
                expected = model._tokenizer(whole, truncation=True, max_length=64)["input_ids"]
                rows = model.preprocess([whole, "water"], {})
                assert [row["input_ids"] for row in rows] == [expected, model._tokenizer("water")["input_ids"]]


def test_a_word_that_the_beginning_cuts_is_looked_at_whole_where_few_tokens_count(loaded: Loaded) -> None:
    """What lies beyond the limit comes in pieces of one word each, and each has the special tokens of a text."""
    model: Any = loaded("text-classification", "classes", max_length=3)
    alphabet = [word for word in model._tokenizer.get_vocab() if len(word) == 1 and word.isalpha()]
    for letter in alphabet:
        text = " " * (model._looked_at - 95) + letter * 150  # too long to be a word; its beginning is not
        (row,) = model.preprocess([text], {})
        assert row["input_ids"] == model._tokenizer(text, truncation=True, max_length=3)["input_ids"]
    assert alphabet


@pytest.mark.parametrize("truncation", [True, False])
def test_of_a_text_without_end_only_the_beginning_is_tokenised(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch, truncation: bool
) -> None:
    model: Any = loaded("text-classification", "classes", truncation=truncation)
    seen: list[int] = []
    encoded = model._encoded

    def looked_at(texts: list[str]) -> Any:
        seen.extend(map(len, texts))
        return encoded(texts)

    monkeypatch.setattr(model, "_encoded", looked_at)
    (row,) = model.preprocess(["word, and " * 100_000], {})
    assert sum(seen) < 10_000
    if truncation:
        assert model.cost(row) == 64
    else:
        assert row.message == "text: 320 or more tokens; the limit is 64"


@pytest.mark.parametrize(
    ("task", "kind", "text"),
    [
        ("text-classification", "classes", "water"),
        ("text-classification", "regression", "water"),
        ("feature-extraction", "encoder", "water"),
        ("fill-mask", "masked", "water [MASK]"),
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_answer_that_is_no_number_is_an_error_of_the_pass(
    loaded: Loaded, task: str, kind: str, text: str, value: float
) -> None:
    """JSON would have null for it."""
    model: Any = loaded(task, kind)
    run(model, [text])
    model._model.get_input_embeddings().weight.data[2300] = value  # "water"
    with pytest.raises(ValueError, match="gave what is no number"):
        run(model, [text])


def test_an_empty_string_is_only_its_special_tokens(loaded: Loaded) -> None:
    model = loaded("text-classification", "classes")
    (row,) = model.preprocess([""], {})
    assert row["input_ids"] == [101, 102]


def test_collate_pads_to_the_longest_and_masks_the_rest(loaded: Loaded) -> None:
    model = loaded("text-classification", "classes", packing="off")
    batch = model.collate(model.preprocess(["a", "a b c"], {}))
    assert {name: str(values.dtype) for name, values in batch.items()} == {
        "input_ids": "torch.int64",
        "token_type_ids": "torch.int64",
        "attention_mask": "torch.int64",
    }
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["input_ids"].tolist() == [[101, 1037, 102, 0, 0], [101, 1037, 1038, 1039, 102]]


def test_token_types_are_left_out_where_the_model_has_none(loaded: Loaded) -> None:
    (row,) = loaded("text-classification", "distilbert").preprocess(["text"], {})
    assert set(row) == {"input_ids"}


@pytest.mark.parametrize(
    ("task", "kind"),
    [("feature-extraction", "encoder"), ("text-classification", "classes"), ("fill-mask", "masked")],
)
@pytest.mark.parametrize("options", [{}, {"max_length": 16, "truncation": False}], ids=["default", "tight"])
def test_samples_can_be_run(loaded: Loaded, task: str, kind: str, options: dict[str, Any]) -> None:
    model = loaded(task, kind, **options)
    samples = model.samples()
    assert samples
    assert len(run(model, samples)) == len(samples)


def test_samples_before_load_are_none(checkpoint: Checkpoint) -> None:
    assert model_class("fill-mask", None)(path=str(checkpoint("masked"))).samples() == ()  # type: ignore[call-arg]


def test_preprocess_runs_beside_forward_and_beside_itself(loaded: Loaded) -> None:
    model = loaded("fill-mask", "masked")
    expected = run(model, MASKED)
    wrong: list[Any] = []
    done = threading.Event()

    def prepare() -> None:
        try:
            while not done.is_set():
                rows = model.preprocess([*MASKED, *TEXTS], {})
                counts = [0 if isinstance(row, RequestError) else model.cost(row) for row in rows]
                if counts != [7, 3, 14, 43, 0, 0, 0, 0, 0]:
                    wrong.append(counts)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=prepare) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            assert_close(run(model, MASKED), expected, 1e-5)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param(
            {"dtype": "float16"},
            "model.options.dtype='float16': allowed are checkpoint, float32, bfloat16, fast",
            id="half",
        ),
        pytest.param({"threads": 0}, "model.options.threads=0: allowed are positive integers", id="threads"),
        pytest.param({"max_length": 0}, "model.options.max_length=0", id="max_length"),
        pytest.param({"max_length": 65}, "model.options.max_length=65: allowed are 3 to 64", id="beyond-the-model"),
        pytest.param({"max_length": 2}, "model.options.max_length=2: allowed are 3 to 64", id="no-room"),
        pytest.param({"truncation": "no"}, "model.options.truncation='no'", id="truncation"),
        pytest.param({"pooling": "max"}, "model.options.pooling='max': allowed are mean and cls", id="pooling"),
    ],
)
def test_a_bad_option_is_refused_naming_what_is_allowed(loaded: Loaded, options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadConfig) as refused:
        loaded("feature-extraction", "encoder", **options)
    assert said in str(refused.value)


def test_bfloat16_is_near_the_exact_answer(loaded: Loaded) -> None:
    exact, rough = (loaded("feature-extraction", "encoder", dtype=dtype) for dtype in ("float32", "bfloat16"))
    for one, other in zip(run(exact, TEXTS), run(rough, TEXTS), strict=True):
        assert other.dtype.name == "float32"
        assert 0.99 < float(one @ other) < 0.999_999_9


def test_a_checkpoint_without_the_tasks_head_is_refused(loaded: Loaded) -> None:
    with pytest.raises(ModelUnavailable, match=r"lacks the weights classifier\.bias, classifier\.weight"):
        loaded("text-classification", "encoder")


@pytest.mark.parametrize("packing", ["auto", "off"])
def test_a_text_without_any_token_is_refused_and_its_neighbours_are_not(loaded: Loaded, packing: str) -> None:
    """Many decoders' tokenizers add nothing; the mean of no states is no number."""
    from tokenizers.processors import TemplateProcessing

    model: Any = loaded("feature-extraction", "encoder", packing=packing)
    model._tokenizer.backend_tokenizer.post_processor = TemplateProcessing("$A", "$A $B", [])
    one, refused, other = model.preprocess(["one", "", "two words"], {})
    assert isinstance(refused, InvalidRequest)
    assert "no tokens" in refused.message
    assert len(model.forward(model.collate([one, other]))) == 2
