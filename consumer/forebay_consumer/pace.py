"""How soon the next poll comes.

A poll for one or two requests costs nearly as much as one for many: a turn of four threads that share one interpreter
lock, and a pass. So after a poll that brought few, while others are inside anyway, the intake rests, and what comes
meanwhile comes together. A lone client does not wait for it: with its answer confirmed nothing is inside.
"""

from typing import Final

from forebay_consumer.flow import Flow

REST_S: Final = 0.002
FEW: Final = 32  # from here on a turn costs less than its requests


class Pace:
    """For the intake's thread."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._few = False

    def polled(self, records: int, room: int) -> None:
        """So many records were polled together, where there was room for so many rows."""
        self._few = 0 < records < min(FEW, room)

    def rest(self) -> None:
        """Wait before a poll, if it pays; at most until nothing is inside."""
        if self._few:
            self._flow.wait_empty(REST_S)
