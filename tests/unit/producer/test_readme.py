"""The page for users says what the code does."""

import ast
import re
from pathlib import Path
from typing import Final

import forebay_producer
from forebay_producer import ClientSettings, ForebayError

README: Final = (Path(__file__).parents[3] / "producer" / "README.md").read_text(encoding="utf-8")


def _first_cells(heading: str) -> list[str]:
    section = README.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^\| `(\w+)`", section, re.MULTILINE)


def test_its_examples_are_python_and_import_public_names() -> None:
    examples = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        for node in ast.walk(ast.parse(example)):
            if isinstance(node, ast.ImportFrom) and node.module == "forebay_producer":
                assert {alias.name for alias in node.names} <= {*forebay_producer.__all__}


def test_it_tells_every_error() -> None:
    errors = {name for name in forebay_producer.__all__ if isinstance(value := getattr(forebay_producer, name), type)
              and issubclass(value, ForebayError)}  # fmt: skip
    assert {*_first_cells("When it goes wrong")} == errors - {"ForebayError"}


def test_it_tells_every_setting_with_its_default() -> None:
    assert _first_cells("Settings") == [*ClientSettings.model_fields]
    for name, field in ClientSettings.model_fields.items():
        default = (
            "localhost:9092" if name == "kafka" else f"{field.default:g}" if name == "timeout_s" else field.default
        )
        assert re.search(rf"\| `{name}` \|[^|]*\| `{default}` \|", README), name
