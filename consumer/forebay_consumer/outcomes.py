"""From a batch to one outcome per record, however the forward pass goes. Pure.

A pass that raises is halved and run again, until the culprit is alone: at most 2·⌈log2(n)⌉ + 1 passes for one culprit
among n items. Every other item gets its ordinary result.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from forebay_consumer.errors import BatchError, FatalError
from forebay_consumer.record import Item
from forebay_schemas import Code

T = TypeVar("T")


class Failed(Exception):
    """The model failed on this one item.

    Attributes:
        code: what the client is told.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


def settle(items: Sequence[Item], run: Callable[[Sequence[Item]], Sequence[T]]) -> list[T | Failed]:
    """Run `items`, and give each what `run` gives for it, or its failure, in order.

    Args:
        run: one pass over some of the items; gives one value per item, in order, or raises.
    Raises:
        FatalError: from `run`; nothing may be concluded about any item.
    """
    try:
        return list(run(items))
    except FatalError:
        raise
    except Exception as error:
        if len(items) == 1:
            return [_failure(error)]
    middle = (len(items) + 1) // 2
    return settle(items[:middle], run) + settle(items[middle:], run)


def split_rows(outputs: Sequence[Any], items: Sequence[Item]) -> list[Sequence[Any]]:
    """Give each item the outputs of its own rows, in order."""
    split, start = [], 0
    for item in items:
        split.append(outputs[start : start + len(item.rows)])
        start += len(item.rows)
    return split


def _failure(error: Exception) -> Failed:
    # The exception's own text may hold paths or parts of requests: the client gets its kind, the log its stack.
    if isinstance(error, BatchError):
        failed = Failed(error.code, str(error))
    else:
        failed = Failed(Code.MODEL_ERROR, f"the model failed on this request ({type(error).__name__})")
    failed.__cause__ = error
    return failed
