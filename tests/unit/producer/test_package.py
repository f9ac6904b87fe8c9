"""What the package exports, and what installing and importing it brings."""

import json
import pickle
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Final

import forebay_producer
from forebay_producer import ForebayError, RequestFailed
from forebay_schemas import Code, Failure

ROOT: Final = Path(__file__).parents[3]
HEAVY: Final = frozenset(["torch", "transformers", "numpy", "forebay-consumer"])


def test_the_public_names_are_these() -> None:
    """Removing one breaks users: do it on purpose, here too."""
    public = {
        name
        for name, value in vars(forebay_producer).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert set(forebay_producer.__all__) == public
    assert forebay_producer.__all__ == [
        "BadRequest",
        "BadSettings",
        "BrokerUnavailable",
        "Client",
        "ClientClosed",
        "ClientQueueFull",
        "ClientSettings",
        "ForebayError",
        "NotDelivered",
        "ReplyTimeout",
        "Request",
        "RequestFailed",
        "load",
        "submit_all",
    ]


def test_the_tree_drawn_in_errors_names_every_error() -> None:
    from forebay_producer import errors

    classes = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
    }
    drawn = re.findall(r"^ *([A-Z]\w+)", (errors.__doc__ or "").split("\n\n", 1)[1], re.MULTILINE)
    assert set(drawn) == classes
    assert all(issubclass(getattr(errors, name), ForebayError) for name in classes)


def test_an_error_survives_the_way_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(RequestFailed(Failure("mine", Code.POISON, "why"))))
    assert (error.code, error.request_id, str(error)) == (Code.POISON, "mine", "poison: why")


def test_importing_the_client_loads_neither_torch_nor_the_worker() -> None:
    code = "import sys, json, forebay_producer.cli; print(json.dumps(sorted(m.split('.')[0] for m in sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(told.stdout))
    assert "confluent_kafka" in loaded
    assert not loaded & {"torch", "transformers", "numpy", "forebay_consumer", "forebay_local"}


def test_installing_the_client_alone_brings_no_torch() -> None:
    locked = tomllib.loads((ROOT / "uv.lock").read_text())
    needs = {
        package["name"]: [need["name"] for need in package.get("dependencies", ())] for package in locked["package"]
    }
    brought: set[str] = set()
    left = ["forebay-producer"]
    while left:
        name = left.pop()
        if name not in brought:
            brought.add(name)
            left += needs[name]
    assert "confluent-kafka" in brought
    assert not brought & HEAVY
