"""The parts of the delivery modes of a consumer group, joined: `at-least-once` and `exactly-once`."""

import secrets
from collections.abc import Mapping
from functools import partial

from forebay_consumer.books import Books
from forebay_consumer.commits import Commits
from forebay_consumer.feed import Feed
from forebay_consumer.intake.group import GroupIntake
from forebay_consumer.ledger import Ledger
from forebay_consumer.pace import FULL
from forebay_consumer.progress import Commit
from forebay_consumer.record import Claim
from forebay_consumer.replies import Replies
from forebay_consumer.roles import Mode, Setting
from forebay_consumer.transactions import Transactions
from forebay_consumer.trials import Trials
from forebay_consumer.window import NO_ENDS, Window
from forebay_consumer.worker import Keeper, TransactionalKeeper, poisoned


class Waking:
    """A settlement that another thread makes: it is woken for what cannot wait, and looks for the rest by itself."""

    def __init__(self, commits: Commits, trials: Trials, transactions: Transactions) -> None:
        self._commits = commits
        self._trials = trials
        self._transactions = transactions

    @property
    def stuck(self) -> bool:
        return self._transactions.stuck

    def due(self, now: float) -> Mapping[Claim, Commit]:
        del now
        if self._trials.due():
            self._transactions.wake()
        return {}

    def settled(self) -> bool:
        return self._commits.settled()


def by_offset(setting: Setting, in_flight: int) -> Mode:
    """A consumer group: what is answered is told by offsets, in commits of the consumer's or in transactions.

    Args:
        in_flight: most rows inside.
    """
    settings, flow, metrics, failure = setting.settings, setting.flow, setting.metrics, setting.failure
    delivery = settings.delivery
    transactional = delivery.mode == "exactly-once"
    drain_s = delivery.drain_ms / 1000
    ledger = Ledger(transactional)

    def ends(waiting_rows: int) -> Mapping[Claim, int]:
        # With no room and nothing inside but what waits, or with suspects, nothing more comes before a batch goes; so
        # where a transaction must carry something before what is held is let in.
        if trials.suspicious or not (flow.room() or flow.rows > waiting_rows):
            return NO_ENDS
        held = trials.held() if transactional else 0
        return NO_ENDS if held and flow.rows - held <= waiting_rows else intake.snapshot.ends

    feed = Feed(Window(setting.rules), ledger.takes, ends=ends, expiry=setting.expiry)

    # By commits, room for all that may be inside: who waits for one while there is no room to poll waits for a batch to
    # end. A transaction is heard of without a poll, and each suspect costs one: so no more is claimed than keeps the
    # instances busy while one is made, a batch running and one in the window beside what the transaction carries.
    def at_most() -> int:
        # Asked for with each claim: what a profile found is known by the first, and may be more.
        return 4 * setting.instances * max(setting.rules.max_rows, feed.max_rows)

    trials = Trials(
        settings.retry.trials, in_flight, life=secrets.token_hex(8), at_most=at_most if transactional else None
    )
    # A transaction carries at once what it can; its own length is interval enough.
    commits = Commits(ledger, trials, 0.0 if transactional else delivery.commit_interval_ms / 1000)
    books = Books(ledger, trials, commits, flow, metrics)
    keeping = (ledger, trials, commits, books, feed, metrics, failure, drain_s)
    replies: Replies | Transactions
    settlement: Commits | Waking
    if transactional:
        replies = Transactions(
            settings.kafka,
            delivery.transactional_id,
            setting.writer,
            commits,
            books,
            owns=ledger.owns,
            withdraw=ledger.withdraw,
            hurried=lambda: not trials.suspicious,
            group=lambda: intake.group_metadata,
            metrics=metrics,
            failure=failure,
            part_within_s=drain_s,
        )
        keeper: Keeper = TransactionalKeeper(replies, *keeping)
        settlement = Waking(commits, trials, replies)
    else:
        replies = Replies(
            settings.kafka,
            setting.writer,
            owns=ledger.owns,
            done=books.answered,
            gave_up=books.give_up,
            metrics=metrics,
            failure=failure,
        )
        keeper = Keeper(*keeping)
        settlement = commits
    intake = GroupIntake(
        settings.kafka,
        settings.topics.requests,
        delivery.start,
        keeper,
        settings.limits.max_bytes_in_flight,
        transactional,
        leaving=lambda: setting.shutdown.asked or failure.happened,
    )
    answer = partial(poisoned, lives=settings.retry.trials)
    return Mode(
        intake,
        feed,
        replies,
        ledger,
        trials,
        settlement,
        books,
        answer,
        intake.max_poll_s,
        delivery.max_uncommitted,
        FULL,
    )
