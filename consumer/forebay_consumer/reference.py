"""The page of all settings, made from the settings themselves."""

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo

from forebay_consumer import config
from forebay_consumer.sources import part_of


def settings_page() -> str:
    """Markdown: a table per part, a row per key with default and description."""
    lines = [
        "# Configuration",
        "",
        "Made by `forebay-consumer config reference`. One YAML file; environment variables over it, as in",
        "`FOREBAY_BATCHING__LINGER_MS=5` or `FOREBAY_KAFKA__BOOTSTRAP_SERVERS=host:9092` (for `kafka` an underscore",
        "stands for a dot); `--set batching.linger_ms=5` over both. A variable that is no setting is an error.",
        "A default of none is written `null`, in the file and after `--set`; lists and mappings are JSON in variables:",
        "`FOREBAY_TOPICS__REQUESTS='[\"inference.requests\"]'`. `[]` behind a key marks a list, as in",
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
        *(f"- `{key}`: {reason}" for key, reason in config.REFUSED.items()),
    ]
    for name, field in config.WorkerSettings.model_fields.items():
        part = field.annotation
        if isinstance(part, type) and issubclass(part, BaseModel):
            lines += ["", f"## {name}", "", part.__doc__ or "", "", "| key | default | meaning |", "|---|---|---|"]
            lines += _rows(part, "")
    return "\n".join(lines) + "\n"


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
    return f"`{list(value) if isinstance(value, tuple) else value}`"
