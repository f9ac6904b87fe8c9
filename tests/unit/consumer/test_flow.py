"""How much may be inside at once."""

import threading

import pytest

from forebay_consumer.flow import Flow, Room
from support.consumer import make_record

WAIT_S = 10.0


def test_records_take_rows_and_bytes_until_they_leave() -> None:
    flow = Flow(10, 100)
    records = [make_record(0, size=30), make_record(1, size=20)]
    flow.enter(records)
    assert flow.room() == Room(8, 50)
    assert (flow.rows, flow.bytes) == (2, 50)
    flow.leave(records[:1])
    assert flow.room() == Room(9, 80)
    flow.leave(records[1:])
    assert flow.room() == Room(10, 100)


def test_a_decoded_record_counts_its_rows_and_leaves_with_them() -> None:
    flow = Flow(10, 100)
    record = make_record()
    flow.enter([record])
    flow.widen(record, 7)
    assert flow.room().rows == 3
    flow.widen(record, 5)
    assert flow.room().rows == 5
    flow.leave([record])
    assert flow.rows == 0


@pytest.mark.parametrize(
    ("rows", "size", "open_"),
    [
        pytest.param(1, 1, True, id="both left"),
        pytest.param(2, 1, False, id="no row left"),
        pytest.param(3, 1, False, id="wider than all rows"),
        pytest.param(1, 100, False, id="no byte left"),
        pytest.param(1, 101, False, id="larger than all bytes"),
    ],
)
def test_there_is_room_only_with_rows_and_bytes_left(rows: int, size: int, open_: bool) -> None:
    flow = Flow(2, 100)
    record = make_record(size=size)
    flow.enter([record])
    flow.widen(record, rows)
    assert bool(flow.room()) is open_
    assert bool(flow.wait_for_room(0)) is open_


def test_a_record_larger_than_all_bytes_enters_alone_and_leaves_nothing_behind() -> None:
    flow = Flow(10, 100)
    huge = make_record(size=1000)
    assert flow.wait_for_room(0)
    flow.enter([huge])
    assert not flow.wait_for_room(0)
    flow.leave([huge])
    assert flow.wait_for_room(0) == Room(10, 100)


@pytest.mark.parametrize("by", ["rows", "bytes"])
def test_who_waits_for_room_is_woken_when_a_record_leaves(by: str) -> None:
    flow = Flow(1, 1000) if by == "rows" else Flow(1000, 4)
    record = make_record(size=4)
    flow.enter([record])
    rooms: list[Room] = []
    waiter = threading.Thread(target=lambda: rooms.append(flow.wait_for_room(WAIT_S * 10)), daemon=True)
    waiter.start()
    flow.leave([record])
    waiter.join(WAIT_S)
    assert rooms == [flow.room()]
    assert rooms[0]
