"""Every test that a page names is there, under the name that the page gives."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
TESTS: Final = ROOT / "tests"
_FILE: Final = re.compile(r"(?:(?:unit|integration|faults|e2e|soak)/)?(?:\w+/)*test_\w+")


def functions(path: Path) -> list[str]:
    """The test functions of a file, in order."""
    tree = ast.parse(path.read_text("utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]


def rows(page: str, heading: str) -> Iterator[list[str]]:
    """The cells of each row of the table whose first column has this heading."""
    _, _, table = (ROOT / page).read_text("utf-8").partition(f"\n| {heading} |")
    for line in table.split("\n\n", 1)[0].splitlines()[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


GUARANTEES: Final = [(cells[0], cells[-1]) for cells in rows("README.md", "what happens")]


@pytest.mark.parametrize(("what", "proof"), GUARANTEES, ids=[what for what, _ in GUARANTEES])
def test_every_guarantee_of_the_readme_names_tests_that_are_there(what: str, proof: str) -> None:
    named = re.findall(r"`([^`]+)`", proof)
    assert named, "no test is named"
    for name in named:
        file, _, word = name.partition(" -k ")
        path = TESTS / file
        assert path.is_file(), f"{file} is not there"
        assert word, f"{file}: which of its tests?"
        assert any(word in function for function in functions(path)), f"{file} has no test with {word!r} in its name"


FAULTS: Final = [(cells[0], cells[3].partition(" (")[0]) for cells in rows("docs/faults.md", "row") if cells[3]]


@pytest.mark.parametrize(("row", "where"), FAULTS, ids=[f"row {row}" for row, _ in FAULTS])
def test_every_fault_has_a_test_with_its_row_in_its_name_in_each_file_that_is_named(row: str, where: str) -> None:
    files = _FILE.findall(where)
    assert files
    for file in files:
        path = TESTS / (file if "/" in file else f"faults/{file}")
        assert any(f"row_{int(row):02}_" in name for name in functions(path.with_suffix(".py"))), path.name


ACCEPTANCE: Final = [(cells[0], cells[2]) for cells in rows("docs/acceptance.md", "row")]


@pytest.mark.parametrize(("numbers", "where"), ACCEPTANCE, ids=[numbers for numbers, _ in ACCEPTANCE])
def test_every_row_of_acceptance_has_a_test_with_its_number_in_its_name(numbers: str, where: str) -> None:
    files = _FILE.findall(where)
    assert files
    folder = ""
    names: list[str] = []
    for file in files:
        folder = file.rpartition("/")[0] or folder  # "integration/test_worker, test_client"
        path = TESTS / folder / f"{file.rpartition('/')[2]}.py"
        assert path.is_file(), path.name
        names += functions(path)
    for number in numbers.split(", "):
        assert any(f"{number.replace('.', '_')}_" in f"{name}_" for name in names), f"no test of {number} in {where}"


def test_the_tables_were_found() -> None:
    assert min(len(GUARANTEES), len(FAULTS), len(ACCEPTANCE)) > 10
