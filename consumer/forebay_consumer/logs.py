"""Structured logs on standard error: console on a terminal, JSON elsewhere. Payloads and secrets never go in."""

import logging
import sys

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
        last: list[structlog.typing.Processor] = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    else:
        last = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=lambda event, **_: orjson.dumps(event, default=str).decode()),
        ]
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(level, logging.WARNING), stream=sys.stderr, format="%(name)s: %(message)s")


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
