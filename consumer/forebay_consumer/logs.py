"""Structured logs on standard error: console on a terminal, JSON elsewhere. Payloads and secrets never go in."""

import logging
import sys
import traceback
from typing import Any

import orjson
import structlog

from forebay_consumer.config import LoggingSettings


def configure(settings: LoggingSettings) -> None:
    """Set structlog up for the whole process, librdkafka's own lines included."""
    console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if console:
        # Not the default: where rich is installed, that one prints every frame's variables, passwords and rows too.
        plain = structlog.dev.plain_traceback
        last: list[structlog.typing.Processor] = [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
        ]
    else:
        last = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_as_json),
        ]
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(level, logging.WARNING), stream=sys.stderr, format="%(name)s: %(message)s")


def _as_json(event: Any, **_: Any) -> str:
    """Whatever a line holds, a name with a lone surrogate or an int of 100 digits: it must never end the worker."""
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        return orjson.dumps({_writable(key): _writable(value) for key, value in event.items()}).decode()


def _writable(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text.encode(errors="backslashreplace").decode()


def where_raised(error: BaseException | None) -> str:
    """The stack and kind of an error and of what caused it, for `exception=`; not its text, which may quote a request.

    For what a model raises on a request: `could not convert string to float: '…'` has the row in it.
    """
    told: list[str] = []
    while error is not None and len(told) < 5:
        told.append("".join(traceback.format_tb(error.__traceback__)) + type(error).__qualname__)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\ncaused by\n".join(told)


class ClientLog(logging.Handler):
    """Takes librdkafka's log lines into ours; give its logger to the client's `logger` argument."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        write = log.warning if record.levelno >= logging.WARNING else log.debug
        write("kafka client", action="client_log", text=record.getMessage())


def client_logger() -> logging.Logger:
    logger = logging.getLogger("forebay.kafka")
    if not logger.handlers:
        logger.addHandler(ClientLog())
        logger.propagate = False
        logger.setLevel(logging.INFO)
    return logger
