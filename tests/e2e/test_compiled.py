"""torch.compile on this machine's compiler: a minute or more, and the same answers."""

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
        pytest.param("text-classification", "classes", id="scores", marks=pytest.mark.long),
    ],
)
def test_a_compiled_model_answers_the_same(tmp_path: Path, task: str, kind: str) -> None:
    save(kind, tmp_path)
    plain, compiled = _tuned(tmp_path, task), _tuned(tmp_path, task, compile=True)
    assert_close(_plain(run(compiled, TEXTS)), _plain(run(plain, TEXTS)), 1e-5)
    for text in TEXTS:
        assert_close(_plain(run(compiled, [text])), _plain(run(plain, [text])), 1e-5)


def _tuned(folder: Path, task: str, **options: Any) -> Model:
    model = model_class(task, None)(path=str(folder), **options)  # type: ignore[call-arg]
    model.load("cpu")
    model.tune(())
    return model


def _plain(found: Any) -> Any:
    return [row.tolist() if hasattr(row, "tolist") else row for row in found]
