"""`forebay-local`: a broker, models and the demo on one machine, without Docker."""

import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from forebay_local import models as local_models
from forebay_local.broker import Broker
from forebay_local.java import BrokerError
from forebay_local.topics import create_topics
from forebay_producer import ForebayError

app: Final = typer.Typer(no_args_is_help=True, add_completion=False, help="Forebay on one machine, without Docker.")


@app.command()
def broker(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 picks a free one.")] = 9092,
    data: Annotated[Path | None, typer.Option(help="Folder for the logs; a temporary one by default.")] = None,
    topic: Annotated[list[str] | None, typer.Option(help="Topic to create, as name or name:partitions.")] = None,
) -> None:
    """Run a real Apache Kafka until Ctrl-C or SIGTERM."""
    wanted = dict(_partitions(entry) for entry in topic or ())
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with Broker(port=port or None, data=data) as running:
            if wanted:
                create_topics(running.bootstrap_servers, wanted)
            made = f" with {', '.join(wanted)}" if wanted else ""
            typer.echo(f"Apache Kafka answers on {running.bootstrap_servers}{made}; Ctrl-C stops it", color=False)
            stop.wait()
    except BrokerError as error:
        typer.echo(f"forebay-local: {error}", err=True)
        raise typer.Exit(1) from None


def _partitions(entry: str) -> tuple[str, int]:
    name, _, count = entry.partition(":")
    if not count:
        return name, 1
    if not count.isdigit() or not int(count):
        raise typer.BadParameter(f"{entry!r}: expected name:partitions, as in inference.requests:4")
    return name, int(count)


@app.command()
def demo() -> None:
    """Start a broker and a worker per model, send a burst of texts and images, show the answers, and end."""
    from forebay_local.demo import DemoError, run

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)  # unwinds, so that every process that was started is ended
    try:
        run(Console(width=None if sys.stdout.isatty() else 120))
    except (BrokerError, DemoError, ForebayError) as error:
        typer.echo(f"forebay-local: {error}", err=True)
        raise typer.Exit(1) from None


def _interrupt(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


@app.command()
def worker(
    name: Annotated[str, typer.Argument(help="Which model: embeddings, sentiment, digits.")],
    servers: Annotated[
        str, typer.Option("--bootstrap-servers", "-b", help="host:port of a broker.")
    ] = "localhost:9092",
    requests: Annotated[str, typer.Option(help="Topic of requests.")] = "inference.requests",
    replies: Annotated[str, typer.Option(help="Topic of replies.")] = "inference.replies",
) -> None:
    """Serve one of the small models: `forebay-consumer run` with the settings that fit."""
    if name not in local_models.NAMES:
        raise typer.BadParameter(f"{name!r} is unknown; there are {', '.join(local_models.NAMES)}")
    settings = {
        "kafka.bootstrap.servers": servers,
        "kafka.group.id": f"forebay-{name}",
        "topics.requests": f"[{requests}]",
        "topics.replies": f"[{replies}]",
        "model.name": name,
        "model.task": local_models.TASKS[name],
        "model.path": local_models.build(name),
    }
    flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    os.execv(sys.executable, [sys.executable, "-m", "forebay_consumer", "run", *flags])


@app.command()
def models(
    names: Annotated[list[str] | None, typer.Argument(help="embeddings, sentiment, digits; all by default.")] = None,
    into: Annotated[Path | None, typer.Option(help="Copy the folders here, each under its name.")] = None,
) -> None:
    """Make the small models, and print where each is and how good it is on examples it never saw."""
    for name in names or local_models.NAMES:
        if name not in local_models.NAMES:
            raise typer.BadParameter(f"{name!r} is unknown; there are {', '.join(local_models.NAMES)}")
        folder = local_models.build(name)
        known = local_models.about(folder)
        if into is not None:
            ours = not into.exists()
            shutil.copytree(folder, into / name, dirs_exist_ok=True)
            if ours:
                into.chmod(0o755)  # a container's user reads it, too
            folder = into / name
        note = f"accuracy {known['accuracy']:.3f} on {known['held_out']} held-out" if "accuracy" in known else ""
        typer.echo(f"{name:<11} {folder}  {note}")
