"""The window with its lock: what wakes a free instance, and what it gets."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from forebay_consumer.expiry import NO_EXPIRY, Expiry
from forebay_consumer.feed import Feed
from forebay_consumer.record import Claim
from forebay_consumer.window import Batch, Rules, Trigger, Window
from support.consumer import ManualClock, make_item

WAIT_S = 10.0


class WatchedClock(ManualClock):
    """Tells when another thread looks at it, as `pull` does before each wait."""

    def __init__(self, now: float = 0.0) -> None:
        super().__init__(now)
        self.looked = threading.Event()
        self._owner = threading.get_ident()

    def __call__(self) -> float:
        if threading.get_ident() != self._owner:
            self.looked.set()
        return super().__call__()


def any_claim(_claim: Claim) -> bool:
    return True


def feed(
    clock: ManualClock, takes: Callable[[Claim], bool] = any_claim, max_rows: int = 4, linger_s: float = 3600.0
) -> Feed:
    return Feed(Window(Rules(max_rows=max_rows, linger_s=linger_s)), takes, clock, expiry=NO_EXPIRY)


@pytest.mark.parametrize(
    ("ttl_s", "deadline_s", "due_s"),
    [(None, None, 3600.0), (None, 1003.0, 6.5), (8.0, None, 8.0), (8.0, 1004.0, 7.0), (8.0, 1099.0, 8.0)],
)
def test_what_expires_waits_for_company_for_half_of_what_is_left_to_it(
    ttl_s: float | None, deadline_s: float | None, due_s: float
) -> None:
    made = Feed(Window(Rules(linger_s=3600.0)), any_claim, ManualClock(5.0), expiry=Expiry(ttl_s, ManualClock(1000.0)))
    item = make_item(0, timestamp_s=998.0)
    item.envelope = item.envelope._replace(deadline_s=deadline_s)
    made.put([item])
    assert made._window.due_s() == due_s


class Puller:
    """One `pull` on a thread of its own."""

    def __init__(self, source: Feed, clock: WatchedClock) -> None:
        self._source = source
        self._clock = clock
        self._result: list[Batch | None] = []
        self._thread = threading.Thread(target=lambda: self._result.append(source.pull()), daemon=True)
        self.blocked_again(self._thread.start)

    def blocked_again(self, action: Callable[[], object]) -> None:
        """Do something, and wait until `pull` has looked at the window after it and found nothing to take."""
        self._clock.looked.clear()
        action()
        assert self._clock.looked.wait(WAIT_S)
        self._source.drop()  # takes the lock, which `pull` gives back only when it waits
        assert not self._result

    def result(self) -> Batch | None:
        self._thread.join(WAIT_S)
        assert self._result, "pull still blocks"
        return self._result[0]


@contextmanager
def pulling(source: Feed, clock: WatchedClock) -> Iterator[Puller]:
    try:
        yield Puller(source, clock)
    finally:
        source.close()


def offsets(batch: Batch | None) -> list[int]:
    assert batch is not None
    return [item.record.offset for item in batch.items]


def test_a_batch_that_is_due_is_pulled_without_waiting() -> None:
    clock = ManualClock(10.0)
    made = feed(clock, linger_s=0.5)
    made.put([make_item(0, since_s=9.0), make_item(1, since_s=9.9)])
    assert offsets(made.pull()) == [0, 1]


def test_a_pull_waits_for_a_full_batch_through_an_unfinished_one() -> None:
    clock = WatchedClock()
    made = feed(clock)
    with pulling(made, clock) as puller:
        for offset in range(3):
            puller.blocked_again(partial(made.put, [make_item(offset)]))
        made.put([make_item(3)])
        batch = puller.result()
    assert offsets(batch) == [0, 1, 2, 3]
    assert batch is not None
    assert batch.trigger is Trigger.SIZE


def test_a_pull_blocks_until_the_oldest_has_lingered() -> None:
    clock = WatchedClock(100.0)
    made = feed(clock, linger_s=0.001)
    with pulling(made, clock) as puller:
        made.put([make_item(0, since_s=100.0)])
        for _ in range(3):  # woken when linger should be over, it looks at the clock and waits on
            puller.blocked_again(lambda: None)
        clock.advance(0.001)
        batch = puller.result()
    assert offsets(batch) == [0]
    assert batch is not None
    assert batch.trigger is Trigger.LINGER


def test_a_pull_asks_how_far_the_log_goes_each_time_it_looks() -> None:
    clock = WatchedClock(50.0)
    asked: list[int] = []
    ends = {Claim("requests", 0, 1): 3}

    def reaching(rows: int) -> dict[Claim, int]:
        asked.append(rows)
        return ends

    made = Feed(Window(Rules(max_rows=4, linger_s=0.001)), any_claim, clock, reaching, expiry=NO_EXPIRY)
    with pulling(made, clock) as puller:
        puller.blocked_again(partial(made.put, [make_item(0, since_s=1.0)]))
        puller.blocked_again(partial(made.put, [make_item(1, since_s=1.0)]))
        ends.clear()  # no more can come in
        assert offsets(puller.result()) == [0, 1]
    assert {1, 2} <= set(asked)


def test_draining_wakes_a_pull_and_nothing_lingers_any_more() -> None:
    clock = WatchedClock()
    made = feed(clock)
    with pulling(made, clock) as puller:
        made.put([make_item(0)])
        made.drain()
        batch = puller.result()
        made.put([make_item(1)])
        assert offsets(made.pull()) == [1]
    assert batch is not None
    assert batch.trigger is Trigger.DRAIN


def test_draining_an_empty_feed_wakes_nobody_for_nothing() -> None:
    clock = WatchedClock()
    made = feed(clock)
    with pulling(made, clock) as puller:
        puller.blocked_again(made.drain)
        made.put([make_item(0)])
        assert offsets(puller.result()) == [0]


@pytest.mark.parametrize("waiting", [0, 1, 4])
def test_closing_wakes_a_pull_with_nothing_whatever_waits(waiting: int) -> None:
    clock = WatchedClock()
    made = feed(clock, max_rows=8)
    made.put([make_item(offset) for offset in range(waiting)])
    with pulling(made, clock) as puller:
        made.close()
        assert puller.result() is None
    made.put([make_item(offset) for offset in range(8)])
    assert made.pull() is None


def test_every_waiting_instance_gets_a_batch_of_its_own() -> None:
    clock = WatchedClock()
    made = feed(clock)
    with pulling(made, clock) as one, pulling(made, clock) as other:
        made.put([make_item(offset) for offset in range(8)])
        assert sorted([*offsets(one.result()), *offsets(other.result())]) == list(range(8))


def test_an_item_knows_when_it_entered_the_window() -> None:
    clock = ManualClock(7.0)
    made = feed(clock)
    item = make_item(0, since_s=1.0)
    made.put([item])
    assert item.ready_s == 7.0


def test_items_of_a_revoked_partition_are_given_back_and_never_pulled() -> None:
    made = feed(ManualClock(), takes=lambda claim: claim.partition == 0)
    items = [make_item(offset, partition=offset % 2) for offset in range(4)]
    assert made.put(items) == [items[1], items[3]]
    made.drain()
    assert offsets(made.pull()) == [0, 2]


def test_what_waits_of_a_partition_revoked_since_is_dropped_once() -> None:
    open_ = {0, 1}
    made = feed(ManualClock(), takes=lambda claim: claim.partition in open_, max_rows=8)
    items = [make_item(offset, partition=offset % 2) for offset in range(4)]
    assert made.put(items) == []
    open_.remove(1)
    assert made.drop() == [items[1], items[3]]
    assert made.drop() == []
    made.drain()
    assert offsets(made.pull()) == [0, 2]


def test_a_pull_that_waits_for_a_dropped_item_waits_on() -> None:
    clock = WatchedClock()
    open_ = {0, 1}
    made = feed(clock, takes=lambda claim: claim.partition in open_, linger_s=0.001)
    with pulling(made, clock) as puller:
        made.put([make_item(0, partition=1)])
        open_.remove(1)
        made.drop()
        clock.advance(1.0)
        made.put([make_item(1, since_s=1.0)])
        puller.blocked_again(lambda: None)
        clock.advance(0.001)
        assert offsets(puller.result()) == [1]
