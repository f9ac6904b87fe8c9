"""Profiles that are kept: a small JSON file beside the model, so that a restart need not measure again."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import structlog

from forebay_consumer.profile import Sizes


class Profiles:
    """The profiles of one model by what they depend on. Whatever is wrong with the file, it is measured again.

    Args:
        file: None keeps nothing.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._log = structlog.get_logger()

    def find(self, key: str) -> Sizes | None:
        kept: Any = self._read().get(key)
        try:
            found = Sizes(kept["max_rows"], kept["max_cost"])
        except (KeyError, TypeError):  # None above all: there is none
            return None
        return found if _counts(found.max_rows) and (found.max_cost is None or _counts(found.max_cost)) else None

    def keep(self, key: str, sizes: Sizes) -> None:
        """Write it beside those of other keys; a folder that cannot be written to is told once, and changes nothing."""
        if self._file is None:
            return
        kept = {**self._read(), key: {"max_rows": sizes.max_rows, "max_cost": sizes.max_cost}}
        written = self._file.with_name(f"{self._file.name}.{socket.gethostname()}.{os.getpid()}")
        try:
            written.write_text(json.dumps(kept, indent=1), "utf-8")
            written.replace(self._file)  # workers that start at once see one whole file or another
        except OSError as error:
            self._log.info("profile not kept", action="profile_not_kept", file=str(self._file), error=error.strerror)

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._file.read_text("utf-8")) if self._file is not None else {}
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


def _counts(value: Any) -> bool:
    return type(value) is int and value >= 1
