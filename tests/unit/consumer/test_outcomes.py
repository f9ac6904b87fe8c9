"""One outcome per record, however the pass goes."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from math import ceil, log2
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_consumer.ceiling import Ceiling
from forebay_consumer.errors import (
    BatchError,
    FatalError,
    ModelUnavailable,
    OutOfMemory,
    TransientError,
    WrongLength,
)
from forebay_consumer.outcomes import Failed, Settler, split_rows
from forebay_consumer.record import Item
from forebay_consumer.retries import Retries
from forebay_schemas import Code
from support.consumer import ManualClock, make_item


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


def settle(made: Sequence[Item], run: Callable[[Sequence[Item]], Sequence[int]], **options: Any) -> list[int | Failed]:
    return Settler(run, options.pop("retries", Retries()), Ceiling(), **options).settle(made)


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
    most = 0
    for culprit in range(count):
        run = culprits(culprit)
        outcomes = settle(items(count), run)
        expected: list[int | Code] = list(range(count))
        expected[culprit] = Code.MODEL_ERROR
        assert plain(outcomes) == expected
        assert len(run.seen) <= bound, f"culprit {culprit} among {count}: {len(run.seen)} passes"
        most = max(most, len(run.seen))
    assert most == bound, "the worst place costs what the bound says"


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
    assert [len(offsets) for offsets in run.seen] == [8, 4, 2, 2, 2, 2], "what failed once is not tried again"


# --- what the device cannot hold ---


class Device:
    """Holds `limit` padded cost, and less than that of `greedy` items. Gives each item its offset."""

    def __init__(self, limit: int, greedy: Sequence[int] = ()) -> None:
        self.limit = limit
        self.greedy = greedy
        self.costs: list[int] = []

    def __call__(self, run: Sequence[Item]) -> list[int]:
        cost = sum(len(item.rows) for item in run) * max(item.cost for item in run)
        self.costs.append(cost)
        if cost > self.limit or any(item.record.offset in self.greedy for item in run):
            raise OutOfMemory("full")
        return [item.record.offset for item in run]


def settler(device: Device) -> Settler[int]:
    return Settler(device, Retries(), Ceiling())


def test_the_next_batch_is_cut_before_it_is_run() -> None:
    device = Device(8)
    made = settler(device)
    assert made.settle(items(32)) == list(range(32))
    assert device.costs == [32, 16, 8, 8, 8, 8]
    device.costs.clear()
    assert made.settle(items(32)) == list(range(32))
    assert device.costs == [8, 8, 8, 8]


def test_an_item_that_does_not_even_fit_alone_is_out_of_memory_by_itself() -> None:
    settled = settler(Device(1000, greedy=[5])).settle(items(8))
    assert plain(settled) == [0, 1, 2, 3, 4, Code.OUT_OF_MEMORY, 6, 7]
    assert isinstance(settled[5], Failed)
    assert "does not fit into memory, even alone" in str(settled[5])


def test_what_others_beside_a_greedy_item_taught_is_kept() -> None:
    device = Device(8, greedy=[5])
    made = settler(device)
    made.settle(items(32))
    device.costs.clear()
    made.settle(items(32))
    assert max(device.costs) == 8, "what is known not to fit is not run again"
    assert device.costs[-3:] == [8, 8, 8]


def test_a_greedy_item_does_not_make_the_batches_after_it_small() -> None:
    device = Device(1000, greedy=[5])
    made = settler(device)
    made.settle(items(32))
    device.greedy, device.costs = (), []
    made.settle(items(32))
    assert device.costs == [32]


def test_what_a_failed_pass_held_is_free_before_the_next_one() -> None:
    class Activations:
        pass

    held: list[weakref.ref[Activations]] = []

    def run(made: Sequence[Item]) -> Sequence[int]:
        assert [ref for ref in held if ref() is not None] == []
        activations = Activations()
        held.append(weakref.ref(activations))
        if len(made) > 1:
            try:
                raise MemoryError
            except MemoryError as error:
                raise OutOfMemory("full") from error
        return [made[0].record.offset]

    assert settle(items(4), run) == [0, 1, 2, 3]
    assert len(held) == 6


# --- what may pass by itself ---


class Flaky(Passes):
    """Raises `error` in its first `failures` passes that hold `offset`, then works."""

    def __init__(self, failures: int, offset: int = 0, error: Exception | None = None) -> None:
        super().__init__(self._next)
        self.left = failures
        self.offset = offset
        self.error = error or TransientError("the feature store is away")

    def _next(self, run: Sequence[int]) -> Exception | None:
        if self.offset not in run or not self.left:
            return None
        self.left -= 1
        return self.error


def impatient(attempts: int) -> Retries:
    return Retries(attempts, pause=lambda _seconds: None)


def test_003_4_failing_twice_and_then_working_is_a_result() -> None:
    run = Flaky(2)
    assert settle(items(4), run, retries=impatient(3)) == [0, 1, 2, 3]
    assert run.seen == [[0, 1, 2, 3]] * 3


@pytest.mark.parametrize("count", [1, 2, 8])
def test_003_4_failing_always_is_an_error_that_counts_its_attempts_and_the_others_work(count: int) -> None:
    run = Flaky(1000)
    settled = settle(items(count), run, retries=impatient(3))
    assert plain(settled) == [Code.MODEL_ERROR, *range(1, count)]
    assert isinstance(settled[0], Failed)
    assert settled[0].attempts == 3
    assert len(run.seen) <= 2 + 2 * ceil(log2(count)) + 1


def test_what_is_not_transient_is_split_at_once() -> None:
    run = culprits(0)
    (failed, *_) = settle(items(2), run, retries=impatient(3))
    assert run.seen == [[0, 1], [0], [1]]
    assert isinstance(failed, Failed)
    assert failed.attempts == 1


def test_every_wait_is_told_and_each_may_be_longer_than_the_one_before() -> None:
    waits: list[float] = []
    told: list[int] = []
    settle(
        items(1),
        Flaky(1000),
        retries=Retries(5, 0.2, 1.0, waits.append, lambda: 0.5),
        retrying=lambda _error, attempt: told.append(attempt),
    )
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.5])
    assert told == [1, 2, 3, 4]


def test_a_wait_that_the_end_of_the_worker_cuts_short_concludes_nothing() -> None:
    def ended(_seconds: float) -> None:
        raise FatalError("the worker failed")

    with pytest.raises(FatalError, match="the worker failed"):
        settle(items(4), Flaky(1000), retries=Retries(3, pause=ended))


# --- what comes too late ---


def late(why: str, is_late: Callable[[Item], bool]) -> Callable[[Sequence[Item]], Mapping[int, str]]:
    return lambda waiting: {place: why for place, item in enumerate(waiting) if is_late(item)}


def test_an_item_whose_time_has_passed_is_expired_without_a_pass_and_the_rest_goes_on() -> None:
    run = culprits()
    settled = settle(items(4), run, lapsed=late("its time had passed", lambda item: item.record.offset == 1))
    assert plain(settled) == [0, Code.EXPIRED, 2, 3]
    assert str(settled[1]) == "its time had passed before it could be run"
    assert run.seen == [[0, 2, 3]]


def test_a_batch_whose_time_has_passed_is_no_pass_at_all() -> None:
    run = culprits()
    assert plain(settle(items(2), run, lapsed=late("late", lambda _: True))) == [Code.EXPIRED] * 2
    assert run.seen == []


def test_time_that_passes_while_a_pass_is_tried_again_counts() -> None:
    clock = ManualClock()
    run = Flaky(1)
    settled = settle(
        items(2),
        run,
        retries=Retries(3, 4.0, 4.0, clock.advance, lambda: 0.75),
        lapsed=late("late", lambda item: item.record.offset == 1 and clock.now >= 3.0),
    )
    assert plain(settled) == [0, Code.EXPIRED]
    assert run.seen == [[0, 1], [0]]


def test_time_that_passes_while_another_part_of_the_batch_runs_counts() -> None:
    clock = ManualClock()
    device = Device(2)

    def run(part: Sequence[Item]) -> Sequence[int]:
        clock.advance(1.0)
        return device(part)

    made = Settler(run, Retries(), Ceiling(), late("late", lambda _: clock.now >= 3.0))
    assert plain(made.settle(items(6))) == [0, *[Code.EXPIRED] * 5]
    assert device.costs == [6, 3, 1]


# --- what the client is told ---

SECRET = "/srv/models/key.pem of 'another client wrote this'"


@pytest.mark.parametrize(
    ("detail", "has", "lacks"),
    [
        pytest.param("none", [], ["RuntimeError", "/srv", "another client"], id="none"),
        pytest.param("message", ["RuntimeError"], ["/srv", "another client", "Traceback"], id="message"),
        pytest.param("traceback", ["Traceback", "test_outcomes.py", SECRET], [], id="traceback"),
    ],
)
def test_001_11_a_client_is_told_of_an_exception_as_much_as_is_configured(
    detail: str, has: Sequence[str], lacks: Sequence[str]
) -> None:
    (failed,) = settle(items(1), culprits(0, error=RuntimeError(SECRET)), detail=detail)
    assert str(failed).startswith("the model failed on this request")
    assert [words for words in has if words not in str(failed)] == []
    assert [words for words in lacks if words in str(failed)] == []


def test_without_detail_our_own_words_are_left_out_too() -> None:
    (failed,) = settle(items(1), culprits(0, error=WrongLength(4, 3)), detail="none")
    assert str(failed) == "the model failed on this request"


def test_a_long_traceback_keeps_its_end() -> None:
    (failed,) = settle(items(1), culprits(0, error=RuntimeError("x" * 100_000 + "the end")), detail="traceback")
    assert len(str(failed)) < 20_000
    assert str(failed).rstrip().endswith("the end")


# --- what ends the worker ---


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
    kinds: list[Any] = [list, tuple, np.array]
    for kind in kinds:
        split = split_rows(kind(range(sum(rows))), made)
        assert [list(outputs) for outputs in split] == expected
