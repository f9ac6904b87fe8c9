"""Structured logs on standard error: console on a terminal, JSON elsewhere. Payloads and secrets never go in."""

import logging
import re
import sys
import threading
import traceback
from typing import Any, Final

import orjson
import structlog

from forebay_consumer.clock import Clock, monotonic
from forebay_consumer.config import LoggingSettings

AGAIN_AFTER_S: Final = 30.0
_MOST_KNOWN: Final = 1000
_OF_THE_CLIENT: Final = frozenset(["client_log", "kafka_error"])
_GROWS: Final = re.compile(r"\d+(?=ms\b| identical)")


def configure(settings: LoggingSettings) -> None:
    """Set structlog up for the whole process, librdkafka's own lines included."""
    console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        Seldom(),
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


class Seldom:
    """Lets what the Kafka client repeats be said once in `AGAIN_AFTER_S`, with how often it was left out (`omitted`).

    Of a broker that is away each connection tells some twenty times a second. Lines that differ in a time, or in how
    often the client itself left them out, are one.
    """

    def __init__(self, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[str, tuple[float, int]] = {}  # when last, and how often it was left out since

    def __call__(self, _logger: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if event.get("action") not in _OF_THE_CLIENT or method == "debug":
            return event
        key = _GROWS.sub("", f"{event['action']} {event.get('text')} {event.get('error')}")
        now = self._clock()
        with self._lock:
            said_s, omitted = self._said.get(key, (-AGAIN_AFTER_S, 0))
            again = now - said_s >= AGAIN_AFTER_S
            if len(self._said) >= _MOST_KNOWN:
                self._said.clear()
            self._said[key] = (now, 0) if again else (said_s, omitted + 1)
        if not again:
            raise structlog.DropEvent
        return {**event, "omitted": omitted} if omitted else event


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
        logger.setLevel(logging.DEBUG)  # it says so much only where `kafka.debug` asks for it
    return logger
