"""`forebay-consumer`: run a worker, show and tune its settings, look after its dead letters.

Exit codes: 0 drained after SIGTERM or SIGINT · 1 something fatal, said on standard error · 2 bad configuration or
usage · 130 ended at once by a second signal.
"""

import os
import sys
import threading
from pathlib import Path
from typing import Annotated, Final

import orjson
import structlog
import typer

from forebay_consumer import config
from forebay_consumer.dlq.cli import dlq_app
from forebay_consumer.errors import BadConfig, FatalError
from forebay_consumer.logs import configure, where_raised
from forebay_consumer.shutdown import Shutdown, Signals
from forebay_consumer.tune.cli import tune

_HELP: Final = """The Forebay worker.

Exit codes: 0 done, or drained after SIGTERM or SIGINT; 1 something fatal, or limits.shutdown_ms was over; \
2 bad configuration or usage; 130 a second signal.
"""

# An error that nobody expected is told without its frames' variables: a password may be among them.
app: Final = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=_HELP)
config_app: Final = typer.Typer(no_args_is_help=True, help="Look at a worker's settings.")
app.add_typer(config_app, name="config")
app.add_typer(dlq_app, name="dlq")
app.command("tune")(tune)

ConfigFile = Annotated[Path | None, typer.Option("--config", "-c", help="The worker's YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="part.key=value over file and environment, as in batching.linger_ms=5."),
]


def _load(file: Path | None, overrides: list[str] | None) -> config.WorkerSettings:
    try:
        return config.load(file, overrides or ())
    except BadConfig as error:
        typer.echo(f"forebay-consumer: {error}", err=True)
        raise typer.Exit(2) from None


@app.command()
def run(file: ConfigFile = None, overrides: Overrides = None) -> None:
    """Serve a model: read requests, run them in batches, write replies, commit."""
    settings = _load(file, overrides)
    configure(settings.logging)
    log = structlog.get_logger()
    log.info("starting", action="starting", settings=settings.shown())
    sys.path.insert(0, str(Path.cwd()))  # `module:Class` beside the configuration, as with uvicorn
    shutdown = Shutdown(settings.limits.shutdown_ms / 1000)
    with Signals(shutdown):
        code = _serve(settings, shutdown)
    if code or _is_loading():
        # A hung pass may hold its thread for ever, and a load for minutes; nothing of value is left to clean up.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _is_loading() -> bool:
    """Whether an instance was left to itself: a thread inside torch must not meet the interpreter's end."""
    return any(thread.name.startswith("instance-") for thread in threading.enumerate())


def _serve(settings: config.WorkerSettings, shutdown: Shutdown) -> int:
    from forebay_consumer.build import build

    log = structlog.get_logger()
    try:
        worker = build(settings, shutdown)
        if not shutdown.asked:  # while torch was imported, say
            worker.serve()
    except BadConfig as error:
        typer.echo(f"forebay-consumer: {error}", err=True)
        return 2
    except FatalError as error:
        log.error("worker stopped", action="worker_failed", error=str(error))
        return 1
    except Exception as error:
        log.error(
            "worker stopped", action="worker_failed", exception=where_raised(error)
        )  # its words may be a request's
        return 1
    log.info("worker ended", action="worker_ended")
    return 0


@app.command("metrics")
def metrics() -> None:
    """Print the page of all metrics, as Markdown."""
    from forebay_consumer.metrics_page import metrics_page

    typer.echo(metrics_page(), nl=False)


@config_app.command("show")
def show(file: ConfigFile = None, overrides: Overrides = None) -> None:
    """Print the merged settings as JSON, secrets hidden."""
    typer.echo(orjson.dumps(_load(file, overrides).shown(), option=orjson.OPT_INDENT_2).decode())


@config_app.command("reference")
def reference() -> None:
    """Print the page of all settings, as Markdown."""
    from forebay_consumer.reference import settings_page

    typer.echo(settings_page(), nl=False)
