"""What is committed, and when: the ledger's watermarks with the line beside them. Pure."""

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Final

from forebay_consumer.ledger import Ledger, Mark
from forebay_consumer.progress import MAX_CHARS, Commit, Progress, decode, encode
from forebay_consumer.record import Claim
from forebay_consumer.trials import Trials

_FEWER_CHARS: Final = 200  # no ranges to speak of, and a trial still fits
AGAIN_AFTER_S: Final = 0.1  # what was refused, at first
AGAIN_AT_MOST_S: Final = 1.0
_FORGOTTEN_S: Final = 60.0  # an assignment that ended asks no more


class Commits:
    """Used on one thread only, but for `settled`."""

    def __init__(self, ledger: Ledger, trials: Trials, interval_s: float) -> None:
        self._ledger = ledger
        self._trials = trials
        self._interval_s = interval_s
        self._next_s = 0.0
        self._max_chars = MAX_CHARS
        self._now = 0.0  # of the last look
        self._again: dict[Claim, tuple[float, float]] = {}  # of those refused last: not before, and the next pause
        self._together = 1  # of those at once
        self._well_went = False  # at the last look: those that were not refused

    def due(self, now: float) -> Mapping[Claim, Commit]:
        """What to commit at monotonic time `now`: at the interval what moved, and at once what records wait for.

        Never two commits of one assignment at once: the client sends one again whose connection broke, and the older
        would set the offset back [seen after a broker's restart].

        What was refused is asked again after a while, and alone: a commit of which the broker refuses one partition,
        of a topic that was deleted say, is told as refused for all. With each that is accepted then, twice as many go
        together: mostly all were refused, for a while.
        """
        claims = set(self._trials.due())
        if now >= self._next_s:
            self._next_s = now + self._interval_s
            claims.update(set(self._ledger.moved()) - self._trials.asking())
        self._now = now
        if self._again:  # between the intervals, too: at each of those others may have moved, which go first
            claims.update(self._again.keys() & set(self._ledger.moved()) - self._trials.asking())
            claims = self._allowed(claims, now)
        return self._all(self._ledger.marks(claims) if claims else {}, self._trials.progress)

    def parting(self, claims: Iterable[Claim]) -> Mapping[Claim, Commit]:
        """The last commits of these assignments, to be made before they end."""
        return self._all(self._ledger.marks(claims), self._trials.parting)

    def accepted(self, accepted: Mapping[Claim, Commit]) -> None:
        if again := len(self._again.keys() & accepted.keys()):
            self._together = 2 * again
        for claim, commit in accepted.items():
            self._again.pop(claim, None)
            self._ledger.accepted(claim, commit.offset)
            if commit.metadata:
                self._trials.accepted(claim, decode(commit.metadata, commit.offset))
            else:
                self._trials.untold(claim)

    def refused(self, refused: Collection[Claim]) -> None:
        if refused:
            self._together = 1
        for claim in refused:
            if not self._ledger.transactional:  # there the stage pauses, and answers of all assignments go together
                pause_s = self._again.get(claim, (0.0, AGAIN_AFTER_S))[1]
                self._again[claim] = (self._now + pause_s, min(2 * pause_s, AGAIN_AT_MOST_S))
            self._ledger.refused(claim)
            self._trials.refused(claim)

    @property
    def stuck(self) -> bool:
        return False  # an answer makes room before it is committed

    def say_less(self) -> int:
        """The broker does not take lines so long; gives the longest that will be tried from now on."""
        self._max_chars = _FEWER_CHARS if self._max_chars > _FEWER_CHARS else 0
        return self._max_chars

    def settled(self) -> bool:
        """Once the trials finish: whether the broker acknowledged all there is to say."""
        return self._ledger.settled() and self._trials.settled()

    def _allowed(self, claims: set[Claim], now: float) -> set[Claim]:
        """Those that were not refused, in turns with those that were and have rested, longest ago first."""
        self._again = {claim: again for claim, again in self._again.items() if now < again[0] + _FORGOTTEN_S}
        well = claims - self._again.keys()
        rested = [claim for claim in claims & self._again.keys() if self._again[claim][0] <= now]
        self._well_went = bool(well) and not (rested and self._well_went)
        if self._well_went or not rested:
            return well
        return set(sorted(rested, key=lambda claim: (self._again[claim], claim))[: self._together])

    def _all(self, marks: Mapping[Claim, Mark], told: Callable[[Claim, Mark], Progress]) -> Mapping[Claim, Commit]:
        commits = {}
        for claim, mark in marks.items():
            with suppress(KeyError):  # it ended while we asked, where that happens on another thread
                commits[claim] = Commit(mark.offset, encode(told(claim, mark), mark.offset, self._max_chars))
        return commits
