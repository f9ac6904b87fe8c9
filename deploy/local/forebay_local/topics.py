"""Create and delete topics, and know that it is so when the call returns."""

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

WITHIN_S: Final = 30.0


def create_topics(
    bootstrap_servers: str, partitions: Mapping[str, int], config: Mapping[str, str] | None = None
) -> None:
    """Create topics (name → partitions, one replica) and block until the broker leads every partition.

    Raises:
        KafkaException: one exists already or is refused.
        TimeoutError: a partition has no leader in time.
    """
    admin: Any = AdminClient({"bootstrap.servers": bootstrap_servers})
    wanted = [NewTopic(name, count, 1, config=dict(config or {})) for name, count in partitions.items()]
    for created in admin.create_topics(wanted).values():
        created.result(WITHIN_S)
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        known = admin.list_topics(timeout=WITHIN_S).topics
        if all(
            name in known and sum(p.leader >= 0 for p in known[name].partitions.values()) == count
            for name, count in partitions.items()
        ):
            return
    raise TimeoutError(f"topics without leaders after {WITHIN_S:.0f} s: {', '.join(partitions)}")


def delete_topics(bootstrap_servers: str, names: Iterable[str]) -> None:
    """Delete topics; one that is not there counts as deleted."""
    admin: Any = AdminClient({"bootstrap.servers": bootstrap_servers})
    for deleted in admin.delete_topics(list(names)).values():
        try:
            deleted.result(WITHIN_S)
        except KafkaException as error:
            if error.args[0].name() != "UNKNOWN_TOPIC_OR_PART":
                raise
