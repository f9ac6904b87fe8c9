"""Where tokens go in packed rows."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.models

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 64), st.integers(40, 80))
def test_every_token_has_a_cell_of_its_own_and_its_text_lies_in_one_row(
    lengths: list[int], width: int, most: int
) -> None:
    from forebay_consumer.models.layout import lay_out

    layout = lay_out(lengths, width, most)
    rows, longest = layout.texts.shape
    cells = layout.cells.tolist()
    assert len(cells) == len(set(cells)) == sum(lengths)
    assert longest <= most
    start = 0
    for text, length in enumerate(lengths):
        mine = cells[start : start + length]
        assert mine == [*range(mine[0], mine[0] + length)], "in one piece"
        assert mine[0] // longest == mine[-1] // longest, "in one row"
        assert layout.texts.view(-1)[mine].tolist() == [text] * length
        assert layout.places.view(-1)[mine].tolist() == [*range(length)]
        row, begin, end = layout.spans[text]
        assert [row * longest + cell for cell in range(begin, end)] == mine
        start += length
    assert int((layout.texts < 0).sum()) == rows * longest - sum(lengths)
    assert layout.padding == pytest.approx(1 - sum(lengths) / (rows * longest))


@given(LENGTHS)
def test_what_is_spread_over_the_cells_comes_back_text_by_text(lengths: list[int]) -> None:
    from forebay_consumer.models.layout import lay_out

    layout = lay_out(lengths, 64, 64)
    values = [[1000 * text + place for place in range(length)] for text, length in enumerate(lengths)]
    spread = layout.spread(values, filler=-7)
    assert spread.view(-1)[layout.cells].tolist() == [value for text in values for value in text]
    assert (spread == -7).equal(layout.texts < 0)
    assert layout.cells[layout.starts].tolist() == [
        layout.cells.tolist()[sum(lengths[:n])] for n in range(len(lengths))
    ]
    assert layout.owners.tolist() == [text for text, length in enumerate(lengths) for _ in range(length)]


def test_rows_of_texts_as_they_come_are_nearly_full() -> None:
    from forebay_consumer.models.layout import lay_out

    chance = random.Random(1)
    lengths = [min(256, 4 + round(chance.lognormvariate(3.5, 0.82))) for _ in range(512)]
    batches = [lay_out(lengths[start : start + 32], 256, 512) for start in range(0, len(lengths), 32)]
    padding = [batch.padding for batch in batches]
    assert sum(padding) / len(padding) < 0.02
    assert max(batch.texts.shape[1] for batch in batches) <= 320


def test_texts_that_share_no_row_without_waste_get_rows_of_their_own() -> None:
    from forebay_consumer.models.layout import lay_out

    layout = lay_out([200, 200, 200], 256, 512)
    assert layout.padding == 0
