"""A flush when nothing is on its way, and again when no report comes."""

from itertools import pairwise

from forebay_consumer.send_off import FIRST_PAUSE_S, LONGEST_PAUSE_S, SendOff
from support.consumer import ManualClock


def test_the_first_message_is_sent_off_once() -> None:
    send_off = SendOff(ManualClock())
    assert not send_off.due({})
    send_off.produced("a")
    assert send_off.due({"a"})
    assert not send_off.due({"a"})
    assert not send_off.due({})


def test_what_is_written_meanwhile_goes_when_the_report_has_come() -> None:
    send_off = SendOff(ManualClock())
    send_off.produced("a")
    assert send_off.due({"a"})
    send_off.produced("b")
    send_off.produced("c")
    assert not send_off.due({"a", "b", "c"})
    assert send_off.due({"b", "c"})
    assert not send_off.due({"c"})


def test_without_a_report_it_is_repeated_ever_more_seldom() -> None:
    clock = ManualClock()
    send_off = SendOff(clock)
    send_off.produced("a")
    flushes = []
    while clock.now < 0.4:
        if send_off.due({"a"}):
            flushes.append(clock.now)
        clock.advance(0.0005)
    pauses = [round(later - earlier, 3) for earlier, later in pairwise(flushes)]
    assert pauses[:5] == [FIRST_PAUSE_S, 0.004, 0.008, 0.016, 0.032]
    assert set(pauses[5:]) == {LONGEST_PAUSE_S}


def test_after_a_report_the_pause_is_short_again() -> None:
    clock = ManualClock()
    send_off = SendOff(clock)
    send_off.produced("a")
    for _ in range(100):
        send_off.due({"a"})
        clock.advance(0.01)
    send_off.produced("b")
    assert send_off.due({"b"})
    clock.advance(FIRST_PAUSE_S)
    assert send_off.due({"b"})
