"""What the `kafka` settings name but do not hold: secrets in files, and a function of the user's that gets tokens."""

import importlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from forebay_producer.errors import BadSettings

_log = logging.getLogger("forebay_producer")
CALLBACK: Final = "oauth_cb"
_SUFFIX: Final = ".file"
# librdkafka has keys of its own that end so; it reads those files itself.
_OWN: Final = frozenset(
    {
        "sasl.oauthbearer.assertion.file",
        "sasl.oauthbearer.assertion.jwt.template.file",
        "sasl.oauthbearer.assertion.private.key.file",
    }
)


def is_secret_file(key: str) -> bool:
    """Whether a key names a file that holds the value: `sasl.password.file`, `ssl.key.pem.file`.

    Only what starts with `sasl.` or `ssl.` may: what the client itself must know is never hidden in a file.
    """
    return key.startswith(("sasl.", "ssl.")) and key.endswith(_SUFFIX) and key not in _OWN


def with_credentials(kafka: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as the Kafka client takes them. Files are read at each call, so a new client sees a new secret.

    Raises:
        BadSettings: a file cannot be read, or there is no such function. No value is told.
    """
    given: dict[str, Any] = {}
    for key, value in kafka.items():
        if is_secret_file(key):
            given[key.removesuffix(_SUFFIX)] = _read(key, str(value))
        elif key == CALLBACK:
            given[key] = _callback(str(value))
        else:
            given[key] = value
    return given


def _read(key: str, path: str) -> str:
    try:
        secret = Path(path).read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise BadSettings(f"kafka.{key}={path!r}: cannot be read: {error.strerror}") from None
    except ValueError:  # not UTF-8, or a zero byte in the path; the error would tell bytes of the secret
        raise BadSettings(f"kafka.{key}={path!r}: cannot be read: it is no text in UTF-8") from None
    if not secret:
        raise BadSettings(f"kafka.{key}={path!r}: the file is empty")
    return secret


def _callback(path: str) -> Callable[[str], Any]:
    """The user's function; what goes wrong in it is told by us, since librdkafka says only that it raised."""
    function = _function(path)

    def token(config: str) -> Any:
        try:
            return _checked(function(config))
        except Exception as error:
            _log.error("no OAuth token from %s: %s: %s", path, type(error).__name__, error)
            raise

    return token


def _function(path: str) -> Callable[[str], Any]:
    where = f"kafka.{CALLBACK}={path!r}"
    module_name, _, name = path.partition(":")
    if not module_name or not name or module_name.startswith("."):
        raise BadSettings(f"{where}: expected module:function, as in my_tokens:fetch")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise BadSettings(f"{where}: no module named {error.name!r} in this folder or on the Python path") from error
    except Exception as error:  # the user's code; the cause keeps its traceback
        raise BadSettings(f"{where}: importing {module_name} failed: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise BadSettings(f"{where}: module {module_name} has no function {name}")
    return function  # type: ignore[no-any-return]


def _checked(answer: Any) -> Any:
    if isinstance(answer, tuple) and len(answer) > 1:
        token, expiry = answer[:2]
        if isinstance(token, str) and isinstance(expiry, int | float):
            return answer
    raise TypeError("expected the tuple (token, expiry in seconds since the epoch)")
