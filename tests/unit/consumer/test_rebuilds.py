from forebay_consumer.rebuilds import Rebuilds
from support.consumer import ManualClock


def test_so_many_are_made_within_any_such_time_and_no_more() -> None:
    clock = ManualClock()
    rebuilds = Rebuilds(2, 10.0, clock)
    assert rebuilds.another()
    clock.advance(6.0)
    assert rebuilds.another()
    assert not rebuilds.another()
    clock.advance(4.0)
    assert rebuilds.another(), "the first is ten seconds old"
    assert not rebuilds.another()
    clock.advance(6.0)
    assert rebuilds.another()


def test_one_that_was_refused_does_not_count() -> None:
    clock = ManualClock()
    rebuilds = Rebuilds(1, 10.0, clock)
    assert rebuilds.another()
    clock.advance(9.0)
    assert not rebuilds.another()
    clock.advance(1.0)
    assert rebuilds.another()
