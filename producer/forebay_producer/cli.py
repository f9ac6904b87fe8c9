"""`forebay-producer`: ask a question, submit files.

Exit codes: 0 all answered · 1 some failed · 2 usage, settings or no broker.
"""

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from forebay_producer import sources
from forebay_producer.bulk import Request, outcome, submitted, tell_all
from forebay_producer.client import Client
from forebay_producer.config import load
from forebay_producer.errors import ForebayError
from forebay_producer.show import json_line, progress, readable_line
from forebay_schemas import Result

app: Final = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Send requests to Forebay workers. Exit codes: 0 all answered, 1 some failed, 2 usage or no broker.",
)

Servers = Annotated[str | None, typer.Option("--bootstrap-servers", "-b", help="host:port of a broker.")]
Requests = Annotated[str | None, typer.Option("--requests", help="Topic that requests go to.")]
Replies = Annotated[str | None, typer.Option("--replies", help="Topic that answers come on.")]
Timeout = Annotated[float | None, typer.Option("--timeout", help="Seconds to wait for each answer.")]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="The client's YAML file.")]
Kafka = Annotated[list[str] | None, typer.Option("--set", "-s", help="kafka.key=value, as in kafka.linger.ms=5.")]


@app.command()
def ask(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; each is one request.")] = None,
    image: Annotated[list[str] | None, typer.Option("--image", help="An image file; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line per answer.")] = False,
    servers: Servers = None,
    requests: Requests = None,
    replies: Replies = None,
    timeout: Timeout = None,
    config: Config = None,
    kafka: Kafka = None,
) -> None:
    """Ask, wait, and print one line per answer, in the order of the questions."""
    _check_files(image or ())
    questions = [Request(text, text) for text in texts or ()] + [sources.image(name) for name in image or ()]
    if not questions:
        raise typer.BadParameter("give at least one text or --image")
    failed = False
    with _client(servers, requests, replies, timeout, config, kafka) as client:
        futures = [submitted(client, question) for question in questions]
        for question, future in zip(questions, futures, strict=True):
            answer = outcome(future)
            failed = failed or isinstance(answer, ForebayError)
            typer.echo((json_line if as_json else readable_line)(question, answer))
    raise typer.Exit(int(failed))


@app.command()
def submit(
    files: Annotated[list[str], typer.Argument(help="JSONL, text (a request a line) or image files; - is stdin.")],
    in_flight: Annotated[int, typer.Option(min=1, help="Most requests unanswered at a time.")] = 1000,
    servers: Servers = None,
    requests: Requests = None,
    replies: Replies = None,
    timeout: Timeout = None,
    config: Config = None,
    kafka: Kafka = None,
) -> None:
    """Send files, write one JSON line per answer to standard output, and show progress on standard error."""
    _check_files(name for name in files if name != sources.STDIN)
    with (
        _client(servers, requests, replies, timeout, config, kafka) as client,
        progress(sources.count(files)) as shown,
    ):
        unread: list[OSError] = []

        def tell(request: Request, answer: Result | ForebayError) -> None:
            print(json_line(request, answer), flush=True)
            shown.add(answer)

        tell_all(client, shown.counting(_readable(files, unread)), in_flight, tell)
    for error in unread:
        typer.echo(f"forebay-producer: {error}; what comes after it was not read", err=True)
    raise typer.Exit(2 if unread else int(shown.failed > 0))


def _readable(files: Sequence[str], unread: list[OSError]) -> Iterator[Request]:
    """The requests up to the first file that cannot be read, why that is, and no end for those under way."""
    try:
        yield from sources.read(files)
    except OSError as error:
        unread.append(error)


def _check_files(names: Any) -> None:
    for name in names:
        if not Path(name).is_file():
            raise typer.BadParameter(f"no file at {name}")
        if not os.access(name, os.R_OK):
            raise typer.BadParameter(f"{name} may not be read")


@app.callback()
def _utf8() -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # JSON is, whatever the locale says, and an answer may be any text


@contextmanager
def _client(
    servers: str | None, requests: str | None, replies: str | None, timeout: float | None,
    config: Path | None, kafka: list[str] | None,
) -> Iterator[Client]:  # fmt: skip
    given: dict[str, Any] = {"requests": requests, "replies": replies, "timeout_s": timeout}
    given = {name: value for name, value in given.items() if value is not None}
    keys = dict(map(_override, kafka or ()))
    if servers is not None:
        keys["bootstrap.servers"] = servers
    if keys:
        given["kafka"] = keys
    sys.path.insert(0, str(Path.cwd()))  # kafka.oauth_cb beside the settings, as for a worker
    try:
        with Client(load(config, **given)) as client:
            yield client
    except ForebayError as error:
        typer.echo(f"forebay-producer: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None


def _override(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not (separator and name.startswith("kafka.")):
        raise typer.BadParameter(f"--set {text}: expected kafka.key=value")
    return name.removeprefix("kafka."), value
