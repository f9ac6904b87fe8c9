"""What the worker needs of a source of records, whichever delivery mode is behind it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from forebay_consumer.flow import Room
from forebay_consumer.progress import Commit, Progress
from forebay_consumer.record import Claim, Record

POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Start:
    """Where an assignment begins.

    Attributes:
        offset: the committed one, or what the start policy says.
        progress: what stood beside it; None when it could not be read.
        end: the end of the partition, where `progress` says that a process may have died over it; else `offset`.
        outage: we were cut off from the group a moment ago, so whoever had the partition may have been, too, and live.
    """

    offset: int
    progress: Progress | None = field(default_factory=Progress)
    end: int = 0
    outage: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What other threads may know of the Kafka consumer; published whole after every poll and callback.

    Attributes:
        joined: the group has assigned something, be it nothing.
        lag: records behind the end, per partition owned.
        ends: the end of each, as last heard.
        reachable: the client's last word was not that all brokers are down.
        assigned: partitions owned.
    """

    joined: bool = False
    lag: Mapping[Claim, int] = field(default_factory=dict)
    ends: Mapping[Claim, int] = field(default_factory=dict)
    reachable: bool = True
    assigned: int = 0


class Listener(Protocol):
    """Who is told of changes of the assignment, on the intake's thread, inside a poll."""

    def assigned(self, starts: Mapping[Claim, Start]) -> None:
        """These partitions are ours from these offsets on."""

    def revoked(self, claims: Collection[Claim]) -> Mapping[Claim, Commit]:
        """These partitions go, and may still be committed: finish what is in flight, and say what to commit."""

    def lost(self, claims: Collection[Claim]) -> None:
        """These partitions are gone, perhaps for long: another may have committed past us, so commit nothing."""

    def committed(self, accepted: Mapping[Claim, Commit], refused: Collection[Claim]) -> None:
        """The broker's word on a commit."""

    def metadata_refused(self) -> None:
        """The broker does not keep so long a text beside an offset. The commit was refused, or in part."""


class Intake(Protocol):
    """Owns the connection to the group; every method is called on one thread only, except `snapshot`."""

    @property
    def snapshot(self) -> Snapshot: ...

    def open(self) -> None:
        """Join the group."""

    def poll(self, room: Room, wait_s: float = POLL_S) -> list[Record]:
        """Records that fit into `room`: the first as soon as it is there, then what is local.

        Blocks at most `wait_s`, but for a change of the assignment. Without room it leaves Kafka alone, until the group
        would take the worker for dead; then it does as `serve`.

        Raises:
            FatalError: the broker refused for good, or the client cannot go on.
        """

    def serve(self) -> list[Record]:
        """Take nothing, and serve the group's protocol: changes of the assignment, the fate of commits.

        Blocks at most 50 ms; throws away what the client has fetched ahead. Raises as `poll`.

        Returns:
            What must be answered nevertheless, since nobody else ever will: of a share group alone.
        """

    def read_only(self, claims: Collection[Claim] | None) -> None:
        """From now on poll records of these assignments alone; None means all.

        A new assignment is not polled before this allows it. Throws away what was fetched of those left out.
        """

    def positions(self) -> Mapping[Claim, int]:
        """Where the next poll reads, past what is never delivered (transaction markers)."""

    def commit(self, offsets: Mapping[Claim, Commit]) -> None:
        """Ask for a commit; the listener hears of its fate in a later poll. Never blocks."""

    def close(self) -> None:
        """Leave the group."""
