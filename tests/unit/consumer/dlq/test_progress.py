"""What a group's commit says of the letters that were put back."""

import pytest

from forebay_consumer.dlq.letters import Kind
from forebay_consumer.dlq.progress import PLANNED_BYTES, Progress, Scan
from forebay_consumer.errors import FatalError

A, B = Kind("requests", "model_error"), Kind("requests", "poison")


def again(progress: Progress) -> Progress:
    """As the next run reads it."""
    return Progress.read(progress.passed, progress.metadata())


def test_where_all_is_put_back_an_offset_says_it_all() -> None:
    progress = Progress()
    scan = Scan(progress, 0)
    for offset, kind in enumerate([A, B, A]):
        scan.done(kind, offset)
    scan.reached(5)
    assert (progress.passed, progress.metadata()) == (5, "")
    assert again(progress).holds(A, 4)
    assert not again(progress).holds(A, 5)


def test_one_code_of_many_is_one_range_however_many_letters_there_are() -> None:
    progress = Progress()
    scan = Scan(progress, 0)
    for offset in range(0, 100_000, 2):
        scan.left(B, offset)
        scan.done(A, offset + 1)
    assert progress.passed == 0
    assert progress.metadata() == '{"requests":{"model_error":[0,100000]}}'
    assert again(progress).holds(A, 99_999)
    assert not again(progress).holds(B, 0)


def test_what_was_left_in_between_can_be_put_back_later() -> None:
    progress = Progress()
    scan = Scan(progress, 0)
    scan.done(A, 0)
    scan.left(A, 1)
    scan.done(A, 2)
    progress = again(progress)
    assert [progress.holds(A, offset) for offset in range(4)] == [True, False, True, False]
    later = Scan(progress, progress.passed)
    later.done(A, 1)
    later.done(A, 2)
    later.reached(3)
    assert (progress.passed, progress.metadata()) == (3, "")


def test_a_run_that_began_further_on_says_nothing_of_what_it_skipped() -> None:
    progress = Progress(2)
    scan = Scan(progress, 10)
    scan.done(A, 11)
    scan.reached(20)
    assert progress.passed == 2
    assert [again(progress).holds(A, offset) for offset in (1, 2, 9, 10, 11, 12)] == [
        True, False, False, True, True, False,
    ]  # fmt: skip


def test_what_the_topic_has_deleted_waits_no_longer() -> None:
    progress = Progress(3)
    scan = Scan(progress, 7, low=7)
    scan.done(A, 8)
    assert (progress.passed, progress.metadata()) == (9, "")


def test_the_end_is_above_all_that_was_put_back() -> None:
    progress = Progress(3)
    assert progress.end == 3
    Scan(progress, 10).done(A, 11)
    assert again(progress).end == 12


def test_too_scattered_progress_is_refused_before_it_is_lost() -> None:
    progress = Progress()
    scan = Scan(progress, 0)
    scan.left(B, 0)
    progress.check_room()
    for offset in range(1, 1000, 2):
        scan.left(A, offset)
        scan.done(A, offset + 1)
    assert len(progress.metadata()) > PLANNED_BYTES
    with pytest.raises(FatalError, match="too scattered"):
        progress.check_room()


@pytest.mark.parametrize("metadata", ["{oops", "[]", '{"a": 1}', '{"a": {"b": [1]}}', '{"a": {"b": ["x", "y"]}}'])
def test_a_commit_that_somebody_else_wrote_is_refused(metadata: str) -> None:
    with pytest.raises(FatalError, match="not written by dlq redrive"):
        Progress.read(5, metadata)


def test_without_a_commit_nothing_was_put_back() -> None:
    assert Progress.read(-1001, None).passed == 0
