"""What a share group is set to, and what of it the worker sets: there are no such settings in the client.

A group that nobody has set up begins at the end of its topics, which loses the first requests, and reads aborted
transactions, which answers requests that were never made.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    ResourceType,
)

from forebay_consumer.errors import FatalError

ASK_WITHIN_S: Final = 10.0
START: Final = "share.auto.offset.reset"
ISOLATION: Final = "share.isolation.level"
LOCK: Final = "share.record.lock.duration.ms"
LIMIT: Final = "share.delivery.count.limit"

CLOSES_AT: Final = 0.6
"""Share of a lock's time after which nothing is started under it."""
_LOCK_MS: Final = (15_000, 60_000)  # the bounds of a broker that nobody has set up otherwise
_DELIVERIES: Final = 10  # the most that such a broker allows: every shutdown and every death near a record takes one
_DENIED: Final = frozenset([KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED])


class Found(NamedTuple):
    """A setting of the group. `explicit`: somebody has set it for this group; else it is the broker's default."""

    value: str
    explicit: bool


@dataclass(frozen=True, slots=True)
class Terms:
    """What a lock is worth in this group: its time, and how often the broker hands a record out at most."""

    lock_s: float
    max_deliveries: int


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the worker's settings ask of the group.

    Attributes:
        start: earliest or latest, for a group that begins.
        lock_ms, max_deliveries: None leaves what an operator has set, and else takes what fits.
        forward_timeout_ms: most time of one pass, or None for no limit.
    """

    start: str
    lock_ms: int | None = None
    max_deliveries: int | None = None
    forward_timeout_ms: int | None = None

    def short_lock(self, lock_s: float) -> str | None:
        """What to set where a pass that starts at the last moment may outlast a lock; None where none can."""
        left_ms = round(lock_s * 1000 * (1 - CLOSES_AT))
        if self.forward_timeout_ms is not None and self.forward_timeout_ms <= left_ms:
            return None
        return (
            f"a pass may outlast its lock of {lock_s:g} s, and its requests be answered twice; that cannot be with "
            f"limits.forward_timeout_ms of at most {left_ms}, or with a longer delivery.queue.lock_ms"
        )

    def missing(self, found: Mapping[str, Found]) -> dict[str, str]:
        """What is to be set, by key."""
        wanted = {START: self.start, ISOLATION: "read_committed"}
        if self.lock_ms is not None or not found[LOCK].explicit:
            wanted[LOCK] = str(self.lock_ms or self._fitting_lock_ms())
        if self.max_deliveries is not None or not found[LIMIT].explicit:
            wanted[LIMIT] = str(self.max_deliveries or _DELIVERIES)
        return {key: value for key, value in wanted.items() if found[key].value != value}

    def _fitting_lock_ms(self) -> int:
        """So long that a pass which starts at the last moment, and takes all the time it may, still ends in time.

        Within what a broker allows that nobody has set up otherwise: for a pass of more than 24 s that is too short.
        """
        shortest, longest = _LOCK_MS
        if self.forward_timeout_ms is None:
            return longest
        return round(min(longest, max(shortest, self.forward_timeout_ms / (1 - CLOSES_AT))))


def settle(admin: AdminClient, group: str, wishes: Wishes) -> Terms | None:
    """Bring the group's settings in line, and say what holds; None while the broker does not show yet what was set.

    Blocks up to 20 s.

    Raises:
        KafkaException: no broker answers; ask again.
        FatalError: the broker knows no share groups, or denies it; the message names what to set.
    """
    found = _read(admin, group)
    missing = wishes.missing(found)
    if missing:
        _write(admin, group, missing)
        structlog.get_logger().info("share group set up", action="group_set", group=group, **missing)
        if wishes.missing(found := _read(admin, group)):
            return None
    return Terms(int(found[LOCK].value) / 1000, int(found[LIMIT].value))


def _read(admin: AdminClient, group: str) -> dict[str, Found]:
    asked = admin.describe_configs([ConfigResource(ResourceType.GROUP, group)], request_timeout=ASK_WITHIN_S)
    try:
        (entries,) = [answer.result() for answer in asked.values()]
    except KafkaException as error:
        if error.args[0].code() in _DENIED:
            raise FatalError(
                f"Kafka: the settings of group {group} cannot be read; grant DescribeConfigs on the group {group} to "
                "this principal"
            ) from error
        if error.args[0].code() in (KafkaError.INVALID_REQUEST, KafkaError._UNSUPPORTED_FEATURE):
            raise _unknown(group) from error
        raise
    if not {START, ISOLATION, LOCK, LIMIT} <= entries.keys():
        raise _unknown(group)
    explicit = ConfigSource.GROUP_CONFIG.value
    return {key: Found(str(entry.value), entry.source == explicit) for key, entry in entries.items()}


def _unknown(group: str) -> FatalError:
    return FatalError(
        f"Kafka: the broker knows no {LIMIT} of group {group}: delivery.mode queue needs share groups, which are in "
        "Apache Kafka 4.3 and later"
    )


def _write(admin: AdminClient, group: str, missing: Mapping[str, str]) -> None:
    entries = [ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in missing.items()]
    resource = ConfigResource(ResourceType.GROUP, group, incremental_configs=entries)
    asked = admin.incremental_alter_configs([resource], request_timeout=ASK_WITHIN_S)
    try:
        for answer in asked.values():
            answer.result()
    except KafkaException as error:
        told: Any = error.args[0]
        if told.code() in _DENIED:
            settings = ",".join(f"{key}={value}" for key, value in missing.items())
            raise FatalError(
                f"Kafka: the settings of group {group} may not be changed; grant AlterConfigs on the group {group} to "
                f"this principal, or set them: kafka-configs.sh --alter --entity-type groups --entity-name {group} "
                f"--add-config {settings}"
            ) from error
        if told.code() in (KafkaError.INVALID_CONFIG, KafkaError.INVALID_REQUEST):
            raise FatalError(
                f"Kafka: the broker refuses the settings of group {group}: {told.str()}; change delivery.queue, or the "
                "broker's group.share.* bounds"
            ) from error
        raise
