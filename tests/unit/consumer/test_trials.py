"""What is let in, and when; the histories of whole lives are in test_trials_simulation."""

from dataclasses import replace

from forebay_consumer.ledger import Mark
from forebay_consumer.progress import Progress, Trial
from forebay_consumer.record import Claim, Record
from forebay_consumer.trials import Trials
from support.consumer import make_record

CLAIM = Claim("requests", 0, 1)
OTHER = Claim("requests", 1, 1)


def records(*offsets: int, claim: Claim = CLAIM) -> list[Record]:
    return [make_record(offset, partition=claim.partition) for offset in offsets]


def offsets(some: list[Record]) -> list[int]:
    return [record.offset for record in some]


LIFE = "0123456789abcdef"


def opened(found: Progress | None = None, *, start: int = 0, end: int = 100, ahead: int = 4) -> Trials:
    trials = Trials(max_lives=2, ahead=ahead, life=LIFE)
    trials.open(CLAIM, start, found or Progress(), end)
    return trials


def acknowledge(trials: Trials, offset: int = 0, claim: Claim = CLAIM) -> Progress:
    """A commit goes out and is accepted; what it said."""
    told = trials.progress(claim, Mark(offset))
    trials.accepted(claim, told)
    return told


def test_nothing_is_let_in_before_the_opening_commit_is_acknowledged() -> None:
    trials = opened()
    assert trials.admit(records(0, 1)) == ([], [])
    assert trials.due() == [CLAIM]
    told = trials.progress(CLAIM, Mark(0))
    assert told.open
    assert trials.due() == [], "it is on its way"
    assert trials.admit([]) == ([], [])
    trials.accepted(CLAIM, told)
    assert offsets(trials.admit([])[0]) == [0, 1]


def test_a_refused_commit_is_asked_for_again() -> None:
    trials = opened()
    trials.progress(CLAIM, Mark(0))
    trials.refused(CLAIM)
    assert trials.due() == [CLAIM]


def test_nothing_at_or_above_the_acknowledged_hi_is_let_in() -> None:
    trials = opened(ahead=4)
    assert acknowledge(trials).hi == 4
    assert offsets(trials.admit(records(0, 1, 2, 3, 4, 5))[0]) == [0, 1, 2, 3]
    assert trials.due() == [CLAIM], "more is wanted before the next interval"
    acknowledge(trials)
    assert offsets(trials.admit([])[0]) == [4, 5]


def test_the_claim_grows_with_what_goes_in_during_one_commit() -> None:
    trials = opened(ahead=4)
    acknowledge(trials)
    trials.admit(records(0, 1, 2, 3))
    assert acknowledge(trials).hi == 12, "twice the four that went in"


def bounded(*others: Claim, at_most: int) -> Trials:
    trials = Trials(max_lives=2, ahead=100, life=LIFE, at_most=lambda: at_most)
    for claim in (CLAIM, *others):
        trials.open(claim, 0, Progress(), 100)
    return trials


def test_a_bounded_claim_grows_with_the_commits_and_not_with_what_goes_in() -> None:
    trials = bounded(at_most=8)
    assert acknowledge(trials).hi == 8
    inside, _ = trials.admit(records(*range(20)))
    assert offsets(inside) == list(range(8))
    assert trials.due() == [], "the commit of what is inside will claim more"
    assert acknowledge(trials, offset=3).hi == 11
    assert offsets(trials.admit([])[0]) == [8, 9, 10]


def test_a_bounded_claim_is_shared_by_the_partitions_that_have_anything_to_run() -> None:
    other = Claim("requests", 1, 1)
    trials = bounded(other, at_most=8)
    assert acknowledge(trials).hi == 4, "neither is heard of yet"
    assert acknowledge(trials, claim=other).hi == 8, "this one has nothing to run"
    inside, _ = trials.admit(records(0, 1, 2))
    assert acknowledge(trials).hi == 8
    trials.ended(inside)
    trials.admit(records(0, 1, claim=other))
    assert acknowledge(trials, offset=3).hi == 11, "nothing shrinks the other's share but what it has to run"
    trials.admit(records(3))
    assert acknowledge(trials, offset=8).hi == 12


def test_a_bounded_claim_reaches_what_comes_next_across_a_hole_in_the_log() -> None:
    trials = bounded(at_most=4)
    acknowledge(trials)
    assert trials.admit(records(70, 71, 72, 73, 74, 75)) == ([], [])
    assert trials.due() == [CLAIM], "with nothing inside no other commit will come"
    assert acknowledge(trials).hi == 71
    inside, _ = trials.admit([])
    assert offsets(inside) == [70]
    trials.ended(inside)
    assert trials.due() == [CLAIM]
    assert acknowledge(trials, offset=71).hi == 75
    assert offsets(trials.admit([])[0]) == [71, 72, 73, 74]


def test_a_closed_predecessor_leaves_no_suspects() -> None:
    trials = opened(Progress(False, 50), start=3)
    assert not trials.suspicious
    assert trials.unread() == [], "nothing is fetched before it is opened"
    acknowledge(trials, 3)
    assert not trials.opening
    assert trials.unread() is None


def test_a_dead_predecessor_leaves_what_it_may_have_seen_and_no_more() -> None:
    trials = opened(Progress(True, 50), start=3, end=6)
    assert trials.suspicious
    assert trials.unread() == [CLAIM]
    trials.admit(records(3, 4, 5))
    assert trials.unread() == [], "what came later, it cannot have seen"


def test_the_next_suspect_is_to_be_polled_only_where_none_runs_is_asked_for_or_held() -> None:
    """Else nothing need be polled beyond what there is room for."""
    trials = opened(Progress(True, 3))
    acknowledge(trials)
    choosing = {"none was polled yet": trials.choosing}
    trials.admit(records(0))
    choosing["its trial is asked for"] = trials.choosing
    acknowledge(trials)
    (run,), _ = trials.admit(records(1))
    choosing["it runs"] = trials.choosing
    trials.ended([run])
    choosing["it has ended, the next is held"] = trials.choosing
    trials.admit([])
    acknowledge(trials)
    (run,), _ = trials.admit([])
    trials.ended([run])
    choosing["its commit still says that it is on trial"] = trials.choosing
    acknowledge(trials)
    choosing["the last is to be polled"] = trials.choosing
    assert [*choosing.values()] == [True, False, False, False, False, True], choosing


def test_a_suspect_that_was_on_trial_is_polled_for_though_others_are_held() -> None:
    trials = opened(Progress(True, 3, Trial(2, 1)))
    acknowledge(trials)
    trials.admit(records(0, 1))
    assert trials.choosing
    trials.admit(records(2))
    assert not trials.choosing, "it is asked for"


def test_suspects_go_in_one_at_a_time_each_after_its_trial_is_acknowledged() -> None:
    trials = opened(Progress(True, 2))
    assert trials.admit(records(0, 1, 2)) == ([], [])
    assert acknowledge(trials).trial == Trial(0, 1)
    run, _ = trials.admit([])
    assert offsets(run) == [0]
    assert trials.admit([]) == ([], []), "one at a time"
    trials.ended(run)
    assert trials.admit([]) == ([], [])
    assert acknowledge(trials, 1).trial == Trial(1, 1)
    run, _ = trials.admit([])
    assert offsets(run) == [1]
    trials.ended(run)
    assert trials.admit([]) == ([], []), "the trial that is over still stands"
    assert acknowledge(trials, 2).trial is None
    assert trials.admit([]) == ([], []), "it was not claimed yet"
    acknowledge(trials, 2)
    assert offsets(trials.admit([])[0]) == [2]
    assert not trials.suspicious


def test_the_trial_that_ended_the_predecessor_goes_on_first_and_counts() -> None:
    trials = opened(Progress(True, 9, Trial(5, 1)), start=3, end=9)
    trials.admit(records(3, 4))
    assert acknowledge(trials, 3).trial == Trial(5, 1), "it stands until its record is seen"
    assert trials.admit([]) == ([], [])
    trials.admit(records(5))
    assert acknowledge(trials, 3).trial == Trial(5, 2)
    assert offsets(trials.admit([])[0]) == [5]


def test_a_record_that_has_had_its_lives_is_convicted_unrun() -> None:
    trials = opened(Progress(True, 9, Trial(5, 2)), start=5, end=9)
    run, poison = trials.admit(records(5, 6))
    assert (offsets(run), offsets(poison)) == ([], [5])
    trials.ended(poison)
    trials.admit([])
    assert acknowledge(trials, 6).trial == Trial(6, 1)


def test_another_partition_waits_while_there_are_suspects() -> None:
    trials = opened(Progress(True, 1), end=1)
    trials.open(OTHER, 0, Progress(), 0)
    acknowledge(trials, claim=OTHER)
    assert trials.admit(records(0, claim=OTHER)) == ([], [])
    trials.admit(records(0))
    acknowledge(trials)
    run, _ = trials.admit([])
    assert [(record.partition, record.offset) for record in run] == [(0, 0)]
    trials.ended(run)
    acknowledge(trials, 1)
    trials.admit([])
    acknowledge(trials, claim=OTHER)
    run, _ = trials.admit([])
    assert [(record.partition, record.offset) for record in run] == [(1, 0)]


def test_what_runs_already_is_waited_for_before_a_trial() -> None:
    trials = opened()
    acknowledge(trials)
    before, _ = trials.admit(records(0))
    trials.open(OTHER, 0, Progress(True, 1), 1)
    trials.admit(records(0, claim=OTHER))
    assert trials.due() == [OTHER], "its opening, without a trial"
    assert acknowledge(trials, claim=OTHER).trial is None
    trials.ended(before)
    trials.admit([])
    assert acknowledge(trials, claim=OTHER).trial == Trial(0, 1)


def test_a_trial_that_is_cut_short_by_a_hand_over_is_no_evidence() -> None:
    trials = opened(Progress(True, 9, Trial(0, 1)), end=9)
    trials.admit(records(0))
    acknowledge(trials)
    assert offsets(trials.admit([])[0]) == [0]
    parting = trials.parting(CLAIM, Mark(0))
    assert parting == Progress(True, 9, Trial(0, 1), life=LIFE), "the other suspects stay suspects"


def test_the_last_commit_of_a_clean_life_says_closed() -> None:
    trials = opened()
    acknowledge(trials)
    run, _ = trials.admit(records(0, 1))
    assert offsets(trials.finish()) == []
    assert not trials.settled()
    trials.ended(run)
    assert acknowledge(trials, 2) == Progress(False, 2, life=LIFE)
    assert trials.settled()
    assert trials.admit(records(2)) == ([], []), "nothing goes in any more"


def test_suspects_given_back_at_shutdown_stay_suspects() -> None:
    trials = opened(Progress(True, 3), end=3)
    trials.admit(records(0, 1, 2))
    assert offsets(trials.finish()) == [0, 1, 2]
    assert acknowledge(trials) == Progress(True, 3, life=LIFE)
    assert trials.settled()


def test_closing_gives_back_what_was_held() -> None:
    trials = opened(Progress(True, 3), end=3)
    trials.admit(records(0, 1))
    assert trials.held([CLAIM]) == 2
    assert offsets(trials.close([CLAIM])) == [0, 1]
    assert not trials.suspicious


def test_what_is_never_delivered_is_no_suspect_for_ever() -> None:
    trials = opened(Progress(True, 3), end=3)
    trials.reached({CLAIM: 3})
    assert not trials.suspicious


def test_a_broker_that_keeps_no_text_does_not_stop_the_work() -> None:
    trials = opened()
    trials.progress(CLAIM, Mark(0))
    trials.untold(CLAIM)
    assert offsets(trials.admit(records(0, 1))[0]) == [0, 1]
    assert trials.due() == []


def regained(trials: Trials, found: Progress, start: int = 0) -> Claim:
    """The partition is lost and comes back, with what stands beside its offset."""
    trials.close([CLAIM])
    again = CLAIM._replace(epoch=2)
    trials.open(again, start, found, 100)
    return again


def test_a_claim_of_its_own_is_no_evidence_and_does_not_shrink() -> None:
    trials = opened(ahead=4)
    acknowledge(trials)
    trials.admit(records(0, 1, 2, 3))
    told = acknowledge(trials)
    inside, _ = trials.admit(records(4, 5, 6, 7))
    again = regained(trials, told)
    assert not trials.suspicious
    assert trials.admit([make_record(offset, epoch=2) for offset in range(3)]) == ([], []), "it opens anew"
    assert acknowledge(trials, claim=again).hi >= inside[-1].next_offset, "one that runs still may yet kill"
    assert offsets(trials.admit([])[0]) == [0, 1, 2]


def test_the_claim_of_another_that_took_it_meanwhile_is_evidence() -> None:
    trials = opened()
    told = acknowledge(trials)
    regained(trials, replace(told, life="f" * 16))
    assert trials.suspicious


def test_the_claim_of_a_worker_of_before_is_evidence() -> None:
    trials = opened()
    regained(trials, replace(acknowledge(trials), life=""))
    assert trials.suspicious


def test_who_was_suspect_stays_so_with_the_evidence_of_earlier_lives_alone() -> None:
    trials = opened(Progress(True, 9, Trial(0, 1)), end=9)
    trials.admit(records(0))
    acknowledge(trials)
    (inside,), _ = trials.admit([])
    told = acknowledge(trials)
    assert told.trial == Trial(0, 2)
    again = regained(trials, told)
    assert trials.suspicious
    trials.admit([make_record(offset, epoch=2) for offset in range(2)])
    assert acknowledge(trials, claim=again).trial == Trial(0, 1), "this life has not ended"
    assert trials.admit([]) == ([], []), "it runs still, from before"
    trials.ended([inside])
    assert trials.admit([]) == ([], [])
    assert acknowledge(trials, claim=again).trial == Trial(0, 1), "it has run, and nobody died"
    assert [record.claim.epoch for record in trials.admit([])[0]] == [2]


def test_nothing_goes_in_anywhere_while_a_trial_that_a_loss_cut_short_still_stands() -> None:
    trials = opened(Progress(True, 1), end=1)
    trials.admit(records(0))
    acknowledge(trials)
    inside, _ = trials.admit([])
    told = acknowledge(trials)
    assert told.trial == Trial(0, 1)
    trials.ended(inside)
    trials.open(OTHER, 0, Progress(), 0)
    acknowledge(trials, claim=OTHER)
    again = regained(trials, told, start=1)
    trials.admit(records(0, claim=OTHER))
    acknowledge(trials, claim=OTHER)
    assert trials.admit([]) == ([], [])
    acknowledge(trials, 1, claim=again)
    acknowledge(trials, claim=OTHER)
    assert len(trials.admit([])[0]) == 1


def test_who_was_convicted_is_so_again_where_the_answer_was_not_committed() -> None:
    found = Progress(True, 1, Trial(0, 2))
    trials = opened(found, end=1)
    told = acknowledge(trials)
    _, poison = trials.admit(records(0))
    trials.ended(poison)
    regained(trials, told)
    assert offsets(trials.admit([make_record(0, epoch=2)])[1]) == [0]


def test_who_was_convicted_is_so_again_where_the_answer_came_too_late() -> None:
    trials = opened(Progress(True, 1, Trial(0, 2)), end=1)
    told = acknowledge(trials)
    _, poison = trials.admit(records(0))
    trials.close([CLAIM])
    trials.ended(poison)
    regained(trials, told)
    assert offsets(trials.admit([make_record(0, epoch=2)])[1]) == [0]


def test_who_was_given_back_at_the_end_stays_suspect_whatever_was_read() -> None:
    trials = opened(Progress(True, 9), end=9)
    trials.admit(records(*range(9)))
    acknowledge(trials)
    inside, _ = trials.admit([])
    assert offsets(inside) == [0]
    assert offsets(trials.finish()) == list(range(1, 9))
    trials.reached({CLAIM: 9})
    trials.ended(inside)
    for _ in range(2):  # the first takes the trial back
        last = acknowledge(trials, 1)
        assert (last.open, last.hi, last.trial) == (True, 9, None)
    assert trials.settled()


def test_a_trial_that_is_given_up_unrun_takes_no_evidence_with_it() -> None:
    trials = opened(Progress(True, 1, Trial(0, 1)), end=1)
    trials.admit(records(0))
    acknowledge(trials)
    inside, _ = trials.admit([])
    assert offsets(inside) == [0]
    trials.ended(inside, ran=False)
    acknowledge(trials)  # a transaction that was on its way
    last = trials.parting(CLAIM, Mark(0))
    assert (last.open, last.hi, last.trial) == (True, 1, Trial(0, 1))
    again = regained(trials, Progress(True, 1, Trial(0, 1), life="f" * 16))
    assert acknowledge(trials, claim=again).trial == Trial(0, 1), "it did not run here"


def test_whoever_was_cut_off_itself_takes_no_trial_for_a_death() -> None:
    for lives, left in ((1, None), (2, Trial(5, 1))):
        trials = Trials(max_lives=2, ahead=4, life=LIFE)
        trials.open(CLAIM, 3, Progress(True, 9, Trial(5, lives), life="f" * 16), 9, outage=True)
        assert trials.suspicious, "its records may run still"
        assert trials.admit(records(3, 4)) == ([], [])
        assert trials.parting(CLAIM, Mark(3)).trial == left


def test_a_record_that_ran_here_to_its_end_was_no_death_of_another() -> None:
    """It was lost while it ran, and another that took it over counted that."""
    trials = opened(Progress(True, 1), end=1)
    trials.admit(records(0))
    acknowledge(trials)
    inside, _ = trials.admit([])
    trials.close([CLAIM])
    trials.ended(inside)
    again = CLAIM._replace(epoch=2)
    trials.open(again, 0, Progress(True, 1, Trial(0, 2), life="f" * 16), 1)
    assert trials.admit([make_record(0, epoch=2)]) == ([], [])
    assert acknowledge(trials, claim=again).trial == Trial(0, 1)


def test_a_suspect_of_before_that_ran_here_to_its_end_has_no_evidence_against_it() -> None:
    trials = opened(Progress(True, 2, Trial(0, 1)), end=2)
    trials.admit(records(0))
    acknowledge(trials)
    inside, _ = trials.admit([])
    told = acknowledge(trials)
    trials.ended(inside)
    assert told.trial == Trial(0, 2)
    again = regained(trials, told)
    trials.admit([make_record(0, epoch=2)])
    trials.admit([])
    assert acknowledge(trials, claim=again).trial == Trial(0, 1)


def test_a_trial_in_the_word_of_a_worker_that_gave_all_back_stops_nobody() -> None:
    """Workers of an earlier version wrote such; no record of it was polled while another partition had suspects."""
    trials = opened(Progress(False, 0, Trial(5, 1)), end=9)
    trials.open(OTHER, 0, Progress(True, 1), 1)
    acknowledge(trials)
    acknowledge(trials, claim=OTHER)
    assert trials.unread() == [OTHER]
    trials.admit(records(0, claim=OTHER))
    acknowledge(trials, claim=OTHER)
    assert offsets(trials.admit([])[0]) == [0]


def test_a_trial_of_a_record_that_the_log_has_no_more_stops_nobody() -> None:
    trials = opened(Progress(True, 9, Trial(7, 1)), end=5)
    trials.admit(records(*range(5)))
    trials.admit([])
    acknowledge(trials)
    assert offsets(trials.admit([])[0]) == [0]


def test_a_trial_of_a_record_that_was_answered_before_is_not_told_for_ever() -> None:
    trials = opened(Progress(True, 3, Trial(2, 1)), end=3)
    for told in (trials.progress(CLAIM, Mark(3)), acknowledge(trials, 3)):
        assert told.trial is None
    trials.reached({CLAIM: 3})
    assert acknowledge(trials, 3).trial is None
    assert trials.due() == []


def test_the_last_word_of_a_worker_without_suspects_names_no_trial() -> None:
    trials = opened(Progress(True, 3, Trial(2, 1)), end=3)
    acknowledge(trials)
    trials.reached({CLAIM: 3})
    last = trials.parting(CLAIM, Mark(0))
    assert (last.open, last.trial) == (False, None)


def test_nobody_is_convicted_while_it_runs_here_from_before_and_not_once_it_has_run() -> None:
    trials = opened(Progress(True, 1), end=1)
    trials.admit(records(0))
    acknowledge(trials)
    inside, _ = trials.admit([])
    again = regained(trials, Progress(True, 1, Trial(0, 2), life="f" * 16))
    assert trials.admit([make_record(0, epoch=2)]) == ([], []), "it runs still"
    trials.ended(inside)
    assert trials.admit([]) == ([], [])
    assert acknowledge(trials, claim=again).trial == Trial(0, 1)


def test_a_drain_takes_back_the_trial_of_what_is_answered_beyond_the_watermark() -> None:
    trials = opened(Progress(True, 3, Trial(2, 1)), end=3)
    trials.admit(records(0, 1, 2))
    trials.admit([])
    acknowledge(trials)
    inside, _ = trials.admit([])
    assert offsets(inside) == [2]
    trials.finish()
    assert acknowledge(trials).open
    trials.accepted(CLAIM, Progress(True, 3, Trial(2, 2), life=LIFE))  # one that was on its way
    assert trials.due() == [], "it runs still"
    trials.ended(inside)
    assert not trials.settled()
    assert trials.due() == [CLAIM]
    assert acknowledge(trials).trial is None
    assert trials.settled()


def test_a_drain_ends_though_the_broker_keeps_no_text() -> None:
    trials = opened(Progress(True, 3), end=3)
    trials.admit(records(0, 1, 2))
    trials.finish()
    trials.progress(CLAIM, Mark(0))
    trials.untold(CLAIM)
    assert trials.settled()
