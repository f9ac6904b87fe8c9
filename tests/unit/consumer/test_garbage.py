import gc

from forebay_consumer.garbage import YOUNG, spare_collector


def test_what_is_loaded_is_looked_at_no_more_and_the_rest_seldom() -> None:
    before = gc.get_threshold()
    try:
        spare_collector()
        assert gc.isenabled()
        assert gc.get_threshold()[0] == YOUNG
        assert gc.get_freeze_count() > 1000
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
