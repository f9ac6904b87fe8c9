"""From a task's name or `module:Class` to the class of a model; imports torch only for a built-in task."""

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from forebay_consumer.errors import BadConfig
from forebay_consumer.model import Model

TASKS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "feature-extraction": "forebay_consumer.models.text:FeatureExtraction",
        "text-classification": "forebay_consumer.models.text:TextClassification",
        "fill-mask": "forebay_consumer.models.text:FillMask",
        "image-classification": "forebay_consumer.models.image:ImageClassification",
    }
)


def model_class(task: str | None, class_path: str | None) -> type[Model]:
    """The class of a built-in task, or the user's own.

    Raises:
        BadConfig: there is no such task, module or class, it is no `Model`, or torch is not installed.
    """
    if class_path is not None:
        return _own(class_path)
    if task is None or task not in TASKS:
        raise BadConfig(f"model.task={task!r} is unknown; allowed: {', '.join(TASKS)}, or model.class for your own")
    try:
        return _load(TASKS[task])
    except ModuleNotFoundError as error:
        raise BadConfig(
            f"model.task={task!r} needs {error.name}; install it with: pip install 'forebay-consumer[transformers]'"
        ) from error


def _own(class_path: str) -> type[Model]:
    module, _, name = class_path.partition(":")
    if not module or not name:
        raise BadConfig(f"model.class={class_path!r}: expected module:Class, as in my_models:Sentiment")
    try:
        found = _load(class_path)
    except ModuleNotFoundError as error:
        raise BadConfig(
            f"model.class={class_path!r}: no module named {error.name!r} on the Python path or in this folder"
        ) from error
    except AttributeError as error:
        raise BadConfig(f"model.class={class_path!r}: module {module!r} has no {name!r}") from error
    if not (isinstance(found, type) and issubclass(found, Model)):
        raise BadConfig(f"model.class={class_path!r}: {name} is not a subclass of forebay_consumer.Model")
    return found


def _load(class_path: str) -> type[Model]:
    module, _, name = class_path.partition(":")
    found: type[Model] = getattr(importlib.import_module(module), name)
    return found
