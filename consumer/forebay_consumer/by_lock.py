"""The parts of delivery mode `queue`, joined."""

from typing import Final

from forebay_consumer.deliveries import Deliveries, LockKeeper, poisoned
from forebay_consumer.feed import Feed
from forebay_consumer.intake.share import ShareIntake
from forebay_consumer.intake.share_group import Wishes
from forebay_consumer.locks import Locks
from forebay_consumer.pace import FULL
from forebay_consumer.replies import Replies
from forebay_consumer.roles import Mode, Setting
from forebay_consumer.window import Window

_NO_BOUND: Final = 2**62  # on what is held: who holds much has polled it already, and commits as it answers


def by_lock(setting: Setting, consumers: int) -> Mode:
    """A share group: what is answered is told record by record, under the lock of each.

    Args:
        consumers: how many share consumers there are to be.
    """
    settings, metrics = setting.settings, setting.metrics
    delivery, limits = settings.delivery, settings.limits
    locks = Locks()
    feed = Feed(Window(setting.rules, follows=False), locks.takes, expiry=setting.expiry)
    keeper = LockKeeper(locks, setting.flow, feed, metrics)
    replies = Replies(
        settings.kafka,
        setting.writer,
        owns=locks.owns,
        done=keeper.answered,
        gave_up=keeper.give_up,
        metrics=metrics,
        failure=setting.failure,
    )
    wishes = Wishes(delivery.start, delivery.queue.lock_ms, delivery.queue.max_deliveries, limits.forward_timeout_ms)
    intake = ShareIntake(
        settings.kafka,
        settings.topics.requests,
        wishes,
        locks,
        keeper,
        metrics,
        consumers,
        setting.rules.max_rows,
        limits.max_bytes_in_flight,
        delivery.commit_interval_ms / 1000,
    )
    deliveries = Deliveries(locks, feed, keeper)
    full = min(FULL, setting.rules.max_rows)  # a consumer brings no more, though there be
    return Mode(intake, feed, replies, locks, deliveries, locks, keeper, poisoned, intake.max_poll_s, _NO_BOUND, full)
