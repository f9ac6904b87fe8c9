"""torch.compile on this machine's compiler: a minute or more, the same answers, and nothing to compile later."""

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from forebay_consumer import Model
from forebay_consumer.models.registry import model_class
from unit.consumer.models.tiny import TEXTS, assert_close, run, save

pytestmark = [
    pytest.mark.models,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
    pytest.mark.timeout(900),
    # inductor's own files and clocks
    pytest.mark.filterwarnings("default"),
]


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        pytest.param("feature-extraction", "encoder", id="vectors"),
        pytest.param("feature-extraction", "mpnet.encoder", id="vectors by masks", marks=pytest.mark.long),
        pytest.param("text-classification", "classes", id="scores", marks=pytest.mark.long),
        pytest.param("fill-mask", "masked", id="words", marks=pytest.mark.long),
        pytest.param("feature-extraction", "deberta-v2.encoder", id="padded", marks=pytest.mark.long),
        pytest.param("text-classification", "qwen3.classes", id="decoder", marks=pytest.mark.long),
    ],
)
def test_a_compiled_model_answers_the_same(tmp_path: Path, task: str, kind: str) -> None:
    import torch

    save(kind, tmp_path)
    plain, compiled = _tuned(tmp_path, task), _tuned(tmp_path, task, compile=True)
    texts = [f"[MASK] {text}" for text in TEXTS] if task == "fill-mask" else TEXTS
    chance = random.Random(1)
    mixes = [texts, *([text] for text in texts), *([text] * 3 for text in texts)]
    mixes += [chance.choices(texts, k=chance.randrange(2, 24)) for _ in range(20)]
    with torch.compiler.set_stance("fail_on_recompile"):  # seconds or minutes, in which requests would wait
        for mix in mixes:
            assert_close(_plain(run(compiled, mix)), _plain(run(plain, mix)), 1e-5)


def _tuned(folder: Path, task: str, **options: Any) -> Model:
    model = model_class(task, None)(path=str(folder), **options)  # type: ignore[call-arg]
    model.load("cpu")
    model.tune(())
    return model


def _plain(found: Any) -> Any:
    return [row.tolist() if hasattr(row, "tolist") else row for row in found]
