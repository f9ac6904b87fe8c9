"""`forebay-producer`: ask a question, submit files.

Exit codes: 0 all answered · 1 some failed · 2 usage, settings or no broker.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from forebay_producer.bulk import Request, submit_all
from forebay_producer.client import Client
from forebay_producer.config import load
from forebay_producer.errors import ForebayError, RequestFailed
from forebay_schemas import Result

app: Final = typer.Typer(no_args_is_help=True, add_completion=False, help="Send requests to Forebay workers.")

IMAGE_SUFFIXES: Final = frozenset([".jpg", ".jpeg", ".png", ".webp", ".bmp"])
PLAIN_LINE_EVERY_S: Final = 2.0

Servers = Annotated[str | None, typer.Option("--bootstrap-servers", "-b", help="host:port of a broker.")]
Requests = Annotated[str | None, typer.Option("--requests", help="Topic that requests go to.")]
Replies = Annotated[str | None, typer.Option("--replies", help="Topic that answers come on.")]
Timeout = Annotated[float | None, typer.Option("--timeout", help="Seconds to wait for each answer.")]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="The client's YAML file.")]
Kafka = Annotated[list[str] | None, typer.Option("--set", "-s", help="kafka.key=value, as in kafka.linger.ms=5.")]


@contextmanager
def _client(
    servers: str | None, requests: str | None, replies: str | None, timeout: float | None,
    config: Path | None, kafka: list[str] | None,
) -> Iterator[Client]:  # fmt: skip
    given: dict[str, Any] = {"requests": requests, "replies": replies, "timeout_s": timeout}
    given = {name: value for name, value in given.items() if value is not None}
    keys: dict[str, str] = {}
    for override in kafka or ():
        name, separator, value = override.partition("=")
        if not (separator and name.startswith("kafka.")):
            raise typer.BadParameter(f"--set {override}: expected kafka.key=value")
        keys[name.removeprefix("kafka.").replace(".", "_")] = value
    if servers is not None:
        keys["bootstrap_servers"] = servers
    if keys:
        given["kafka"] = keys
    try:
        with Client(load(config, **given)) as client:
            yield client
    except ForebayError as error:
        typer.echo(f"forebay-producer: {error}", err=True)
        raise typer.Exit(2) from None


@app.command()
def ask(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; each is one request.")] = None,
    image: Annotated[list[Path] | None, typer.Option("--image", help="An image file; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line per answer.")] = False,
    servers: Servers = None,
    requests: Requests = None,
    replies: Replies = None,
    timeout: Timeout = None,
    config: Config = None,
    kafka: Kafka = None,
) -> None:
    """Ask, wait, and print one line per answer, in the order of the questions."""
    questions = [Request(text, text) for text in texts or ()]
    questions += [Request(_read(file), str(file)) for file in image or ()]
    if not questions:
        raise typer.BadParameter("give at least one text or --image")
    failed = False
    with _client(servers, requests, replies, timeout, config, kafka) as client:
        futures = [(question, client.submit(question.value)) for question in questions]
        for question, future in futures:
            outcome: Result | ForebayError
            try:
                outcome = future.result()
            except ForebayError as error:
                outcome, failed = error, True
            if as_json:
                typer.echo(_json_line(question, outcome))
            else:
                typer.echo(f"{_shorten(question.source, 48):<48}  {_readable(outcome)}")
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
    for name in files:
        if name != "-" and not Path(name).is_file():
            raise typer.BadParameter(f"no file at {name}")
    failed = 0
    with _client(servers, requests, replies, timeout, config, kafka) as client, _progress() as show:
        for request, outcome in submit_all(client, show.counting(_requests(files)), in_flight):
            failed += isinstance(outcome, ForebayError)
            typer.echo(_json_line(request, outcome))
            show.answered(isinstance(outcome, ForebayError))
    raise typer.Exit(int(failed > 0))


def _requests(files: Iterable[str]) -> Iterator[Request]:
    for name in files:
        if Path(name).suffix.lower() in IMAGE_SUFFIXES:
            yield Request(_read(Path(name)), name)
            continue
        with sys.stdin if name == "-" else Path(name).open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if text := line.strip():
                    yield _line(text, f"{name}:{number}", jsonl=Path(name).suffix.lower() == ".jsonl")


def _line(text: str, source: str, *, jsonl: bool) -> Request:
    """A JSON object is a request body, a JSON string a text; any other line is a text as it stands."""
    if jsonl or text.startswith("{"):
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            value = text  # the worker's answer says what is wrong with it, and no other line suffers
        if isinstance(value, dict | str):
            id_ = value.get("id") if isinstance(value, dict) else None
            return Request(value, source, {"request_id": id_} if isinstance(id_, str) and id_ else {})
    return Request(text, source)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}") from None


def _json_line(request: Request, outcome: Result | ForebayError) -> str:
    line: dict[str, Any] = {"source": request.source}
    if isinstance(outcome, Result):
        line |= {"id": outcome.id, "outputs": outcome.outputs}
    elif isinstance(outcome, RequestFailed):
        line |= {"id": outcome.failure.id, "error": {"code": outcome.code, "message": outcome.message}}
    else:
        line |= {"error": {"code": type(outcome).__name__, "message": str(outcome)}}
    return orjson.dumps(line).decode()


def _readable(outcome: Result | ForebayError) -> str:
    if not isinstance(outcome, Result):
        return f"error  {outcome}"
    return " | ".join(_readable_row(row) for row in outcome.outputs)


def _readable_row(row: Any) -> str:
    if isinstance(row, dict) and {"label", "score"} <= row.keys():
        return f"{row['label']}  {row['score']:.4f}"
    if isinstance(row, list) and row and isinstance(row[0], float):
        return (
            f"[{', '.join(f'{value:.4f}' for value in row[:4])}{', ...' if len(row) > 4 else ''}]  {len(row)} numbers"
        )
    return _shorten(orjson.dumps(row).decode(), 160)


def _shorten(text: str, width: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else f"{text[: width - 1]}…"


class _Shown:
    """Counts what was sent, answered and failed; a bar on a terminal, a plain line now and then elsewhere."""

    def __init__(self, bar: Progress | None) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=0, failed=0, rate=0.0) if bar else None
        self._started = self._told = time.monotonic()
        self.sent = self.done = self.failed = 0

    def counting(self, requests: Iterable[Request]) -> Iterator[Request]:
        for request in requests:
            self.sent += 1
            yield request

    def answered(self, failed: bool) -> None:
        self.done += 1
        self.failed += failed
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.done, total=self.sent, failed=self.failed, rate=self.rate)
        elif time.monotonic() - self._told > PLAIN_LINE_EVERY_S:
            self.tell()

    def tell(self) -> None:
        self._told = time.monotonic()
        counts = f"{self.sent} sent, {self.done} answered, {self.failed} failed, {self.rate:.0f}/s"
        print(counts, file=sys.stderr, flush=True)

    @property
    def rate(self) -> float:
        return self.done / max(1e-9, time.monotonic() - self._started)


@contextmanager
def _progress() -> Iterator[_Shown]:
    console = Console(stderr=True)
    if not console.is_terminal:
        shown = _Shown(None)
        yield shown
        shown.tell()
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]} failed  {task.fields[rate]:.0f}/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        yield _Shown(bar)
