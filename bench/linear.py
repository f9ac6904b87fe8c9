"""T3's layer as a model of one's own for Forebay's worker."""

from collections.abc import Sequence
from typing import Any

from bench.reference import Linear as Layer
from forebay_consumer import Model


class Linear(Model):
    def __init__(self) -> None:
        self._layer = Layer()

    def forward(self, batch: Sequence[Any]) -> Any:
        return self._layer.run(batch)

    def samples(self) -> Sequence[Any]:
        return ([0.5] * 16,)
