"""A client's settings: keyword arguments over environment variables (`FOREBAY_…`) over a YAML file.

A worker's variables share the prefix, so its parts are left alone in the environment; what is neither's is refused.
Secrets in files are named here and read by `credentials`.
"""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from forebay_producer.credentials import is_secret_file
from forebay_producer.errors import BadSettings

Kafka = dict[str, str | int | float | bool]

PREFIX: Final = "FOREBAY_"
WORKERS: Final = frozenset({"topics", "delivery", "batching", "model", "retry", "limits", "metrics", "logging"})
"""Parts of a worker's settings that a client is not told by; one environment may serve both."""

_TOPIC_NAME: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_SECRET: Final = re.compile(
    r"password|passphrase|secret|\.key\.pem|sasl\.jaas|sasl\.oauthbearer\.config|token", re.IGNORECASE
)
# Kubernetes and Docker describe a service named `forebay-…` in every container's environment.
_SERVICE_LINK: Final = re.compile(r"(_SERVICE_(HOST|PORT(_\w+)?)|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$")
_ALL: Final = ("all", "-1")
_SENT: Final = "a request counts as sent only when all in-sync replicas have it"
_NO_GROUP: Final = "a client reads all partitions of the reply topic and joins no group"
_BOUNDED: Final = "0 would wait for ever"

PROMISED: Final[Mapping[str, tuple[tuple[str, ...], str]]] = MappingProxyType(
    {
        "acks": (_ALL, _SENT),
        "request.required.acks": (_ALL, _SENT),  # librdkafka's other name for it
        "enable.idempotence": (("true",), "requests must not be repeated by the client's own retries"),
        "transactional.id": ((), "the client does not send in transactions"),
        "group.id": ((), _NO_GROUP),
        "group.instance.id": ((), _NO_GROUP),
        "enable.auto.commit": (("false",), "a client commits nothing"),
        "auto.offset.reset": (("earliest",), "an answer must not be jumped over when the log is truncated"),
        "isolation.level": (("read_committed",), "what a worker took back is no answer"),
        "enable.partition.eof": (("false",), "the end of a partition is no error"),
        "delivery.report.only.error": (("false",), "whether the broker has a request is what a timeout tells"),
    }
)
"""Keys that would break a promise: the values that keep it, and why."""


def _flatten(value: Any) -> Any:
    """Accept `bootstrap.servers`, `bootstrap_servers` (from the environment) and nested mappings alike.

    Environment variables cannot have dots in their names, and no key of librdkafka has an underscore; of the Python
    client's own only `oauth_cb` is understood.
    """
    if not isinstance(value, Mapping):
        return value
    flat: dict[str, Any] = {}
    for key, entry in value.items():
        name = str(key).replace("_", ".").lower()
        if isinstance(entry, Mapping):
            flat.update({f"{name}.{rest}": nested for rest, nested in _flatten(entry).items()})
        else:
            flat["oauth_cb" if name == "oauth.cb" else name] = entry
    return flat


def _check_credentials(kafka: Any) -> Any:
    """No value is told here: it may be the secret itself in the wrong place."""
    if not isinstance(kafka, Mapping):
        raise ValueError("expected a mapping of librdkafka's keys and values, as in {bootstrap.servers: host:9092}")
    for key, value in kafka.items():
        if not isinstance(value, str | int | float | bool) and not _SECRET.search(key):
            found = "nothing" if value is None else type(value).__name__
            raise ValueError(f"{key}: expected text, a number, true or false; got {found}")
        if _SECRET.search(key) and not isinstance(value, str):
            raise ValueError(f"{key} must be text; put it in quotes, since YAML reads 0123 as a number")
        if is_secret_file(key) and (plain := key.removesuffix(".file")) in kafka:
            raise ValueError(f"{plain} and {key} are both given; give one of them")
    return kafka


def _topic_name(name: str) -> str:
    if not _TOPIC_NAME.fullmatch(name) or name in (".", ".."):
        raise ValueError("no topic name; allowed are 1 to 249 of a-z A-Z 0-9 . _ -, but not . or ..")
    return name


def _keep_promises(kafka: Kafka) -> Kafka:
    for key, (allowed, reason) in PROMISED.items():
        if key in kafka and str(kafka[key]).lower() not in allowed:
            told = f"allowed is {' or '.join(allowed)}" if allowed else "it may not be set"
            raise ValueError(f"{key}={kafka[key]!r}: {told}; {reason}")
    for key in ("delivery.timeout.ms", "message.timeout.ms"):
        if str(kafka.get(key, "")).strip() == "0":
            raise ValueError(f"{key}={kafka[key]!r}: allowed is 1 or more; {_BOUNDED}")
    return {"bootstrap.servers": "localhost:9092", **kafka}


class ClientSettings(BaseSettings):
    """Everything a client needs to know; frozen, unknown keys refused."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="FOREBAY_", env_nested_delimiter="__")
    _in_file: ClassVar[Mapping[str, Any]] = {}

    kafka: Annotated[
        Kafka,
        BeforeValidator(lambda value: _check_credentials(_flatten(value))),
        AfterValidator(_keep_promises),
        Field(
            repr=False,  # it may hold a password
            description="Passed to librdkafka as it is: bootstrap.servers (default localhost:9092), security, …",
        ),
    ] = {"bootstrap.servers": "localhost:9092"}
    requests: Annotated[str, AfterValidator(_topic_name), Field(description="Topic that requests go to.")] = (
        "inference.requests"
    )
    replies: Annotated[
        str, AfterValidator(_topic_name), Field(description="Topic that answers come on; shared by many clients.")
    ] = "inference.replies"
    timeout_s: Annotated[
        float, Field(gt=0, le=86_400, description="Seconds to wait for an answer when the request names no other time.")
    ] = 30.0
    max_in_flight: Annotated[
        int,
        Field(ge=1, description="Most requests unanswered at a time; the next one waits. Lower: less memory."),
    ] = 100_000

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments (init) over the environment over the file."""
        del env_settings, dotenv_settings, file_secret_settings
        sources = [init_settings, _Environment(settings_cls), InitSettingsSource(settings_cls, dict(cls._in_file))]
        return tuple(_FlatKafka(settings_cls, source) for source in sources)


class _Environment(EnvSettingsSource):
    """Environment variables; a kafka value is text as it is: a password of digits must not become a number."""

    def explode_env_vars(self, field_name: str, field: FieldInfo, env_vars: Mapping[str, str | None]) -> dict[str, Any]:
        if field_name != "kafka":
            return super().explode_env_vars(field_name, field, env_vars)
        prefix = f"{PREFIX}KAFKA__".lower()
        return {
            name.removeprefix(prefix).replace("__", "."): value
            for name, value in env_vars.items()
            if name.startswith(prefix)
        }


def _check_variables(names: Iterable[str]) -> None:
    """Refuse a misspelt variable: it would be ignored without a word."""
    known = [*ClientSettings.model_fields, *WORKERS]
    for name in names:
        part, nested, _ = name.upper().removeprefix(PREFIX).partition("__")
        part = part.lower()
        misspelt = part not in known or (nested and part in ClientSettings.model_fields and part != "kafka")
        link = _SERVICE_LINK.search(name) or (name.endswith("_PORT") and "://" in os.environ.get(name, ""))
        if name.upper().startswith(PREFIX) and misspelt and not link:
            raise BadSettings(
                f"the environment: {name} is no variable of a client; there are "
                + ", ".join(
                    f"{PREFIX}{field.upper()}{'__…' if field == 'kafka' else ''}"
                    for field in ClientSettings.model_fields
                )
            )


class _FlatKafka(PydanticBaseSettingsSource):
    """Another source, its kafka keys written one way, so that the sources merge key by key."""

    def __init__(self, settings_cls: type[BaseSettings], source: PydanticBaseSettingsSource) -> None:
        super().__init__(settings_cls)
        self._source = source

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._source.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        found = self._source()
        return {**found, "kafka": _flatten(found["kafka"])} if "kafka" in found else found


def load(file: Path | str | None = None, **given: Any) -> ClientSettings:
    """Read and merge the settings.

    Raises:
        BadSettings: the file is missing or no YAML, a key or value is not allowed, or a variable is misspelt.
    """
    if file is not None and not Path(file).is_file():
        raise BadSettings(f"no configuration file at {file}")
    _check_variables(os.environ)
    in_file = {} if file is None else _read_file(Path(file))
    loader = type("Loaded", (ClientSettings,), {"_in_file": in_file, "__module__": __name__})
    try:
        settings = loader(**given)
    except ValidationError as error:
        raise BadSettings("; ".join(map(_told, error.errors()))) from None
    except SettingsError as error:
        raise BadSettings(f"the environment: {error}") from None
    assert isinstance(settings, ClientSettings)
    return settings


def _read_file(file: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(file.read_text("utf-8"))
    except OSError as error:
        raise BadSettings(f"{file}: cannot be read: {error.strerror}") from error
    except Exception as error:  # of PyYAML also KeyError, AttributeError, ...
        raise BadSettings(f"{file}: not readable as YAML{_place(error)}") from None
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise BadSettings(f"{file}: expected a mapping of settings, as in requests: inference.requests")
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


def _told(problem: Any) -> str:
    """Key, value and what is allowed; values under `kafka` may be secrets and are told only by our own checks."""
    where = ".".join(map(str, problem["loc"])) or "settings"
    if problem["type"] == "extra_forbidden":
        return f"{where}: no such setting; there are {', '.join(ClientSettings.model_fields)}"
    value = "" if where.startswith("kafka") else f"={problem['input']!r}"
    return f"{where}{value}: {problem['msg'].removeprefix('Value error, ')}"
