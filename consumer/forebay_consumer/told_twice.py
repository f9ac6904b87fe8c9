"""A group's offsets, where the broker that tells them may be back from a restart.

A coordinator that was elected twice in a row, as in a restart of its broker, takes the end of the first load of its log
for that of the second, and answers before that has begun: without the offsets, or with old ones, and without an error
[CoordinatorRuntime of Kafka 4.3.1: `CompleteLoad` asks for no epoch]. A commit of what was begun there would stand, and
all be answered again, or, from the newest offset on, nothing that waits.
"""

from collections.abc import Callable
from typing import Any, Final

import structlog

SETTLE_S: Final = 3.0
"""Between two answers: more than the half second in which a broker was seen to be wrong."""

Offsets = list[Any]
"""One `TopicPartition` for each that was asked for, in that order."""


def told_twice(
    first: Offsets, ask: Callable[[], Offsets], wait: Callable[[], None], enough: Callable[[Offsets], bool]
) -> Offsets:
    """The offsets that two answers in a row agree on, or those of an answer that is enough.

    Args:
        ask: gives what is told now.
        wait: lets `SETTLE_S` pass. What either raises comes out.
        enough: asked of each answer, the first included; who never says so may wait for ever where others commit.
    """
    found = first
    while not enough(found):
        wait()
        before, found = found, ask()
        if [each.offset for each in found] == [each.offset for each in before]:
            break
        structlog.get_logger().warning("the group's offsets were not those of a moment ago", action="offsets_changed")
    return found
