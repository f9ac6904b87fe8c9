"""A client's settings: keyword arguments over environment variables (`FOREBAY_…`) over a YAML file."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    YamlConfigSettingsSource,
)

from forebay_producer.errors import BadSettings

_REFUSED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "acks": "a request counts as sent only when all in-sync replicas have it",
        "enable.idempotence": "requests must not be repeated by the client's own retries",
        "group.id": "a client reads all partitions of the reply topic and joins no group",
        "enable.auto.commit": "a client commits nothing",
        "transactional.id": "the client does not send in transactions",
    }
)


def _kafka(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    # Environment variables cannot have dots in their names, and no key of librdkafka has an underscore.
    flat = {str(key).replace("_", ".").lower(): entry for key, entry in value.items()}
    for key, reason in _REFUSED.items():
        if key in flat:
            raise ValueError(f"{key} may not be set: {reason}")
    return {"bootstrap.servers": "localhost:9092", **flat}


class ClientSettings(BaseSettings):
    """Everything a client needs to know; frozen, unknown keys refused."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="FOREBAY_CLIENT_", env_nested_delimiter="__"
    )
    _file: ClassVar[Path | None] = None

    kafka: Annotated[
        dict[str, str | int | float | bool],
        BeforeValidator(_kafka),
        Field(description="Passed to librdkafka as it is."),
    ] = {"bootstrap.servers": "localhost:9092"}
    requests: Annotated[str, Field(description="Topic that requests go to.")] = "inference.requests"
    replies: Annotated[str, Field(description="Topic that answers come on; shared by many clients.")] = (
        "inference.replies"
    )
    timeout_s: Annotated[float, Field(gt=0, description="Default time to wait for an answer.")] = 30.0

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
        del dotenv_settings, file_secret_settings
        sources = (init_settings, env_settings)
        return sources if cls._file is None else (*sources, YamlConfigSettingsSource(settings_cls, cls._file))


def load(file: Path | None = None, **given: Any) -> ClientSettings:
    """Read and merge the settings.

    Raises:
        BadSettings: the file is missing or no YAML, or a key or value is not allowed.
    """
    if file is not None and not file.is_file():
        raise BadSettings(f"no configuration file at {file}")
    loader = type("Loaded", (ClientSettings,), {"_file": file, "__module__": __name__})
    try:
        settings = loader(**given)
    except ValidationError as error:
        problems = (
            f"{'.'.join(map(str, problem['loc'])) or 'settings'}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors()
        )
        raise BadSettings("; ".join(problems)) from None
    except SettingsError as error:
        raise BadSettings(f"the environment: {error}") from None
    except Exception as error:  # PyYAML's own tree of errors, seen only through pydantic-settings
        raise BadSettings(f"{file}: not readable as YAML: {error}") from error
    assert isinstance(settings, ClientSettings)
    return settings
