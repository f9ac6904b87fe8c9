"""The timer that ends the process stands beyond the limit of what runs, and is seldom moved."""

import threading
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from forebay_consumer.watchdog import LOOK_EVERY_S, SPARE_S, Alarm, Watchdog
from support.consumer import ManualClock

LIMIT_S = 10.0


class Timer:
    """What `faulthandler` would do, on a clock that the test turns, which also calls for the looks."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.due_s: float | None = None
        self.starts = 0
        self.keepers: list[Callable[[], None]] = []
        self.alarm = Alarm(self.start, self.cancel, self.clock, self.keepers.append)

    def start(self, seconds: float) -> None:
        assert seconds > 0
        self.due_s = self.clock.now + seconds
        self.starts += 1

    def cancel(self) -> None:
        self.due_s = None

    @property
    def off(self) -> bool:
        return self.due_s is None

    def watchdog(self, limit_s: float | None = LIMIT_S) -> Watchdog:
        return Watchdog(limit_s, self.alarm)


def test_work_that_ends_in_time_leaves_a_timer_only_until_the_next_look() -> None:
    timer = Timer()
    dog = timer.watchdog()
    dog.arm(0)
    assert timer.due_s == LIMIT_S + 2 * SPARE_S
    timer.clock.advance(9.0)
    dog.disarm(0)
    assert timer.alarm.look() is None
    assert timer.off
    dog.arm(0)
    assert timer.due_s == 9.0 + LIMIT_S + 2 * SPARE_S


def test_many_short_pieces_of_work_set_the_timer_once() -> None:
    timer = Timer()
    dog = timer.watchdog()
    for _ in range(100):
        dog.arm(0)
        timer.clock.advance(0.005)
        dog.disarm(0)
    assert timer.starts == 1
    assert len(timer.keepers) == 1


def test_the_timer_moves_on_with_the_work() -> None:
    timer = Timer()
    dog = timer.watchdog()
    for began in (0.0, 0.5, 1.0, 1.5, 2.0):
        timer.clock.now = began
        dog.arm(0)
        dog.disarm(0)
    assert timer.starts == 2
    assert timer.due_s == 1.5 + LIMIT_S + 2 * SPARE_S


def test_a_look_says_when_to_look_again() -> None:
    timer = Timer()
    dog = timer.watchdog()
    dog.arm(0)
    timer.clock.advance(1.0)
    assert timer.alarm.look() == LOOK_EVERY_S
    timer.clock.now = LIMIT_S - 0.25
    assert timer.alarm.look() == 0.25
    assert timer.starts == 1


def test_the_moment_a_limit_is_over_ends_the_process_whatever_else_begins_or_ends() -> None:
    timer = Timer()
    dog = timer.watchdog()
    dog.arm(0)
    timer.clock.advance(5.0)
    dog.arm(1)
    timer.clock.advance(5.0)
    timer.alarm.look()
    assert timer.due_s is not None
    assert timer.due_s - timer.clock.now < 0.1
    due = timer.due_s
    dog.arm(2)
    dog.disarm(0)
    assert timer.due_s == due


def test_of_two_limits_the_shorter_holds_while_both_run() -> None:
    timer = Timer()
    passes, chunks = timer.watchdog(60.0), timer.watchdog(2.0)
    passes.arm(0)
    assert timer.due_s == 62.0
    chunks.arm(0)
    assert timer.due_s == 4.0
    timer.clock.advance(1.0)
    chunks.disarm(0)
    assert timer.due_s == 63.0
    chunks.arm(0)
    timer.clock.advance(2.0)
    timer.alarm.look()
    assert timer.due_s - timer.clock.now < 0.1


def test_without_a_limit_there_is_no_timer() -> None:
    timer = Timer()
    dog = timer.watchdog(None)
    dog.arm(0)
    dog.disarm(0)
    assert timer.starts == 0


def refuse(*_: object) -> None:
    raise RuntimeError("can't start new thread")


def test_where_no_thread_can_be_started_the_pass_is_run_all_the_same() -> None:
    dog = Watchdog(LIMIT_S, Alarm(refuse, lambda: None, ManualClock(), refuse))
    dog.arm(0)
    dog.disarm(0)


def test_without_a_keeper_the_timer_is_taken_back_when_the_work_ends() -> None:
    timer = Timer()
    dog = Watchdog(LIMIT_S, Alarm(timer.start, timer.cancel, timer.clock, refuse))
    dog.arm(0)
    assert timer.due_s == LIMIT_S + 2 * SPARE_S
    dog.disarm(0)
    assert timer.off


def test_an_end_that_cannot_be_started_is_tried_again() -> None:
    timer = Timer()
    refusals = [True]

    def start(seconds: float) -> None:
        if timer.clock.now >= LIMIT_S and refusals:
            refusals.pop()
            refuse()
        timer.start(seconds)

    alarm = Alarm(start, timer.cancel, timer.clock, lambda _: None)
    Watchdog(LIMIT_S, alarm).arm(0)
    timer.clock.advance(LIMIT_S)
    assert alarm.look() == LOOK_EVERY_S
    assert alarm.look() is None
    assert timer.due_s is not None
    assert timer.due_s - timer.clock.now < 0.1


@given(st.lists(st.tuples(st.sampled_from(["arm", "disarm"]), st.integers(0, 3), st.floats(0.01, 2.0))))
def test_it_ends_what_outlasts_its_limit_and_nothing_else(steps: list[tuple[str, int, float]]) -> None:
    timer = Timer()
    limits = (1.0, 1.0, 4.0, LIMIT_S)
    dogs = [timer.watchdog(limit) for limit in limits]
    running: dict[int, float] = {}
    for step, number, later in steps:
        if step == "arm":
            dogs[number].arm(0)
            running[number] = timer.clock.now + limits[number]
        else:
            dogs[number].disarm(0)
            running.pop(number, None)
        until = timer.clock.now + later
        while timer.clock.now < until:  # as the keeper does
            pause = timer.alarm.look()
            now = timer.clock.now
            if running and min(running.values()) <= now:
                assert timer.due_s is not None
                assert timer.due_s - now < 0.1
                return
            assert timer.off == (not running)
            if timer.due_s is not None:
                least = min(limits[number] for number in running)
                assert min(running.values()) + SPARE_S - 1e-9 <= timer.due_s <= now + least + 2 * SPARE_S + 1e-9
            timer.clock.now = min(until, now + (until - now if pause is None else pause))


def test_the_keeper_ends_what_is_over_and_rests_while_nothing_runs() -> None:
    ended = threading.Event()
    starts: list[float] = []

    def start(seconds: float) -> None:
        starts.append(seconds)
        if seconds < 0.1:
            ended.set()

    cancelled = threading.Event()
    alarm = Alarm(start, cancelled.set)
    patient = Watchdog(60.0, alarm)
    patient.arm(0)
    patient.disarm(0)
    assert cancelled.wait(60)
    assert not ended.is_set()
    Watchdog(0.2, alarm).arm(0)
    assert ended.wait(60)


def test_pieces_of_work_may_begin_and_end_at_the_same_time() -> None:
    timer = Timer()
    dog = timer.watchdog()

    def passes(instance: int) -> None:
        for _ in range(500):
            dog.arm(instance)
            dog.disarm(instance)

    threads = [threading.Thread(target=passes, args=(instance,)) for instance in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    timer.alarm.look()
    assert timer.due_s is None
    assert timer.starts == 1
