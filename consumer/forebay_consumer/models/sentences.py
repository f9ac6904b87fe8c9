"""What sentence-transformers saved beside a checkpoint: how token states become a sentence's vector."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from transformers.utils import cached_file

from forebay_consumer.errors import BadConfig

_POOLINGS: Final = {
    "mean": "mean",
    "cls": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
}
"""Ours by the names that sentence-transformers has had for them."""

_MODULES: Final = ("Transformer", "Pooling", "Normalize")


_SETTINGS: Final = [
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]
"""Where its `Transformer` keeps them, by the names that they have had."""


def lowers(path: str) -> bool:
    """Whether sentence-transformers writes a text in small letters before the tokenizer sees it, cased or not."""
    found = [saved for name in _SETTINGS if (saved := _saved(path, name)) is not None]
    return bool(found and found[0].get("do_lower_case"))


def check_modules(path: str) -> None:
    """See that sentence-transformers would do no more with a text than the encoder, pooling and scaling to one length.

    Raises:
        BadConfig: it has another module, or puts a prompt before every text; vectors would silently be others.
    """
    for module in _saved(path, "modules.json") or ():
        kind = str(module["type"]).rpartition(".")[2]
        if kind not in _MODULES:
            raise BadConfig(
                f"model.path={path!r}: its modules.json has a module {module['type']}; built in are only "
                f"{', '.join(_MODULES)}; write a model of your own"
            )
    settings = _saved(path, "config_sentence_transformers.json") or {}
    prompt = settings.get("default_prompt_name")
    if prompt is not None and (settings.get("prompts") or {}).get(prompt) != "":
        raise BadConfig(
            f"model.path={path!r}: its config_sentence_transformers.json has default_prompt_name={prompt!r}, and "
            "prompts are not built in; let clients write them and set it to null, or write a model of your own"
        )


def saved_pooling(path: str) -> str:
    """`mean` or `cls`, as sentence-transformers saved it beside the checkpoint; `mean` where it saved nothing.

    Raises:
        BadConfig: it saved something else, and another pooling would silently give other vectors.
    """
    saved = _saved(path, "1_Pooling/config.json")
    if saved is None:
        return "mean"
    modes = _pooling_modes(saved)
    if len(modes) == 1 and modes[0] in _POOLINGS:
        return _POOLINGS[modes[0]]
    raise BadConfig(
        f"model.path={path!r}: its 1_Pooling/config.json asks for {', '.join(modes) or 'none'}, which is not built "
        "in; say model.options.pooling: mean or cls, or write a model of your own"
    )


def _pooling_modes(settings: Mapping[str, Any]) -> list[str]:
    """What is chosen: by name, as sentence-transformers writes it today, or by a flag for each, as it did before."""
    named = settings.get("pooling_mode")
    if named is None:
        return [name for name, chosen in settings.items() if name.startswith("pooling_mode_") and chosen]
    return [str(each) for each in named] if isinstance(named, list) else [str(named)]


def _saved(path: str, name: str) -> Any:
    """What a JSON file of the checkpoint holds; None where there is no such file."""
    file = cached_file(path, name, _raise_exceptions_for_missing_entries=False)
    return None if file is None else json.loads(Path(file).read_text())
