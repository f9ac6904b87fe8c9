"""Where the tokens of several texts go when they share rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import torch

_LINEAR: Final = 2048  # tokens in a row at which attention costs about as much as all else in a small encoder


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the tokens of some texts are, in rows of equal width.

    Attributes:
        lengths: tokens of each text.
        cells: int64 [N], the place of each token, text by text, counted through all rows.
        texts: int64 [B, R], which text is in a cell; -1 is padding.
        places: int64 [B, R], the how-manieth token of its text is in a cell; 0 is padding, too.
    """

    lengths: Sequence[int]
    cells: torch.Tensor
    texts: torch.Tensor
    places: torch.Tensor

    @property
    def padding(self) -> float:
        """Share of the cells that is padding."""
        cells: int = self.texts.numel()
        return 1 - sum(self.lengths) / cells

    @property
    def starts(self) -> torch.Tensor:
        """Int64 [n], which of `cells` is the first of each text."""
        return torch.tensor([0, *self.lengths[:-1]]).cumsum(0)

    @property
    def spans(self) -> list[tuple[int, int, int]]:
        """Row, first cell in it and the one behind the last, of each text."""
        width = self.texts.shape[1]
        begins = (divmod(cell, width) for cell in self.cells[self.starts].tolist())
        return [(row, begin, begin + length) for (row, begin), length in zip(begins, self.lengths, strict=True)]

    @property
    def owners(self) -> torch.Tensor:
        """Int64 [N], the text of each of `cells`."""
        return torch.arange(len(self.lengths)).repeat_interleave(torch.tensor(self.lengths))

    def spread(self, values: Sequence[Sequence[int]], filler: int) -> torch.Tensor:
        """Int64 [B, R]: one value a token, given text by text."""
        spread = torch.full((self.texts.numel(),), filler)
        spread[self.cells] = torch.tensor([*chain.from_iterable(values)])
        return spread.view_as(self.texts)


def lay_out(lengths: Sequence[int], width: int, most: int) -> Layout:
    """Rows of about `width` tokens, nearly equally full; none of more than `most`, nor longer than the fullest needs.

    Args:
        lengths: tokens of each text, each within 1 and `most`.
    """
    rows = _fill(lengths, width, most)
    fullest = max(sum(lengths[text] for text in row) for row in rows)
    begins = [0] * len(lengths)
    for number, row in enumerate(rows):
        cell = number * fullest
        for text in row:
            begins[text] = cell
            cell += lengths[text]
    sizes = torch.tensor(lengths)  # [n]
    owners = torch.arange(len(lengths)).repeat_interleave(sizes)  # [N]
    place = torch.arange(len(owners)) - (sizes.cumsum(0) - sizes)[owners]  # [N]
    cells = torch.tensor(begins)[owners] + place
    shape = (len(rows), fullest)
    texts, places = torch.full(shape, -1), torch.zeros(shape, dtype=torch.int64)
    texts.view(-1)[cells] = owners
    places.view(-1)[cells] = place
    return Layout(lengths, cells, texts, places)


def _fill(lengths: Sequence[int], width: int, most: int) -> list[list[int]]:
    """The texts of each row. A row too many costs padding, one too few attention: the cheapest of three."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    count = min(max(1, sum(lengths) // width), len(lengths))
    tried: list[tuple[int, list[list[int]]]] = []
    while len(tried) < 3 and count <= len(lengths):
        rows, full = _balance(order, lengths, count)
        if full <= most:
            tried.append((count * full * (full + _LINEAR), rows))
        count += 1
    return min(tried, key=lambda each: each[0])[1]


def _balance(order: Sequence[int], lengths: Sequence[int], count: int) -> tuple[list[list[int]], int]:
    """`count` rows, each text put into the emptiest; and how full the fullest is."""
    rows: list[list[int]] = [[] for _ in range(count)]
    full = [0] * count
    for text in order:
        emptiest = full.index(min(full))
        rows[emptiest].append(text)
        full[emptiest] += lengths[text]
    return rows, max(full)
