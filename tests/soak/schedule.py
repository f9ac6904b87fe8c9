"""A random schedule of faults, the same for the same seed. Pure."""

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

KILL: Final = "kill"
STOP: Final = "stop"
RESTART: Final = "restart"
REBALANCE: Final = "rebalance"
BROKER_KILL: Final = "broker-kill"
BROKER_STOP: Final = "broker-stop"
CUT: Final = "cut"
POISON: Final = "poison"
OVERSIZE: Final = "oversize"

REFUSE: Final = "refuse"
SWALLOW: Final = "swallow"
DEAF: Final = "deaf"
SLOW: Final = "slow"
RESET: Final = "reset"

FAULTS: Final[Mapping[str, str]] = {
    KILL: "kill -9 of a worker, and a new one after a while",
    STOP: "SIGSTOP of a worker, often past its session, then SIGCONT",
    RESTART: "SIGTERM of a worker, and a new one when it has ended",
    REBALANCE: "one more worker joins, and is asked to leave",
    BROKER_KILL: "kill -9 of the broker, and the same broker again after a while",
    BROKER_STOP: "SIGSTOP of the broker, then SIGCONT",
    CUT: "the network between workers and broker refuses, swallows, loses the answers, delays, or resets",
    POISON: "a request that kills the process that runs it",
    OVERSIZE: "requests whose replies are larger than the reply topic takes",
}

_WEIGHTS: Final[Mapping[str, int]] = {
    KILL: 4,
    STOP: 3,
    RESTART: 3,
    REBALANCE: 3,
    BROKER_KILL: 2,
    BROKER_STOP: 2,
    CUT: 4,
    POISON: 1,
    OVERSIZE: 2,
}
# Seconds that a fault lasts; a worker's session in the soak is 3 s, so that some stops end within it.
_LASTS: Final[Mapping[str, tuple[float, float]]] = {
    KILL: (0.0, 4.0),
    STOP: (1.0, 9.0),
    REBALANCE: (4.0, 12.0),
    BROKER_KILL: (0.0, 6.0),
    BROKER_STOP: (1.0, 8.0),
    CUT: (0.5, 8.0),
}
_VARIANTS: Final[Mapping[str, tuple[str, ...]]] = {CUT: (REFUSE, SWALLOW, DEAF, SLOW, RESET)}
QUIET_START_S: Final = 5.0
GAP_S: Final = 5.0  # mean


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a schedule.

    Attributes:
        at_s: seconds from the start of the load.
        worker: which of the workers it meets; means nothing for other faults.
        lasts_s: seconds until it is taken back.
        variant: which way, for a fault that has several.
    """

    at_s: float
    kind: str
    worker: int = 0
    lasts_s: float = 0.0
    variant: str = ""

    def text(self) -> str:
        """One line for people."""
        where = f" worker {self.worker}" if self.kind in (KILL, STOP, RESTART) else ""
        lasts = f" for {self.lasts_s:.1f} s" if self.lasts_s else ""
        return f"{self.at_s:7.1f} s  {self.kind}{' ' + self.variant if self.variant else ''}{where}{lasts}"


def draw(seed: int, seconds: float, workers: int, without: Collection[str] = ()) -> tuple[Fault, ...]:
    """Faults in order of time, from `QUIET_START_S` to the end; they may overlap.

    Raises:
        ValueError: `without` names no fault, or all of them.
    """
    if unknown := set(without) - set(FAULTS):
        raise ValueError(f"no such fault: {', '.join(sorted(unknown))}; known are {', '.join(FAULTS)}")
    kinds = [kind for kind in FAULTS if kind not in without]
    if not kinds:
        raise ValueError("every kind of fault is left out")
    chance = random.Random(seed)
    faults = []
    at_s = QUIET_START_S
    while round(at_s, 1) < seconds:
        kind = chance.choices(kinds, [_WEIGHTS[kind] for kind in kinds])[0]
        lasts_s = round(chance.uniform(*_LASTS[kind]), 1) if kind in _LASTS else 0.0
        variant = chance.choice(_VARIANTS[kind]) if kind in _VARIANTS else ""
        if variant == RESET:  # it is over at once
            lasts_s = 0.0
        faults.append(Fault(round(at_s, 1), kind, chance.randrange(workers), lasts_s, variant))
        at_s += chance.expovariate(1 / GAP_S)
    return tuple(faults)
