import gc

from forebay_consumer.garbage import YOUNG, collector_spared


def test_what_is_loaded_is_looked_at_no_more_and_the_rest_seldom_until_the_end() -> None:
    before = gc.get_threshold()
    with collector_spared():
        assert gc.isenabled()
        assert gc.get_threshold()[0] == YOUNG
        assert gc.get_freeze_count() > 1000
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
