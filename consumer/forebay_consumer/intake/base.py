"""What the worker needs of a source of records, whichever delivery mode is behind it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from forebay_consumer.flow import Room
from forebay_consumer.record import Claim, Record


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What other threads may know of the Kafka consumer; published whole after every poll and callback.

    Attributes:
        joined: the group has assigned something, be it nothing.
        lag: records behind the end, per partition owned.
        reachable: the client's last word was not that all brokers are down.
    """

    joined: bool = False
    lag: Mapping[Claim, int] = field(default_factory=dict)
    reachable: bool = True


class Listener(Protocol):
    """Who is told of changes of the assignment, on the intake's thread, inside a poll."""

    def assigned(self, starts: Mapping[Claim, int]) -> None:
        """These partitions are ours from these offsets on."""

    def revoked(self, claims: Collection[Claim]) -> Mapping[Claim, int]:
        """These partitions go, and may still be committed: finish what is in flight, and say what to commit."""

    def lost(self, claims: Collection[Claim]) -> None:
        """These partitions are gone, perhaps for long: another may have committed past us, so commit nothing."""

    def committed(self, accepted: Mapping[Claim, int], refused: Collection[Claim]) -> None:
        """The broker's word on a commit."""


class Intake(Protocol):
    """Owns the connection to the group; every method is called on one thread only, except `snapshot`."""

    @property
    def snapshot(self) -> Snapshot: ...

    def open(self) -> None:
        """Join the group."""

    def poll(self, room: Room) -> list[Record]:
        """Records that fit into `room`: the first as soon as it is there, then what is local.

        Blocks at most 50 ms, but for a change of the assignment. Without room it leaves Kafka alone, until the group
        would take the worker for dead; then it does as `serve`.

        Raises:
            FatalError: the broker refused for good, or the client cannot go on.
        """

    def serve(self) -> None:
        """Take nothing, and serve the group's protocol: changes of the assignment, the fate of commits.

        Blocks at most 50 ms; throws away what the client has fetched ahead. Raises as `poll`.
        """

    def positions(self) -> Mapping[Claim, int]:
        """Where the next poll reads, past what is never delivered (transaction markers)."""

    def commit(self, offsets: Mapping[Claim, int]) -> None:
        """Ask for a commit; the listener hears of its fate in a later poll. Never blocks."""

    def close(self) -> None:
        """Leave the group."""
