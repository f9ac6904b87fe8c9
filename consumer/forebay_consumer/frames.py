"""What an error keeps alive: the frames that it came through, and all that these hold.

A frame that holds its own error, or one whose caller does, is a cycle. The collector alone frees it, and looks seldom
(see `garbage`); the records in it, though answered, are counted by nobody.
"""

import traceback
from collections.abc import Iterator


def free_frames(error: BaseException) -> None:
    """Free what the frames hold that ended, activations above all; the lines of the traceback stay, to be told."""
    for link in _chain(error):
        traceback.clear_frames(link.__traceback__)


def forget_frames(error: BaseException | None) -> None:
    """Drop the traceback, once it is told."""
    for link in _chain(error):
        link.__traceback__ = None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it came from."""
    seen: set[int] = set()  # a chain that a model made by hand may lead in a circle
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
