"""Fixtures around the tiny checkpoints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forebay_consumer import Model
from forebay_consumer.models.registry import model_class
from unit.consumer.models.tiny import Checkpoint, Loaded, save


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A folder by kind, made once."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            save(kind, made[kind])
        return made[kind]

    return folder


@pytest.fixture(scope="session")
def loaded(checkpoint: Checkpoint) -> Loaded:
    """A loaded model of a task and a kind of checkpoint."""

    def load(task: str, kind: str, **options: Any) -> Model:
        model = model_class(task, None)(path=str(checkpoint(kind)), **options)  # type: ignore[call-arg]
        model.load("cpu")
        return model

    return load


@pytest.fixture(scope="session")
def reference(checkpoint: Checkpoint) -> Callable[[str, str], Any]:
    """transformers' own pipeline for a task and a kind of checkpoint."""
    import transformers

    return lambda task, kind: transformers.pipeline(task, model=str(checkpoint(kind)), device="cpu")
