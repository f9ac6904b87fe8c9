"""What a model is to the worker: eight verbs, of which only `forward` must be written.

    class Shout(Model):
        def forward(self, batch):
            return [text.upper() for text in batch]

`model: {name: shout, class: "my_module:Shout"}` in the worker's configuration serves it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

PADS: Final = "none"
"""The scheme of a model that pads, as `forebay_packing` tells it."""


class Model(ABC):
    """One copy of a model on one device.

    The worker makes one object per instance with the configured `options` as keyword arguments, calls `load` and
    `tune` once, on the instance's own thread, and from then on `collate`, `forward` and `postprocess` on that thread,
    never two at a time. `preprocess` and `cost` are called on the first object only, on another thread, while forward
    passes run: they must not touch what `forward` changes.

    A *row* is one entry of a request's `inputs`: `str` (text), `bytes` (an encoded image) or any JSON value. A
    request may carry several rows; a batch is a list of rows of one or more requests.

    Raising a `forebay_schemas.RequestError` from `preprocess` (or returning it in a row's place) answers that
    request alone with its code. Any exception from `collate`, `forward` or `postprocess` fails the whole pass, which
    is then split until the culprit is alone. Three kinds mean more: a `TransientError` (or a connection's or timeout's)
    lets the pass be run again first, an `OutOfMemory` lets it be cut smaller, and a `FatalError`, from any method, ends
    the worker with nothing concluded about any request.
    """

    max_batch_size: ClassVar[int | None] = None
    """Largest number of rows the model can take, where it has such a limit."""

    max_preprocess_rows: ClassVar[int | None] = None
    """Most rows of one call of `preprocess`, which has `limits.preprocess_timeout_ms`, where each may take long."""

    precision: str | None = None
    """What it computes in, as `float32`, known once it is tuned; None says nothing. Told in every result."""

    packing: str | None = None
    """By what name the model makes a batch without padding; None where it pads to the longest row.

    Settled when `load` returns. Under any name a batch costs the sum of its rows' costs, and rows go in order of
    arrival, whatever their cost.
    """

    unpacked: str = PADS
    """How it makes batches where `packing` is None, as the metric `forebay_packing` says it; none where it pads."""

    def load(self, device: str) -> None:  # noqa: B027 - optional hook
        """Bring the weights to `device`: `cpu`, `cuda:0`, ...; raises when they cannot be loaded."""

    def tune(self, rows: Sequence[Any]) -> None:  # noqa: B027 - optional hook
        """Choose what depends on the device and on rows of real shape: precision, compilation.

        Args:
            rows: raw rows of the warm-up; none where it is off.
        """

    def profile_file(self) -> Path | None:
        """Where the batch sizes that were found for it are kept; None measures at each start."""
        return None

    def profile_key(self) -> str:
        """All of this copy that they depend on: weights, device, precision, threads, versions."""
        return ""

    def preprocess(self, rows: Sequence[Any], parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Prepare many rows at once: tokenise, decode images, validate.

        Args:
            rows: the rows of one or more requests that all came with the same `parameters`.
        Returns:
            One entry per row, in order: the prepared row, or a `RequestError` in its place.
        """
        return rows

    def cost(self, row: Any) -> int:
        """What a prepared row costs (tokens, pixels); a batch costs rows × the largest cost among them, or their sum
        where the model packs."""
        return 1

    def collate(self, rows: Sequence[Any]) -> Any:
        """Make one input for `forward` of prepared rows."""
        return rows

    def padding(self, batch: Any) -> float | None:
        """Share of a collated batch that is padding, for metrics; None where the costs of its rows tell."""
        return None

    @abstractmethod
    def forward(self, batch: Any) -> Any:
        """Run the model once; blocks until the device is done."""

    def postprocess(self, output: Any, rows: Sequence[Any], parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Turn the model's output into one JSON-ready value per row, in the order of `rows`.

        Anything that orjson can write is JSON-ready, numpy arrays and numbers included. It is written while the next
        pass runs, so what is in it must not change any more; of one numpy array for all rows a copy is made.
        """
        result: Sequence[Any] = output
        return result

    def samples(self) -> Sequence[Any]:
        """Raw rows of real shape for the warm-up; none means that the warm-up is skipped."""
        return ()

    @classmethod
    def default_devices(cls) -> Sequence[str]:
        """Devices to use when `instance_group` names none; one instance is made on each."""
        return ("cpu",)


def costs_of(model: Model, rows: Sequence[Any]) -> list[int]:
    """The costs of prepared rows as plain integers of at least 1, whatever kind of number the model gives."""
    if getattr(model.cost, "__func__", None) is Model.cost:
        return [1] * len(rows)
    return [max(1, int(model.cost(row))) for row in rows]
