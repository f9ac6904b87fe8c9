"""What tests of delivery mode `queue` share."""

from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from support.pipeline import Pipeline
from support.worker import WorkerProcess

BATCH: Final = 8


def queue_settings(
    pipeline: Pipeline, *, pass_s: float = 0.0, queue: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    return pipeline.settings(
        delivery={"mode": "queue", "commit_interval_ms": 50, "queue": dict(queue or {})},
        batching={"max_batch_size": BATCH, "linger_ms": 5},
        model={"options": {"pass_s": pass_s}},
    )


def send_in_batches(pipeline: Pipeline, values: Mapping[str, str]) -> None:
    """Each batch of the producer holds no more than one of the worker's."""
    pairs = list(values.items())
    for start in range(0, len(pairs), BATCH):
        pipeline.send_all(pairs[start : start + BATCH], partition=0)


def told(worker: WorkerProcess, end: str, result: str = "accepted") -> float:
    """How many records' end a worker has told the group."""
    return worker.metric("forebay_acknowledged_total", end=end, result=result)


def set_group(bootstrap_servers: str, group: str, settings: Mapping[str, str]) -> None:
    """As an operator would."""
    admin: Any = AdminClient({"bootstrap.servers": bootstrap_servers})
    entries = [ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in settings.items()]
    resource = ConfigResource(ResourceType.GROUP, group, incremental_configs=entries)
    for answer in admin.incremental_alter_configs([resource]).values():
        answer.result()


def group_settings(bootstrap_servers: str, group: str) -> dict[str, str]:
    admin: Any = AdminClient({"bootstrap.servers": bootstrap_servers})
    (answer,) = admin.describe_configs([ConfigResource(ResourceType.GROUP, group)]).values()
    return {key: str(entry.value) for key, entry in answer.result().items()}
