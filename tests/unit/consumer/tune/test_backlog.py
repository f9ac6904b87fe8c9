"""What is measured are the batches that a worker forms."""

from forebay_consumer.tune.backlog import form, spread
from forebay_consumer.window import Rules
from support.consumer import make_item


def test_batches_of_a_backlog_are_full_and_of_all_items() -> None:
    items = [make_item(offset) for offset in range(10)]
    batches = form(items, Rules(max_rows=4), packs=False)
    assert {batch.rows for batch in batches} == {4}
    assert {item.record.offset for batch in batches for item in batch.items} == set(range(10))


def test_a_model_that_pads_gets_companions_near_in_cost_and_one_that_packs_gets_the_next() -> None:
    items = [make_item(offset, cost=(1, 9)[offset % 2]) for offset in range(8)]
    padded = form(items, Rules(max_rows=2), packs=False)
    packed = form(items, Rules(max_rows=2), packs=True)
    assert {batch.padded_cost for batch in padded} == {2, 18}
    assert {batch.padded_cost for batch in packed} == {10}
    assert [item.record.offset for item in packed[0].items] == [0, 1]


def test_a_budget_closes_batches_before_the_rows_do() -> None:
    batches = form([make_item(cost=5)], Rules(max_rows=64, max_cost=16), packs=True)
    assert {batch.rows for batch in batches} == {3}


def test_a_few_batches_stand_for_all_by_their_cost() -> None:
    items = [make_item(offset, cost=offset + 1) for offset in range(100)]
    batches = form(items, Rules(max_rows=1), packs=True)
    assert [batch.padded_cost for batch in spread(batches, 4)] == [38, 63, 13, 88]
    assert len(spread(batches[:2], 4)) == 2
