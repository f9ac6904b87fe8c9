"""What the worker's loop asks of a delivery mode: four parts, the intake and the replies. Structure only.

By offset: `Ledger`, `Trials`, `Commits`, `Books`. By lock, in a share group: `Locks` for both first and third,
`Deliveries`, `LockKeeper`.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from forebay_consumer.config import WorkerSettings
from forebay_consumer.expiry import Expiry
from forebay_consumer.failure import Failure
from forebay_consumer.feed import Feed
from forebay_consumer.flow import Flow
from forebay_consumer.intake.base import Intake
from forebay_consumer.messages import Writer
from forebay_consumer.metrics import Metrics
from forebay_consumer.progress import Commit
from forebay_consumer.record import Claim, Fault, Outcome, Record
from forebay_consumer.shutdown import Shutdown
from forebay_consumer.window import Rules


class Book(Protocol):
    """Which records are held. Thread-safe."""

    @property
    def uncovered(self) -> int:
        """Records polled that the broker would hand out again if this process died now."""

    def take(self, records: Iterable[Record]) -> list[Record]:
        """Note polled records before anything else sees them; those to answer."""

    def advance(self, claim: Claim, position: int) -> None:
        """Note where the next poll of an assignment reads."""

    def takes(self, claim: Claim) -> bool:
        """Whether records of this claim may still be started."""

    def owns(self, claim: Claim) -> bool:
        """Whether results of this claim may still be published."""


class Admission(Protocol):
    """Which of the polled records are run, and when. On the intake's thread."""

    @property
    def suspicious(self) -> bool:
        """Whether one record at a time is let in."""

    @property
    def choosing(self) -> bool:
        """Whether what is not polled yet may be what is let in next."""

    @property
    def opening(self) -> bool:
        """Whether some assignment waits for its first commit."""

    def held(self) -> int:
        """How many records were polled and wait for a commit before they are let in."""

    def unread(self) -> Collection[Claim] | None:
        """The assignments to poll; None means all."""

    def admit(self, records: Iterable[Record]) -> tuple[list[Record], list[Record]]:
        """The records to run now, and those to answer as poison unrun."""

    def reached(self, positions: Mapping[Claim, int]) -> None:
        """Note how far the partitions were read."""

    def finish(self) -> list[Record]:
        """Let nothing more in; gives back what was held unstarted."""


class Settlement(Protocol):
    """What is said to the broker of what is answered. On the intake's thread."""

    @property
    def stuck(self) -> bool:
        """Whether what makes room waits for the group, which is heard of only by polling."""

    def due(self, now: float) -> Mapping[Claim, Commit]:
        """Offsets to commit at monotonic time `now`."""

    def settled(self) -> bool:
        """After `Admission.finish`: whether the broker knows all there is to say."""


class Endings(Protocol):
    """How a record leaves. Thread-safe."""

    def answered(self, records: Sequence[Record]) -> None:
        """The broker confirmed the replies to these records."""

    def give_up(self, records: Sequence[Record], reason: str) -> None:
        """These records, which were let in, end here unanswered; another run of them is the broker's to arrange."""

    def forget(self, records: Sequence[Record], reason: str) -> None:
        """The same of records that were not let in."""


class Stage(Protocol):
    """What brings outcomes to their topics. A context manager; `publish` may be called from any thread."""

    @property
    def reachable(self) -> bool:
        """Its producer's last word was not that all brokers are down."""

    def list_topics(self, topic: str, timeout: float) -> Any:
        """As `Producer.list_topics`, from any thread, while this is entered."""

    def publish(self, outcomes: Sequence[Outcome]) -> None:
        """Hand outcomes over; returns at once."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Setting:
    """What every mode is made of."""

    settings: WorkerSettings
    rules: Rules
    expiry: Expiry
    instances: int
    flow: Flow
    writer: Writer
    metrics: Metrics
    failure: Failure
    shutdown: Shutdown


@dataclass(frozen=True, slots=True)
class Mode:
    """The parts of one delivery mode, joined.

    Attributes:
        poisoned: the answer to a record that admission does not let run.
        max_poll_s: a polling loop that is silent for so long is dead.
        max_uncommitted: with so many records uncovered, none is polled.
        full: a poll that brought so many need not have taken all there was.
    """

    intake: Intake
    feed: Feed
    replies: Stage
    book: Book
    admission: Admission
    settlement: Settlement
    endings: Endings
    poisoned: Callable[[Record], Fault]
    max_poll_s: float
    max_uncommitted: int
    full: int
