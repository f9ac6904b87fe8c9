"""The timer that ends the process stands at the earliest deadline of all passes that run."""

import threading

from hypothesis import given
from hypothesis import strategies as st

from forebay_consumer.watchdog import Alarm, Watchdog
from support.consumer import ManualClock


class Timer:
    """What `faulthandler` would do, on a clock that the test turns."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.due_s: float | None = None
        self.starts = 0
        self.alarm = Alarm(self.start, self.cancel, self.clock)

    def start(self, seconds: float) -> None:
        assert seconds > 0
        self.due_s = self.clock.now + seconds
        self.starts += 1

    def cancel(self) -> None:
        self.due_s = None

    def watchdog(self, limit_s: float | None = 10.0) -> Watchdog:
        return Watchdog(limit_s, self.alarm)


def test_a_pass_that_ends_in_time_leaves_no_timer() -> None:
    timer = Timer()
    dog = timer.watchdog()
    dog.arm(0)
    assert timer.due_s == 10.0
    timer.clock.advance(9.0)
    dog.disarm(0)
    assert timer.due_s is None


def test_the_pass_that_began_first_counts_and_then_the_next() -> None:
    timer = Timer()
    dog = timer.watchdog()
    for instance in range(3):
        dog.arm(instance)
        timer.clock.advance(1.0)
    assert timer.due_s == 10.0
    dog.disarm(0)
    assert timer.due_s == 11.0
    dog.disarm(2)
    assert timer.due_s == 11.0
    dog.disarm(1)
    assert timer.due_s is None


def test_every_pass_has_the_whole_limit() -> None:
    timer = Timer()
    dog = timer.watchdog()
    for began in (0.0, 7.0, 14.0):
        timer.clock.now = began
        dog.arm(0)
        assert timer.due_s == began + 10.0
        dog.disarm(0)


def test_the_timer_is_left_alone_while_the_earliest_pass_is_the_same() -> None:
    timer = Timer()
    dog = timer.watchdog()
    dog.arm(0)
    for _ in range(100):
        timer.clock.advance(0.01)
        dog.arm(1)
        dog.disarm(1)
    assert timer.starts == 1


def test_a_deadline_that_is_over_when_it_becomes_the_earliest_ends_the_process_at_once() -> None:
    timer = Timer()
    dog = timer.watchdog()
    dog.arm(0)
    dog.arm(1)
    timer.clock.advance(11.0)
    dog.disarm(0)
    assert timer.due_s is not None
    assert timer.due_s - timer.clock.now < 0.01


def test_two_kinds_of_work_have_limits_of_their_own_and_do_not_disarm_each_other() -> None:
    timer = Timer()
    passes, chunks = timer.watchdog(10.0), timer.watchdog(3.0)
    passes.arm(0)
    chunks.arm(0)
    assert timer.due_s == 3.0
    chunks.disarm(0)
    assert timer.due_s == 10.0
    chunks.disarm(0)
    passes.disarm(0)
    assert timer.due_s is None


def test_without_a_limit_there_is_no_timer() -> None:
    timer = Timer()
    dog = timer.watchdog(None)
    dog.arm(0)
    dog.disarm(0)
    assert timer.starts == 0


def test_where_no_timer_can_be_started_the_pass_is_run_all_the_same() -> None:
    def refuse(_seconds: float) -> None:
        raise RuntimeError("unable to start watchdog thread")

    dog = Watchdog(10.0, Alarm(refuse, lambda: None, ManualClock()))
    dog.arm(0)
    dog.disarm(0)


@given(st.lists(st.tuples(st.sampled_from(["arm", "disarm"]), st.integers(0, 3), st.floats(0.01, 2.0)), max_size=60))
def test_the_timer_always_stands_at_the_earliest_deadline(steps: list[tuple[str, int, float]]) -> None:
    timer = Timer()
    dog = timer.watchdog()
    running: dict[int, float] = {}
    for step, instance, later in steps:
        if step == "arm":
            dog.arm(instance)
            running[instance] = timer.clock.now + 10.0
        else:
            dog.disarm(instance)
            running.pop(instance, None)
        earliest = min(running.values(), default=None)
        if earliest is None:
            assert timer.due_s is None
        else:
            assert timer.due_s is not None
            assert abs(timer.due_s - max(earliest, timer.clock.now)) < 0.01 or timer.due_s < timer.clock.now
        timer.clock.advance(later)


def test_one_instance_waits_while_another_sets_the_timer() -> None:
    told: list[str] = []
    entered, release = threading.Event(), threading.Event()

    def start(_seconds: float) -> None:
        entered.set()
        release.wait(60)
        told.append("started")

    dog = Watchdog(10.0, Alarm(start, lambda: told.append("cancelled"), ManualClock()))
    arming = threading.Thread(target=dog.arm, args=(0,))
    disarming = threading.Thread(target=dog.disarm, args=(0,))
    arming.start()
    assert entered.wait(60)
    disarming.start()
    disarming.join(0.2)  # time enough for it to do wrong
    release.set()
    arming.join()
    disarming.join()
    assert told == ["started", "cancelled"]


def test_instances_may_arm_it_at_the_same_time() -> None:
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
    assert timer.due_s is None
