"""From a batch to one outcome per record, whichever way the forward pass goes."""

from collections.abc import Sequence
from math import log2

import pytest

from forebay_consumer.errors import FatalError, ModelUnavailable, OutOfMemory, WrongLength
from forebay_consumer.outcomes import Failed, settle, split_rows
from forebay_consumer.record import Item
from forebay_schemas import Code
from support.consumer import make_item


class Passes:
    """Runs items, counts the passes, and raises whenever a culprit is among them."""

    def __init__(self, *culprits: int, error: Exception | None = None) -> None:
        self.culprits = set(culprits)
        self.error = error or RuntimeError("/secret/path")
        self.count = 0

    def __call__(self, items: Sequence[Item]) -> list[int]:
        self.count += 1
        offsets = [item.record.offset for item in items]
        if self.culprits & set(offsets):
            raise self.error
        return offsets


@pytest.mark.parametrize("size", [1, 2, 3, 7, 32, 64])
def test_one_culprit_is_found_in_few_passes_wherever_it_is(size: int) -> None:
    for culprit in range(size):
        run = Passes(culprit)
        outcomes = settle([make_item(offset) for offset in range(size)], run)
        assert [isinstance(outcome, Failed) for outcome in outcomes] == [place == culprit for place in range(size)]
        assert [outcome for outcome in outcomes if not isinstance(outcome, Failed)] == [
            offset for offset in range(size) if offset != culprit
        ]
        assert run.count <= 2 * -(-log2(size) // 1) + 1


def test_every_culprit_fails_and_nobody_else() -> None:
    outcomes = settle([make_item(offset) for offset in range(16)], Passes(0, 5, 15))
    assert [place for place, outcome in enumerate(outcomes) if isinstance(outcome, Failed)] == [0, 5, 15]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("/secret/path"), Code.MODEL_ERROR),
        (OutOfMemory("the device could not hold the batch"), Code.OUT_OF_MEMORY),
        (WrongLength(3, 2), Code.MODEL_ERROR),
    ],
)
def test_a_failure_has_its_code_and_keeps_the_models_secrets(error: Exception, code: Code) -> None:
    (failed,) = settle([make_item(0)], Passes(0, error=error))
    assert isinstance(failed, Failed)
    assert failed.code is code
    assert "/secret/path" not in str(failed)
    assert failed.__cause__ is error, "the log has it"


def test_something_fatal_concludes_nothing_about_any_item() -> None:
    with pytest.raises(FatalError):
        settle([make_item(0), make_item(1)], Passes(0, error=ModelUnavailable("weights are gone")))


def test_rows_are_split_back_by_each_items_own_count() -> None:
    items = [make_item(0, rows=2), make_item(1, rows=1), make_item(2, rows=3)]
    assert split_rows("abcdef", items) == ["ab", "c", "def"]
