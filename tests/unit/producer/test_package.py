"""What installing and importing the client brings, and what it does not."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import forebay_producer

ROOT = Path(__file__).parents[3]


def test_public_names_are_listed_and_there() -> None:
    for name in forebay_producer.__all__:
        assert hasattr(forebay_producer, name)


def test_importing_the_client_loads_neither_torch_nor_the_worker() -> None:
    code = "import sys, json, forebay_producer.cli; print(json.dumps(sorted(m.split('.')[0] for m in sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(told.stdout))
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
    assert not brought & {"torch", "transformers", "numpy", "forebay-consumer"}
