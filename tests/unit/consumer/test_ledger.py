"""What may be committed, and when. The promise hangs on this page."""

import random
import threading

from hypothesis import given
from hypothesis import strategies as st

from forebay_consumer.ledger import Ledger, Mark
from forebay_consumer.progress import Range
from forebay_consumer.record import Claim, Record
from support.consumer import make_record

CLAIM = Claim("requests", 0, 1)


def opened(*offsets: int, start: int = 0) -> tuple[Ledger, dict[int, Record]]:
    ledger = Ledger()
    ledger.open(CLAIM, start)
    records = {offset: make_record(offset) for offset in offsets}
    ledger.take(records.values())
    return ledger, records


def asked(ledger: Ledger) -> dict[Claim, int]:
    """Give out the watermarks that moved."""
    return {claim: mark.offset for claim, mark in ledger.marks(ledger.moved()).items()}


def test_nothing_is_committed_before_the_first_answer() -> None:
    ledger, _ = opened(0, 1, 2)
    assert asked(ledger) == {}


def test_the_watermark_stops_at_the_first_unanswered_record() -> None:
    ledger, records = opened(0, 1, 2, 3)
    ledger.done([records[0], records[2], records[3]])
    assert asked(ledger) == {CLAIM: 1}
    ledger.done([records[1]])
    assert asked(ledger) == {CLAIM: 4}


def test_holes_in_the_offsets_are_stepped_over() -> None:
    ledger, records = opened(3, 7, 20)
    ledger.done([records[3]])
    assert asked(ledger) == {CLAIM: 7}
    ledger.done([records[7], records[20]])
    assert asked(ledger) == {CLAIM: 21}


def test_a_watermark_is_given_out_once() -> None:
    ledger, records = opened(0)
    ledger.done([records[0]])
    assert asked(ledger) == {CLAIM: 1}
    assert asked(ledger) == {}


def test_a_refused_commit_is_given_out_again() -> None:
    ledger, records = opened(0)
    ledger.done([records[0]])
    asked(ledger)
    ledger.refused(CLAIM)
    assert asked(ledger) == {CLAIM: 1}


def test_the_position_is_committed_once_nothing_is_unanswered() -> None:
    ledger, records = opened(0)
    ledger.advance(CLAIM, 5)
    assert asked(ledger) == {}, "a record is unanswered"
    ledger.done([records[0]])
    ledger.advance(CLAIM, 5)
    assert asked(ledger) == {CLAIM: 5}


def test_a_position_never_moves_the_watermark_back() -> None:
    ledger, records = opened(0, 1)
    ledger.done([*records.values()])
    ledger.advance(CLAIM, 1)
    assert asked(ledger) == {CLAIM: 2}


def test_a_late_answer_of_a_lost_partition_is_ignored() -> None:
    ledger, records = opened(0)
    ledger.close([CLAIM])
    ledger.done([records[0]])
    assert asked(ledger) == {}
    assert not ledger.owns(CLAIM)


def test_an_answer_of_an_old_epoch_does_not_count_for_the_new_one() -> None:
    ledger, records = opened(0, 1)
    ledger.close([CLAIM])
    again = Claim("requests", 0, 2)
    ledger.open(again, 0)
    ledger.take([make_record(0, epoch=2), make_record(1, epoch=2)])
    ledger.done([records[0], records[1]])
    assert asked(ledger) == {}


def test_a_dropped_record_is_never_passed() -> None:
    ledger, records = opened(0, 1, 2)
    ledger.drop([records[1]])
    ledger.done([records[0], records[2]])
    assert ledger.marks([CLAIM])[CLAIM].offset == 1


def test_uncovered_counts_what_a_crash_would_repeat() -> None:
    ledger, records = opened(0, 1, 2)
    assert ledger.uncovered == 3
    ledger.done([records[0], records[1]])
    assert ledger.uncovered == 3, "answered, but no commit is accepted yet"
    ledger.accepted(CLAIM, 2)
    assert ledger.uncovered == 1
    ledger.close([CLAIM])
    assert ledger.uncovered == 0


def test_an_older_acceptance_changes_nothing() -> None:
    ledger, records = opened(0, 1)
    ledger.done([*records.values()])
    ledger.accepted(CLAIM, 2)
    ledger.accepted(CLAIM, 1)
    assert ledger.marks([CLAIM])[CLAIM].offset == 2
    assert ledger.settled()


def test_settled_means_that_the_broker_accepted_every_watermark() -> None:
    ledger, records = opened(0)
    assert ledger.settled(), "nothing is answered, so nothing is owed"
    ledger.done([records[0]])
    asked(ledger)
    assert not ledger.settled()
    ledger.accepted(CLAIM, 1)
    assert ledger.settled()


def test_while_revoking_nothing_starts_but_answers_count() -> None:
    ledger, records = opened(0)
    ledger.revoking([CLAIM])
    assert not ledger.takes(CLAIM)
    assert ledger.owns(CLAIM)
    ledger.done([records[0]])
    assert ledger.marks([CLAIM])[CLAIM].offset == 1


def test_a_partition_that_comes_back_may_start_again() -> None:
    ledger, _ = opened()
    ledger.revoking([CLAIM])
    ledger.close([CLAIM])
    again = Claim("requests", 0, 2)
    ledger.open(again, 0)
    assert ledger.takes(again)


def test_a_revoke_waits_for_the_last_record_in_flight() -> None:
    ledger, records = opened(0, 1, 2)
    answered: list[bool] = []
    waiter = threading.Thread(target=lambda: answered.append(ledger.wait_answered([CLAIM], 30)))
    waiter.start()
    ledger.done([records[0]])
    ledger.drop([records[2]])
    assert answered == []
    ledger.done([records[1]])
    waiter.join(30)
    assert answered == [True]


def test_a_revoke_gives_up_after_its_time() -> None:
    ledger, _ = opened(0)
    assert ledger.wait_answered([CLAIM], 0.0) is False


@given(gaps=st.lists(st.integers(1, 5), min_size=1, max_size=40), order=st.randoms(use_true_random=False))
def test_no_watermark_ever_passes_an_unanswered_record(gaps: list[int], order: random.Random) -> None:
    offsets = [sum(gaps[: count + 1]) for count in range(len(gaps))]
    ledger, records = opened(*offsets)
    left = list(offsets)
    order.shuffle(left)
    committed = 0
    while left:
        ledger.done([records[left.pop()]])
        for offset in asked(ledger).values():
            assert offset >= committed, "commits never go back"
            committed = offset
        assert all(offset >= committed for offset in left)
    assert committed == offsets[-1] + 1


def test_what_is_answered_beyond_the_watermark_is_told_in_ranges() -> None:
    ledger, records = opened(0, 1, 2, 3, 7, 8, 9)
    ledger.done([records[0], records[2], records[3], records[7], records[9]])
    # Between 3 and 7 nothing is ever delivered, so nothing there is unanswered.
    assert ledger.marks([CLAIM]) == {CLAIM: Mark(1, (Range(2, 8), Range(9, 10)))}


def test_what_an_earlier_owner_answered_is_not_run_again() -> None:
    ledger = Ledger()
    ledger.open(CLAIM, 4, [Range(5, 7), Range(9, 10)])
    records = [make_record(offset) for offset in range(4, 9)]
    assert [record.offset for record in ledger.take(records)] == [4, 7, 8]
    assert ledger.marks([CLAIM]) == {CLAIM: Mark(4, (Range(5, 7), Range(9, 10)))}
    ledger.done([records[0]])
    assert ledger.marks([CLAIM]) == {CLAIM: Mark(7, (Range(9, 10),))}
    ledger.done(records[3:])
    assert ledger.take([make_record(9)]) == []
    assert ledger.marks([CLAIM]) == {CLAIM: Mark(10)}
    assert ledger.wait_answered([CLAIM], 0), "nobody waits for what is answered already"


@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)))
def test_a_successor_runs_exactly_what_is_unanswered(delivered: set[int], answered: set[int]) -> None:
    first, records = opened(*sorted(delivered))
    first.done([record for offset, record in records.items() if offset in answered])
    mark = first.marks([CLAIM])[CLAIM]
    second = Ledger()
    again = Claim("requests", 0, 2)
    second.open(again, mark.offset, mark.done)
    left = second.take([make_record(o, epoch=2) for o in sorted(delivered) if o >= mark.offset])
    assert {record.offset for record in left} == delivered - answered


def test_what_is_done_beyond_a_watermark_that_stands_is_told_too() -> None:
    ledger, records = opened(0, 1, 2)
    ledger.done([records[1]])
    assert ledger.marks(ledger.moved()) == {CLAIM: Mark(0, (Range(1, 2),))}
    assert ledger.moved() == []
    ledger.refused(CLAIM)
    assert ledger.moved() == [CLAIM]


# ---- answers that wait for a transaction


def transactional(*offsets: int, answered: tuple[Range, ...] = ()) -> tuple[Ledger, dict[int, Record]]:
    ledger = Ledger(transactional=True)
    ledger.open(CLAIM, 0, answered)
    return ledger, {record.offset: record for record in ledger.take([make_record(offset) for offset in offsets])}


def test_a_transaction_carries_the_answers_up_to_the_first_that_is_not_ready() -> None:
    ledger, records = transactional(0, 1, 2, 5)
    ledger.ready([records[0], records[2]])
    assert ledger.marks(ledger.moved()) == {CLAIM: Mark(1)}, "what is ready beyond is not published, so it is not told"
    ledger.ready([records[1]])
    assert ledger.marks(ledger.moved()) == {CLAIM: Mark(5)}


def test_published_answers_are_out_and_others_are_not() -> None:
    ledger, records = transactional(0, 1)
    assert not ledger.wait_answered([CLAIM], 0)
    ledger.ready([records[0]])
    ledger.accepted(CLAIM, 1)
    ledger.published([records[0]])
    assert not ledger.wait_answered([CLAIM], 0), "the other one"


def test_a_revoke_does_not_wait_for_answers_beyond_a_record_that_was_given_up() -> None:
    ledger, records = transactional(0, 1, 2)
    ledger.ready([records[1], records[2]])
    ledger.drop([records[0]])
    assert ledger.wait_answered([CLAIM], 0)
    ledger.withdraw([records[1], records[1]])  # its reply and its letter, both refused
    ledger.ready([records[1]])
    assert ledger.wait_answered([CLAIM], 0)
    ledger.withdraw([records[1]])
    assert not ledger.wait_answered([CLAIM], 0)


def test_a_transaction_that_failed_is_given_out_whole_again() -> None:
    ledger, records = transactional(0, 1)
    ledger.ready(records.values())
    assert asked(ledger) == {CLAIM: 2}
    ledger.refused(CLAIM)
    assert asked(ledger) == {CLAIM: 2}


def test_an_answer_that_is_withdrawn_holds_back_what_comes_after_it_only() -> None:
    ledger, records = transactional(0, 1, 2)
    ledger.ready(records.values())
    ledger.withdraw([records[1]])
    assert asked(ledger) == {CLAIM: 1}
    ledger.accepted(CLAIM, 1)
    ledger.ready([records[1]])
    assert asked(ledger) == {CLAIM: 3}


def test_what_an_earlier_owner_answered_is_told_until_the_offset_passes_it() -> None:
    ledger, records = transactional(0, 1, 2, 3, answered=(Range(1, 3),))
    assert sorted(records) == [0, 3]
    assert ledger.marks([CLAIM]) == {CLAIM: Mark(0, (Range(1, 3),))}
    ledger.ready([records[0]])
    assert ledger.marks([CLAIM]) == {CLAIM: Mark(3)}


@given(st.sets(st.integers(0, 60)), st.lists(st.integers(0, 60)))
def test_no_transaction_carries_an_offset_past_what_is_not_ready(delivered: set[int], order: list[int]) -> None:
    ledger, records = transactional(*sorted(delivered))
    ready: set[int] = set()
    for offset in order:
        if offset in records:
            ledger.ready([records[offset]])
            ready.add(offset)
        for mark in ledger.marks([CLAIM]).values():
            assert {below for below in delivered if below < mark.offset} <= ready
            assert mark.done == ()
            if offset % 3 == 0:
                ledger.accepted(CLAIM, mark.offset)
