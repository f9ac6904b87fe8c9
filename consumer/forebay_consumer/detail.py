"""What a client is told of an exception of the model. Pure."""

import traceback
from typing import Final, Literal

from forebay_consumer.errors import BatchError

Detail = Literal["none", "message", "traceback"]

MAX_TRACEBACK: Final = 16_000  # characters; replies and headers stay far below what a broker takes


def tell(sentence: str, error: Exception, detail: Detail) -> str:
    """`sentence`, and of `error` as much as `detail` allows.

    With `none` that is nothing. With `message` it is what cannot hold a path or a part of another request: the
    exception's class, or our own words where it is ours. With `traceback` it is all, shortened at its beginning.
    """
    match detail:
        case "none":
            return sentence
        case "message":
            return f"{sentence} ({error if isinstance(error, BatchError) else type(error).__name__})"
        case "traceback":
            return f"{sentence}\n{''.join(traceback.format_exception(error))[-MAX_TRACEBACK:]}"
