"""`forebay-consumer dlq`: dead letters listed, shown and put back.

Exit codes: 0 done · 1 no broker, or not all could be put back · 2 bad configuration or usage.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from forebay_consumer.clock import wall
from forebay_consumer.config import LetterSettings, LoggingSettings, load_for_letters
from forebay_consumer.dlq import show as shown
from forebay_consumer.dlq.bounds import At, Wanted, parse_at
from forebay_consumer.dlq.letters import Letter, read_letter
from forebay_consumer.dlq.redrive import Redrive, Sender, Where
from forebay_consumer.dlq.topic import DeadLetterTopic, Span
from forebay_consumer.errors import BadConfig, FatalError
from forebay_consumer.logs import configure
from forebay_schemas import Code
from forebay_schemas.headers import DEADLINE_MS

PAGE: Final = 50  # rows of a table; the next page has its own widths

dlq_app: Final = typer.Typer(no_args_is_help=True, help="List, show and put back dead letters.")


def _place(text: str) -> At:
    try:
        return parse_at(text, round(wall() * 1000))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


ConfigFile = Annotated[Path | None, typer.Option("--config", "-c", help="The worker's YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", "-s", help="part.key=value over file and environment, as for run.")
]
Codes = Annotated[list[Code] | None, typer.Option("--code", help="Only letters of this code; may be repeated.")]
Partition = Annotated[int | None, typer.Option("--partition", min=0, help="Only this partition.")]
Since = Annotated[
    At | None,
    typer.Option(
        parser=_place, metavar="WHERE", help="From an offset (17), a time ago (2h) or a time (2026-11-21T08:00, UTC)."
    ),
]
Until = Annotated[At | None, typer.Option(parser=_place, metavar="WHERE", help="Up to, but without; as --since.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many.")]
Group = Annotated[
    str | None, typer.Option("--group", help="The group that notes what was put back; none: <group.id>.dlq-redrive.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON line per letter.")]


@dlq_app.command("list")
def list_letters(
    file: ConfigFile = None,
    overrides: Overrides = None,
    code: Codes = None,
    partition: Partition = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    group: Group = None,
    as_json: AsJson = False,
) -> None:
    """List the letters that are in the topic now, oldest first in each partition.

    A table on a terminal, JSON lines elsewhere.
    """
    settings = _load(file, overrides, group)
    wanted = Wanted(frozenset(code or ()), partition, since, until, limit)
    console = Console()
    rows: list[dict[str, object]] = []
    with _told(), _topic(settings, group) as topic:
        for line in _lines(topic, wanted):
            if as_json or not console.is_terminal:
                print(shown.json_line(line))
                continue
            rows.append(line)
            if len(rows) == PAGE:
                console.print(shown.table(rows))
                rows.clear()
    if rows:
        console.print(shown.table(rows))


@dlq_app.command("show")
def show_letter(
    partition: Annotated[int, typer.Argument(min=0, help="Partition of the dead-letter topic.")],
    offset: Annotated[int, typer.Argument(min=0, help="Offset in it.")],
    file: ConfigFile = None,
    overrides: Overrides = None,
    group: Group = None,
    raw: Annotated[bool, typer.Option("--raw", help="Write the bytes of the value, and nothing else.")] = False,
) -> None:
    """Show one letter: why it is here, its headers, its value."""
    settings = _load(file, overrides, group)
    with _told(), _topic(settings, group) as topic:
        held = topic.span(_known(topic, partition))
        entry = (
            next(topic.read(partition, Span(offset, min(offset + 1, held.end))), None) if offset >= held.low else None
        )
        if entry is None:
            raise FatalError(f"no letter {partition}:{offset}; the partition holds {held.low} to before {held.end}")
        letter = read_letter(entry)
        if raw:
            sys.stdout.buffer.write(entry.value or b"")
            return
        redriven = letter is not None and topic.progress(partition).holds(letter.kind, offset)
        for line in shown.page(entry, letter, redriven):
            print(line)


@dlq_app.command("redrive")
def redrive(
    file: ConfigFile = None,
    overrides: Overrides = None,
    code: Codes = None,
    partition: Partition = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    group: Group = None,
    to: Annotated[str | None, typer.Option("--to", help="Topic to put all into; none: each into its own.")] = None,
    drop_deadline: Annotated[
        bool, typer.Option("--drop-deadline", help="Leave out deadline-ms; a past one would expire again.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be put back.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put letters back as requests, each once, under their first ids; ends where the topic ended at the start."""
    settings = _load(file, overrides, group)
    _check_target(settings, to)
    wanted = Wanted(frozenset(code or ()), partition, since, until, limit)
    sources = None if to is not None else frozenset(settings.topics.requests)

    def moved(letter: Letter, where: Where) -> None:
        print((shown.moved_json if as_json else shown.moved_line)(letter, where), flush=True)

    with _told(), _topic(settings, group) as topic, Sender(settings.kafka, to, topic.partitions) as sender:
        if partition is not None:
            _known(topic, partition)
        if not dry_run and (warning := topic.forgetful()) is not None:
            typer.echo(f"forebay-consumer: warning: {warning}", err=True)
        run = Redrive(topic, sender, wanted, sources, (DEADLINE_MS,) if drop_deadline else (), moved)
        try:
            run.dry_run() if dry_run else run.run()
        finally:
            typer.echo(shown.summary(run.tally, "would be put back" if dry_run else "put back"), err=True)


def _lines(topic: DeadLetterTopic, wanted: Wanted) -> Iterator[dict[str, object]]:
    left = wanted.limit
    for partition in topic.partitions() if wanted.partition is None else [_known(topic, wanted.partition)]:
        low, end = topic.span(partition)
        progress = topic.progress(partition)
        for entry in topic.read(partition, Span(topic.start(partition, wanted.since, low), wanted.stop(end))):
            letter = read_letter(entry)
            if not (wanted.spans(entry) if letter is None and not wanted.codes else letter and wanted.takes(letter)):
                continue
            yield shown.plain(entry, letter, letter is not None and progress.holds(letter.kind, entry.offset))
            if left is not None:
                left -= 1
                if left == 0:
                    return


def _known(topic: DeadLetterTopic, partition: int) -> int:
    if partition not in (known := topic.partitions()):
        raise FatalError(f"{topic.name} has no partition {partition}; it has {known[0]} to {known[-1]}")
    return partition


def _load(file: Path | None, overrides: list[str] | None, group: str | None) -> LetterSettings:
    try:
        settings = load_for_letters(file, overrides or ())
        if settings.topics.dead_letters is None:
            raise BadConfig("topics.dead_letters is not set: this worker keeps no dead letters")
        if group == settings.kafka["group.id"]:
            raise BadConfig(f"--group {group}: the workers' own group notes what is answered, not what is put back")
    except BadConfig as error:
        typer.echo(f"forebay-consumer: {error}", err=True)
        raise typer.Exit(2) from None
    return settings


def _check_target(settings: LetterSettings, to: str | None) -> None:
    if to is None:
        return
    topics = settings.topics
    if to == topics.dead_letters or to in topics.replies or to.startswith("__"):
        raise typer.BadParameter(f"{to!r} is no topic of requests", param_hint="--to")


def _topic(settings: LetterSettings, group: str | None) -> DeadLetterTopic:
    assert settings.topics.dead_letters is not None
    own = f"{settings.kafka['group.id']}.dlq-redrive"
    return DeadLetterTopic(settings.kafka, settings.topics.dead_letters, group or own)


@contextmanager
def _told() -> Iterator[None]:
    """An error in one line, and the exit code for it."""
    configure(LoggingSettings(level="error"))  # what goes wrong is said in one line; standard output is for letters
    sys.path.insert(0, str(Path.cwd()))  # kafka.oauth_cb beside the configuration, as for run
    try:
        yield
    except FatalError as error:
        typer.echo(f"forebay-consumer: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, BadConfig) else 1) from None
