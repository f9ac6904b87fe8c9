"""Where settings come from, each source in one spelling, so that a higher one replaces what a lower one says."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource

from forebay_consumer.errors import BadConfig

PREFIX: Final = "FOREBAY_"
CLIENTS: Final = frozenset({"requests", "replies", "timeout_s", "max_in_flight"})
"""Settings of a client that a worker is not told by; one environment may serve both."""

# Kubernetes and Docker describe a service named `forebay-…` in every container's environment.
_SERVICE_LINK: Final = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")


def flatten_kafka(value: Any) -> Any:
    """Accept `bootstrap.servers`, `bootstrap_servers` (from the environment) and nested mappings alike.

    No key of librdkafka has an underscore; of the Python client's own only `oauth_cb` is understood.
    """
    if not isinstance(value, Mapping):
        return value
    flat: dict[str, Any] = {}
    for key, entry in value.items():
        name = str(key).replace("_", ".").lower()
        if isinstance(entry, Mapping):
            flat.update({f"{name}.{rest}": nested for rest, nested in flatten_kafka(entry).items()})
        else:
            flat["oauth_cb" if name == "oauth.cb" else name] = entry
    return flat


def delivery_mode(value: Any) -> Any:
    """A word for `delivery` is its mode, and leaves the rest as it is."""
    return {"mode": value} if isinstance(value, str) else value


def one_spelling(settings: type[BaseSettings], given: Mapping[str, Any]) -> dict[str, Any]:
    """One source's settings: aliases under their main names, kafka keys dotted, the word for `delivery` a mapping.

    Raises:
        BadConfig: a setting is given under two of its names.
    """
    spelled = dict(given)
    for name, field in settings.model_fields.items():
        if name in spelled:
            spelled[name] = _SPELLED.get(name, lambda value: value)(spelled[name])
            if part := part_of(field):
                spelled[name] = _main_names(part, spelled[name], name)
    return spelled


_SPELLED: Final[Mapping[str, Callable[[Any], Any]]] = {"kafka": flatten_kafka, "delivery": delivery_mode}


def part_of(field: FieldInfo) -> type[BaseModel] | None:
    """The part that a field holds, alone or in a list."""
    for held in (field.annotation, *getattr(field.annotation, "__args__", ())):
        if isinstance(held, type) and issubclass(held, BaseModel):
            return held
    return None


def _main_names(part: type[BaseModel], given: Any, where: str) -> Any:
    if not isinstance(given, Mapping):
        return given
    spelled = dict(given)
    for name, field in part.model_fields.items():
        choices = field.validation_alias.choices if isinstance(field.validation_alias, AliasChoices) else [name]
        main, *others = map(str, choices)
        for other in others:
            if other in spelled:
                if main in spelled:
                    raise BadConfig(f"{where}: {main} and {other} are names of one setting; give one of them")
                spelled[main] = spelled.pop(other)
        if main in spelled and (inner := part_of(field)):
            spelled[main] = _main_names(inner, spelled[main], f"{where}.{main}")
    return spelled


class OneSpelling(PydanticBaseSettingsSource):
    """Another source, in one spelling."""

    def __init__(self, settings_cls: type[BaseSettings], source: PydanticBaseSettingsSource) -> None:
        super().__init__(settings_cls)
        self._source = source

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._source.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        return one_spelling(self.settings_cls, self._source())


class Environment(EnvSettingsSource):
    """Environment variables: JSON where a setting is a list or a mapping; a kafka value is text as it is."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        if field_name == "delivery" and re.fullmatch(r"[\w-]+", value):
            return value
        return super().decode_complex_value(field_name, field, value)

    def explode_env_vars(self, field_name: str, field: FieldInfo, env_vars: Mapping[str, str | None]) -> dict[str, Any]:
        """A password of digits must not become a number."""
        if field_name != "kafka":
            return super().explode_env_vars(field_name, field, env_vars)
        prefix = f"{PREFIX}KAFKA__".lower()
        return {
            name.removeprefix(prefix).replace("__", "."): value
            for name, value in env_vars.items()
            if name.startswith(prefix)
        }

    def prepare_field_value(self, field_name: str, field: FieldInfo, value: Any, value_is_complex: bool) -> Any:
        prepared = super().prepare_field_value(field_name, field, value, value_is_complex)
        if field_name == "delivery" and isinstance(prepared, str):
            return {**delivery_mode(prepared), **self.explode_env_vars(field_name, field, self.env_vars)}
        return prepared


def read_file(file: Path) -> dict[str, Any]:
    """The parts in a YAML file; an empty one has none.

    Raises:
        BadConfig: it cannot be read, is no YAML, or no mapping.
    """
    try:
        found = yaml.safe_load(file.read_text("utf-8"))
    except OSError as error:
        raise BadConfig(f"{file}: cannot be read: {error.strerror}") from error
    except Exception as error:  # of PyYAML also KeyError, AttributeError, ...
        raise BadConfig(f"{file}: not readable as YAML{_place(error)}") from None
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(part, str) for part in found):
        raise BadConfig(f"{file}: expected a mapping of parts, as in kafka: {{bootstrap.servers: host:9092}}")
    return found


def _place(error: Exception) -> str:
    """Where a file is no YAML; its text, which may be a secret, is not told, and is quoted by PyYAML."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f", line {mark.line + 1}, column {mark.column + 1}"
    if isinstance(error, yaml.YAMLError):
        return ": it holds a character that YAML does not allow"
    if isinstance(error, RecursionError):
        return ": it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return ": it is not UTF-8"
    return ": a date, a number, or what follows a !! in it is none"


def check_variables(names: Iterable[str], parts: Sequence[str]) -> None:
    """Refuse a misspelt variable: it would be ignored without a word.

    Raises:
        BadConfig: a `FOREBAY_…` variable is neither a worker's nor a client's.
    """
    for name in names:
        part = name.upper().removeprefix(PREFIX).partition("__")[0].lower()
        if not name.upper().startswith(PREFIX) or part in CLIENTS or part in parts or _is_service_link(name):
            continue
        meant = next((known for known in parts if part.startswith(f"{known}_")), None)
        hint = f"; two underscores follow the part: {PREFIX}{meant.upper()}__…" if meant else ""
        raise BadConfig(
            f"the environment: {name} is no variable of a worker{hint}; after {PREFIX} come "
            + ", ".join(known.upper() for known in parts)
        )


def _is_service_link(name: str) -> bool:
    address = name.endswith("_PORT") and "://" in os.environ.get(name, "")
    return address or re.search(rf"({_SERVICE_LINK.pattern})$", name) is not None


def parse_flags(settings: type[BaseSettings], flags: Sequence[str]) -> dict[str, Any]:
    """`part.key=value` of each flag, the later over the earlier; a value is YAML, of a kafka key the text as it is.

    Raises:
        BadConfig: a flag has another form. Its value is not told, it may be a secret.
    """
    merged: dict[str, Any] = {}
    for flag in flags:
        merged = _merge(merged, one_spelling(settings, _parse(flag)))
    return merged


def _parse(flag: str) -> dict[str, Any]:
    path, separator, text = flag.partition("=")
    steps = path.split(".")
    if not separator or not all(steps):
        raise BadConfig(f"--set {path}: expected part.key=value, as in batching.linger_ms=5")
    if steps[0] == "kafka" and len(steps) > 1:
        return {"kafka": {path.partition(".")[2]: text}}
    try:
        value = yaml.safe_load(text)
    except Exception as error:  # of PyYAML also KeyError, AttributeError, ...
        raise BadConfig(f"--set {path}: not readable as YAML{_place(error)}") from None
    for step in reversed(steps):
        value = {step: value}
    return dict(value)


def _merge(below: Any, above: Any) -> Any:
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    return {**below, **{key: _merge(below.get(key), value) for key, value in above.items()}}
