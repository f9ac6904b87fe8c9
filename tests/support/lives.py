"""Lives and deaths of workers on a made-up log: the real ledger and trials, everything around them simulated.

A life polls, lets in, runs and answers records in a random order of steps, with commits that arrive, and are
acknowledged, some steps later. A poison record ends the life that touches it; an outside killer ends lives too. A life
may lose a partition while it runs records of it, and get it back; in an outage all lose all, and others may get them.
"""

import random
from collections import Counter, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import count

from forebay_consumer.ledger import Ledger
from forebay_consumer.progress import Commit, decode, encode
from forebay_consumer.record import Claim, Record
from forebay_consumer.trials import Trials
from support.consumer import make_record

Place = tuple[int, int]  # partition, offset
SETTLING_STEPS = 300


@dataclass
class Log:
    """What outlives the workers."""

    partitions: int
    length: int
    poison: Collection[Place]
    committed: dict[int, tuple[int, str]] = field(default_factory=dict)
    answers: Counter[Place] = field(default_factory=Counter)
    convicted: Counter[Place] = field(default_factory=Counter)
    suspicious_steps: int = 0
    escapes: int = 0  # losses of a partition while its poison was inside, so that its trial, if it was one, is void
    deaths: Counter[Place] = field(default_factory=Counter)
    ahead: list[str] = field(default_factory=list)

    def commit(self, partition: int, commit: Commit) -> None:
        for offset in range(commit.offset):
            if not self.answers[partition, offset]:
                self.ahead.append(f"{partition}: {commit.offset} is committed, {offset} has no answer")
        self.committed[partition] = (commit.offset, commit.metadata)

    @property
    def finished(self) -> bool:
        return all(self.committed.get(p, (0, ""))[0] == self.length for p in range(self.partitions))


class Died(Exception):
    """This life is over."""


class Life:
    """One worker process, from its assignment to its end.

    Args:
        uses_trials: False lets everything in at once, as if there were no scheme.
    """

    epochs = count(1)
    ids = count(1)

    def __init__(self, log: Log, chance: random.Random, owned: Iterable[int], killer: float, uses_trials: bool) -> None:
        self._log = log
        self._chance = chance
        self._killer = killer
        self._uses_trials = uses_trials
        self._ledger = Ledger()
        life = f"{next(self.ids):016x}"
        at_most = chance.choice([None, lambda: 1, lambda: 12])
        self._trials = Trials(max_lives=2, ahead=8, life=life, at_most=at_most)
        self._inside: list[Record] = []
        self._ran: list[Record] = []
        self._sent: deque[tuple[Claim, Commit]] = deque()
        self._arrived: deque[tuple[Claim, Commit]] = deque()
        self._position: dict[Claim, int] = {}
        self._steps = 0
        for partition in owned:
            self._assign(partition)

    @property
    def owned(self) -> list[int]:
        return [claim.partition for claim in self._position]

    def step(self) -> None:
        """Something happens.

        Raises:
            Died: a poison record was touched, or the killer came.
        """
        self._steps += 1
        self._log.suspicious_steps += self._trials.suspicious
        # A killer that strikes the same record's trial in two lives running does convict it: at random, hardly ever.
        if self._steps > SETTLING_STEPS and self._chance.random() < self._killer:
            raise Died
        self._chance.choice((self._poll, self._send, self._arrive, self._acknowledge, self._run, self._confirm))()

    def hand_over(self, partition: int) -> None:
        """Give a partition back in good order; what runs still is dropped, as after the longest drain."""
        claim = next(claim for claim in self._position if claim.partition == partition)
        mark = self._ledger.marks([claim])[claim]
        progress = self._trials.parting(claim, mark)
        self._log.commit(partition, Commit(mark.offset, encode(progress, mark.offset)))
        self._trials.close([claim])
        self._ledger.close([claim])
        del self._position[claim]
        gone = [record for record in (*self._inside, *self._ran) if record.claim == claim]
        self._inside = [record for record in self._inside if record.claim != claim]
        self._ran = [record for record in self._ran if record.claim != claim]
        self._trials.ended(gone, ran=False)

    def lose(self, partition: int) -> None:
        """Another may own it by now: nothing is said. What is inside runs on, late."""
        claim = next(claim for claim in self._position if claim.partition == partition)
        inside = {(record.partition, record.offset) for record in self._inside if record.claim == claim}
        self._log.escapes += bool(inside & set(self._log.poison))
        self._trials.close([claim])
        self._ledger.close([claim])
        del self._position[claim]

    def take_over(self, partition: int, outage: bool = False) -> None:
        self._assign(partition, outage)

    def _assign(self, partition: int, outage: bool = False) -> None:
        self._steps = 0
        claim = Claim("requests", partition, next(self.epochs))
        offset, metadata = self._log.committed.get(partition, (0, ""))
        found = decode(metadata, offset)
        self._ledger.open(claim, offset, found.done)
        self._trials.open(claim, offset, found, self._log.length, outage)
        self._position[claim] = offset

    def _poll(self) -> None:
        unread = self._trials.unread()
        claims = list(self._position) if unread is None else unread
        polled = []
        if claims and len(self._inside) < 16:
            claim = self._chance.choice(claims)
            first = self._position[claim]
            past = min(self._log.length, first + (1 if unread is not None else self._chance.randint(1, 6)))
            self._position[claim] = past
            polled = [
                make_record(offset, partition=claim.partition, epoch=claim.epoch) for offset in range(first, past)
            ]
        fresh = self._ledger.take(polled)
        run, poison = self._trials.admit(fresh) if self._uses_trials else (fresh, [])
        self._inside += run
        for record in poison:
            self._log.convicted[record.partition, record.offset] += 1
        self._ran += poison
        self._trials.reached(self._position)

    def _send(self) -> None:
        claims = sorted({*self._trials.due(), *self._ledger.moved()})
        for claim, mark in self._ledger.marks(claims).items():
            progress = self._trials.progress(claim, mark)
            self._sent.append((claim, Commit(mark.offset, encode(progress, mark.offset))))

    def _arrive(self) -> None:
        if self._sent:
            claim, commit = self._sent.popleft()
            if claim in self._position:
                self._log.commit(claim.partition, commit)
                self._arrived.append((claim, commit))

    def _acknowledge(self) -> None:
        if self._arrived:
            claim, commit = self._arrived.popleft()
            self._ledger.accepted(claim, commit.offset)
            self._trials.accepted(claim, decode(commit.metadata, commit.offset))

    def _run(self) -> None:
        """Preprocess and forward: any of what is inside, in any order."""
        self._chance.shuffle(self._inside)
        batch = [self._inside.pop() for _ in range(min(len(self._inside), self._chance.randint(1, 4)))]
        touched = [place for record in batch if (place := (record.partition, record.offset)) in self._log.poison]
        if touched:
            self._log.deaths.update(set(touched))  # it may be inside twice, once for each assignment
            raise Died
        self._ran += batch

    def _confirm(self) -> None:
        if self._ran:
            record = self._ran.pop(self._chance.randrange(len(self._ran)))
            # A late one is answered only where its reply was on the way already.
            if record.claim in self._position or self._chance.random() < 0.5:
                self._log.answers[record.partition, record.offset] += 1
                self._ledger.done([record])
            self._trials.ended([record])


def live(
    seed: int,
    *,
    partitions: int = 4,
    length: int = 40,
    poisons: int = 1,
    killer: float = 0.0,
    workers: int = 1,
    handovers: float = 0.0,
    losses: float = 0.0,
    outages: float = 0.0,
    outages_known: bool = True,
    uses_trials: bool = True,
    max_steps: int = 60_000,
) -> Log:
    """Run lives until everything is answered and committed, or `max_steps` are over.

    Args:
        killer, handovers, losses, outages: how likely each is at every step; who loses a partition gets it back, if it
            lives, but for an outage.
        outages_known: whoever gets a partition after an outage, of those that lost some, has noticed it.
    """
    chance = random.Random(seed)
    places = [(partition, offset) for partition in range(partitions) for offset in range(length)]
    log = Log(partitions, length, frozenset(chance.sample(places, poisons)))
    split = [[p for p in range(partitions) if p % workers == worker] for worker in range(workers)]
    lives = [Life(log, chance, owned, killer, uses_trials) for owned in split]
    lost: list[tuple[Life, int]] = []
    for _ in range(max_steps):
        if log.finished:
            break
        if lost and chance.random() < 0.1:
            loser, partition = lost.pop(chance.randrange(len(lost)))
            (loser if loser in lives else chance.choice(lives)).take_over(partition)
        index = chance.randrange(len(lives))
        life = lives[index]
        try:
            life.step()
        except Died:
            # Its partitions go to the neighbour, or to its own next life.
            heir = chance.randrange(len(lives))
            lives[index] = Life(log, chance, life.owned if heir == index else [], killer, uses_trials)
            if heir != index:
                for partition in life.owned:
                    lives[heir].take_over(partition)
        if chance.random() < handovers and life in lives and life.owned:
            partition = chance.choice(life.owned)
            life.hand_over(partition)
            chance.choice(lives).take_over(partition)
        if chance.random() < losses and life in lives and life.owned:
            partition = chance.choice(life.owned)
            life.lose(partition)
            lost.append((life, partition))
        if chance.random() < outages:
            cut_off = [life for life in lives if life.owned]
            moved = [(loser, partition) for loser in lives for partition in loser.owned]
            for loser, partition in moved:
                loser.lose(partition)
            for _, partition in moved:
                chance.choice(cut_off).take_over(partition, outages_known)
    return log
