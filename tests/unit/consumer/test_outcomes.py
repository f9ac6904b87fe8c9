"""One outcome per record, however the pass goes."""

from collections.abc import Callable, Sequence
from math import ceil, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_consumer.errors import BatchError, FatalError, ModelUnavailable, OutOfMemory, WrongLength
from forebay_consumer.outcomes import Failed, settle, split_rows
from forebay_consumer.record import Item
from forebay_schemas import Code
from support.consumer import make_item


class Passes:
    """Gives each item its offset; raises for a pass that `breaks`. Counts passes."""

    def __init__(self, breaks: Callable[[Sequence[int]], Exception | None]) -> None:
        self.breaks = breaks
        self.seen: list[list[int]] = []

    def __call__(self, items: Sequence[Item]) -> list[int]:
        offsets = [item.record.offset for item in items]
        self.seen.append(offsets)
        if (error := self.breaks(offsets)) is not None:
            raise error
        return offsets


def items(count: int) -> list[Item]:
    return [make_item(offset) for offset in range(count)]


def culprits(*offsets: int, error: Exception | None = None) -> Passes:
    raised = error or ValueError("no")
    return Passes(lambda run: raised if set(offsets) & set(run) else None)


def plain(outcomes: Sequence[int | Failed]) -> list[int | Code]:
    return [outcome.code if isinstance(outcome, Failed) else outcome for outcome in outcomes]


def test_a_batch_without_a_culprit_is_one_pass() -> None:
    run = culprits()
    assert settle(items(5), run) == [0, 1, 2, 3, 4]
    assert len(run.seen) == 1


@pytest.mark.parametrize("count", range(1, 65))
def test_one_culprit_costs_two_passes_a_halving_and_one_more(count: int) -> None:
    bound = 2 * ceil(log2(count)) + 1
    for culprit in range(count):
        run = culprits(culprit)
        outcomes = settle(items(count), run)
        expected: list[int | Code] = list(range(count))
        expected[culprit] = Code.MODEL_ERROR
        assert plain(outcomes) == expected
        assert len(run.seen) <= bound, f"culprit {culprit} among {count}: {len(run.seen)} passes"


@given(count=st.integers(1, 64), data=st.data())
def test_any_culprits_fail_and_all_others_keep_their_results_in_order(count: int, data: st.DataObject) -> None:
    bad = data.draw(st.sets(st.integers(0, count - 1)))
    run = culprits(*bad)
    assert plain(settle(items(count), run)) == [
        Code.MODEL_ERROR if offset in bad else offset for offset in range(count)
    ]
    assert all(offsets == sorted(offsets) for offsets in run.seen)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        pytest.param(ValueError("/home/me/secret"), Code.MODEL_ERROR, "(ValueError)", id="anything of the model's"),
        pytest.param(MemoryError(), Code.MODEL_ERROR, "(MemoryError)", id="out of the host's memory"),
        pytest.param(OutOfMemory("cuda:0 is full"), Code.OUT_OF_MEMORY, "cuda:0 is full", id="out of device memory"),
        pytest.param(WrongLength(4, 3), Code.MODEL_ERROR, "gave 3 outputs for 4 rows", id="an output missing"),
        pytest.param(BatchError("shape"), Code.MODEL_ERROR, "shape", id="the batch as a whole"),
    ],
)
def test_a_lone_culprit_fails_by_the_kind_of_its_error(error: Exception, code: Code, said: str) -> None:
    (failed, other) = settle(items(2), culprits(0, error=error))
    assert isinstance(failed, Failed)
    assert failed.code is code
    assert said in str(failed)
    assert failed.__cause__ is error
    assert other == 1


def test_the_words_of_a_foreign_exception_do_not_reach_the_client() -> None:
    (failed,) = settle(items(1), culprits(0, error=RuntimeError("/srv/models: other client's text")))
    assert "/srv" not in str(failed)


def test_a_batch_too_large_for_the_device_is_halved_until_it_fits() -> None:
    run = Passes(lambda offsets: OutOfMemory("full") if len(offsets) > 2 else None)
    assert settle(items(8), run) == list(range(8))
    assert [len(offsets) for offsets in run.seen] == [8, 4, 2, 2, 4, 2, 2]


@pytest.mark.parametrize("error", [FatalError("stop"), ModelUnavailable("weights gone")])
@pytest.mark.parametrize("count", [1, 2, 8])
def test_a_fatal_error_passes_through_and_nothing_more_is_run(error: FatalError, count: int) -> None:
    run = culprits(0, error=error)
    with pytest.raises(FatalError) as caught:
        settle(items(count), run)
    assert caught.value is error
    assert len(run.seen) == 1


def test_a_fatal_error_in_a_half_passes_through_too() -> None:
    run = Passes(lambda offsets: ValueError() if len(offsets) > 1 else FatalError("stop") if offsets == [1] else None)
    with pytest.raises(FatalError):
        settle(items(4), run)
    assert [2, 3] not in run.seen


def test_an_interrupt_concludes_nothing() -> None:
    def interrupted(_items: Sequence[Item]) -> Sequence[int]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        settle(items(1), interrupted)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([1, 1, 1], [[0], [1], [2]], id="one row each"),
        pytest.param([3], [[0, 1, 2]], id="one request of several rows"),
        pytest.param([1, 3, 2], [[0], [1, 2, 3], [4, 5]], id="mixed"),
        pytest.param([], [], id="nothing"),
    ],
)
def test_each_item_gets_the_outputs_of_its_own_rows(rows: Sequence[int], expected: list[list[int]]) -> None:
    made = [make_item(offset, rows=count) for offset, count in enumerate(rows)]
    assert split_rows(list(range(sum(rows))), made) == expected
