"""The page of all settings, made from the settings themselves."""

from collections.abc import Mapping, Sequence

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo

from forebay_consumer import config, kafka_settings
from forebay_consumer.intake import group, share
from forebay_consumer.intake.group import prefetch
from forebay_consumer.sources import part_of
from forebay_consumer.window import Rules


def settings_page() -> str:
    """Markdown: a table per part, a row per key with default and description."""
    lines = [
        "# Configuration",
        "",
        "Made by `forebay-consumer config reference`. One YAML file; environment variables over it, as in",
        "`FOREBAY_BATCHING__LINGER_MS=5` or `FOREBAY_KAFKA__BOOTSTRAP_SERVERS=host:9092` (for `kafka` an underscore",
        "stands for a dot); `--set batching.linger_ms=5` over both. A variable that is no setting is an error.",
        "A default of none is written `null`, in the file and after `--set`; lists and mappings are JSON in variables:",
        "`FOREBAY_TOPICS__REQUESTS='[\"inference.requests\"]'`, and so is none:",
        "`FOREBAY_LIMITS='{\"forward_timeout_ms\": null}'`. `[]` behind a key marks a list, as in",
        "`instance_group: [{count: 2}]`.",
        "",
        "## kafka",
        "",
        "Passed to librdkafka as it is; `bootstrap.servers` and `group.id` are needed. In variables and flags a value",
        "is text as it is, neither JSON nor YAML. Two things are ours:",
        "",
        "- `.file` after a key of `sasl.` or `ssl.` (`sasl.password.file: /run/secrets/password`): the value is what",
        "  the file holds, without one newline at its end. It is read at the start, and shown nowhere.",
        "- `oauth_cb: module:function`: gets OAuth tokens, see [security.md](security.md).",
        "",
        "Refused, each with its reason:",
        "",
        *_listed(config.REFUSED),
        "",
        "Of these only some values are allowed:",
        "",
        *(f"- `{key}`: {_either(values)}; {reason}" for key, (values, reason) in config.ALLOWED.items()),
        f"- `isolation.level` with `delivery.mode: exactly-once`: `read_committed`; {config.COMMITTED_ONLY}",
        "",
        "With `delivery.mode: queue` also `delivery.start: fail` and `limits.max_backlog` are refused, and of `kafka`:",
        "",
        *_listed(config.REFUSED_BY_QUEUE),
        "",
        *_own_defaults(),
    ]
    for name, field in config.WorkerSettings.model_fields.items():
        part = field.annotation
        if isinstance(part, type) and issubclass(part, BaseModel):
            lines += ["", f"## {name}", "", part.__doc__ or "", "", "| key | default | meaning |", "|---|---|---|"]
            lines += _rows(part, "")
    return "\n".join(lines) + "\n"


def _listed(reasons: Mapping[str, str]) -> list[str]:
    return [f"- `{key}`: {reason}" for key, reason in reasons.items()]


def _either(values: Sequence[str]) -> str:
    return " or ".join(f"`{value}`" for value in values)


def _own_defaults() -> list[str]:
    """What a worker tells librdkafka that nobody has set."""
    budget = config.LimitsSettings().max_bytes_in_flight
    rows, consumers = Rules().max_rows, config.QueueSettings().consumers
    clients = {
        "consumer": {**prefetch(budget), **group.DEFAULTS},
        "consumer of a `classic` group": group.CLASSIC,
        "consumer with `mode: queue`": {**share.poll_bounds(rows, budget // consumers), **share.DEFAULTS},
        "producer": kafka_settings.PRODUCER,
        "producer with `mode: exactly-once`": kafka_settings.TRANSACTIONAL,
    }
    return [
        "Where you do not set them, a worker has these values in place of librdkafka's defaults:",
        "",
        "| key | value | of the |",
        "|---|---|---|",
        *(
            f"| `{key}` | `{str(value).lower() if isinstance(value, bool) else value}` | {client} |"
            for client, values in clients.items()
            for key, value in values.items()
            if key not in config.REFUSED
        ),
        "",
        "`queued.max.messages.kbytes` is half of `limits.max_bytes_in_flight`, within "
        f"{group.MIN_QUEUED_KBYTES} and {group.MAX_QUEUED_KBYTES},",
        f"and `max.partition.fetch.bytes` a 256th of it, within {group.MIN_FETCH_BYTES} and {group.MAX_FETCH_BYTES}; "
        f"the table has them for {budget >> 20} MiB.",
        f"`max.poll.records` is `batching.max_batch_size`, {Rules().max_rows} where that is not given, and "
        "`fetch.max.bytes` the share of that",
        "budget for each of `delivery.queue.consumers`.",
        "With exactly-once `delivery.timeout.ms` is left to the client, which takes the transaction's.",
        "",
        "When a worker is killed, others take over its partitions `session.timeout.ms`, "
        f"{group.CLASSIC['session.timeout.ms'] // 1000} s, after its last heartbeat;",
        "with `group.protocol: consumer` it is the broker's `group.consumer.session.timeout.ms`, 45 s unless set",
        "there. One that is told to end leaves the group, and nobody waits. What else holds with",
        "exactly-once and in a queue: [delivery.md](delivery.md).",
    ]


def _rows(part: type[BaseModel], prefix: str) -> list[str]:
    rows = []
    for name, field in part.model_fields.items():
        shown = prefix + name.rstrip("_")
        inner = part_of(field)
        if inner is None:
            rows.append(f"| `{shown}` | {_default(field)} | {field.description}{_aliases(field, name)} |")
        else:
            rows += _rows(inner, f"{shown}{'' if inner is field.annotation else '[]'}.")
    return rows


def _aliases(field: FieldInfo, name: str) -> str:
    if not isinstance(field.validation_alias, AliasChoices):
        return ""
    others = [alias for alias in field.validation_alias.choices if alias not in (name, name.rstrip("_"))]
    return f" Also: {', '.join(f'`{alias}`' for alias in others)}." if others else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default()
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{list(value) if isinstance(value, tuple) else value}`"
