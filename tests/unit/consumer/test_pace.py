"""Between polls that bring little, and only while something is inside, the intake rests."""

import threading

import pytest

from forebay_consumer.flow import Flow
from forebay_consumer.pace import FEW, REST_S, Pace
from support.consumer import make_record


class Resting(Flow):
    """Notes how long it was waited for."""

    def __init__(self) -> None:
        super().__init__(100, 10_000)
        self.waited: list[float] = []

    def wait_empty(self, timeout_s: float) -> None:
        self.waited.append(timeout_s)


@pytest.mark.parametrize(
    ("polled", "room", "waited"),
    [
        (0, 100, []),
        (1, 100, [REST_S]),
        (FEW - 1, 100, [REST_S]),
        (FEW, 100, []),
        (500, 1000, []),
        (2, 2, []),
        (2, 3, [REST_S]),
    ],
    ids=str,
)
def test_it_rests_after_a_poll_that_brought_few(polled: int, room: int, waited: list[float]) -> None:
    flow = Resting()
    pace = Pace(flow)
    pace.rest()
    assert not flow.waited
    pace.polled(polled, room)
    pace.rest()
    assert flow.waited == waited


def test_with_nothing_inside_nobody_waits() -> None:
    flow = Flow(100, 10_000)
    flow.wait_empty(3600)
    record = make_record()
    flow.enter([record])
    flow.leave([record])
    flow.wait_empty(3600)


def test_the_wait_is_over_when_the_last_leaves() -> None:
    flow = Flow(100, 10_000)
    records = [make_record(0), make_record(1)]
    flow.enter(records)
    waiting = threading.Thread(target=flow.wait_empty, args=(3600,))
    waiting.start()
    flow.leave(records[:1])
    waiting.join(0.1)
    assert waiting.is_alive()
    flow.leave(records[1:])
    waiting.join(60)
    assert not waiting.is_alive()


def test_the_wait_is_over_in_any_case() -> None:
    flow = Flow(100, 10_000)
    flow.enter([make_record()])
    flow.wait_empty(0.001)
    assert flow.rows == 1
