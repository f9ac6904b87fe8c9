"""A flush when nothing is on its way, and again when no report comes."""

from itertools import pairwise

from forebay_consumer.send_off import FIRST_PAUSE_S, LONGEST_PAUSE_S, SendOff
from support.consumer import ManualClock


def waiting(*messages: str) -> dict[str, None]:
    return dict.fromkeys(messages)


def test_the_first_message_is_sent_off_once() -> None:
    send_off = SendOff(ManualClock())
    assert not send_off.due({})
    assert send_off.due(waiting("a"))
    assert not send_off.due(waiting("a"))
    assert not send_off.due({})


def test_what_is_written_meanwhile_goes_when_the_report_has_come() -> None:
    send_off = SendOff(ManualClock())
    assert send_off.due(waiting("a"))
    assert not send_off.due(waiting("a", "b", "c"))
    assert send_off.due(waiting("b", "c"))
    assert not send_off.due(waiting("c"))


def test_an_older_message_of_a_broker_that_did_not_see_the_flush_is_not_forgotten() -> None:
    send_off = SendOff(ManualClock())
    assert send_off.due(waiting("to one", "to another"))
    assert send_off.due(waiting("to one"))


def pauses(send_off: SendOff, clock: ManualClock, until_s: float) -> list[float]:
    flushes = []
    while clock.now < until_s:
        if send_off.due(waiting("last")):
            flushes.append(clock.now)
        clock.advance(0.0005)
    return [round(later - earlier, 3) for earlier, later in pairwise(flushes)]


def test_without_a_report_it_is_repeated_ever_more_seldom() -> None:
    clock = ManualClock()
    found = pauses(SendOff(clock), clock, 0.4)
    assert found[:5] == [FIRST_PAUSE_S, 0.004, 0.008, 0.016, 0.032]
    assert set(found[5:]) == {LONGEST_PAUSE_S}


def test_where_reports_take_long_it_is_repeated_later() -> None:
    clock = ManualClock()
    send_off = SendOff(clock)
    for number in range(100):
        assert send_off.due(waiting(str(number)))
        clock.advance(0.01)
    assert pauses(send_off, clock, clock.now + 0.03)[0] > 0.015


def test_one_slow_report_changes_little() -> None:
    clock = ManualClock()
    send_off = SendOff(clock)
    for number in range(100):
        assert send_off.due(waiting(str(number)))
        clock.advance(10.0 if number == 99 else 0.001)
    assert pauses(send_off, clock, clock.now + 0.03)[0] < 0.012
