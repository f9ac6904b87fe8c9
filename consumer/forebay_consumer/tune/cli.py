"""`forebay-consumer tune`: what batch size, cost, linger, precision and threads suit a model and its requests.

Exit codes: 0 done · 1 the model, the requests or the broker cannot be had · 2 bad configuration or usage.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import orjson
import typer
from rich.console import Console

from forebay_consumer.clock import monotonic
from forebay_consumer.config import LoggingSettings, WorkerSettings, load
from forebay_consumer.errors import BadConfig, FatalError
from forebay_consumer.logs import configure
from forebay_consumer.tune import linger, show
from forebay_consumer.tune.recorded import Prepare, from_file, from_topics, prepare, prepare_samples
from forebay_consumer.tune.sweep import Sweep
from forebay_consumer.window import Rules

MOST_ROWS: Final = 1024
PLAIN_WIDTH: Final = 120

ConfigFile = Annotated[Path | None, typer.Option("--config", "-c", help="The worker's YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", "-s", help="part.key=value over file and environment, as for run.")
]
Requests = Annotated[
    Path | None, typer.Option("--requests", help="Requests to measure with: one JSON body or plain text a line.")
]
TopicSample = Annotated[
    int | None,
    typer.Option("--topic-sample", min=1, help="Measure with the last N requests of each partition; commits nothing."),
]
Dtypes = Annotated[
    str | None, typer.Option("--dtypes", metavar="A,B", help="Precisions to try, as float32,bfloat16,fast.")
]
Threads = Annotated[str | None, typer.Option("--threads", metavar="M,N", help="Numbers of torch's threads to try.")]
Seconds = Annotated[float, typer.Option("--seconds", min=1, help="Time for the passes, loading aside.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Write the YAML to this file, too.")]
AsJson = Annotated[bool, typer.Option("--json", help="Everything as one JSON object.")]


def tune(
    file: ConfigFile = None,
    overrides: Overrides = None,
    requests: Requests = None,
    topic_sample: TopicSample = None,
    dtypes: Dtypes = None,
    threads: Threads = None,
    seconds: Seconds = 60,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Find the batch size, cost, linger, precision and threads that suit the model and its requests."""
    configure(LoggingSettings(level="error"))  # standard output is for what was found
    try:
        if requests is not None and topic_sample is not None:
            raise BadConfig("--requests and --topic-sample are both given; give one of them")
        if out is not None and not out.absolute().parent.is_dir():
            raise BadConfig(f"--out {out}: there is no such folder")  # said before a minute of measuring
        settings = load(file, overrides or ())
        if threads is not None and settings.model.options.get("compile"):
            raise BadConfig(
                "--threads with model.options.compile=true: kernels are made for one number of threads; say it as "
                "model.options.threads, and run tune for each"
            )
        sys.path.insert(0, str(Path.cwd()))  # `module:Class` beside the configuration, as for run
        source, prepared = _source(settings, requests, topic_sample)
        chosen = _words(dtypes), _counts(threads)
        with Console(stderr=True).status("loading") as status:
            report = _report(settings, source, prepared, *chosen, seconds, status.update)
        _print(report, as_json)
        if out is not None:
            _write(out, show.as_yaml(report))
    except BadConfig as error:
        typer.echo(f"forebay-consumer: {error}", err=True)
        raise typer.Exit(2) from None
    except FatalError as error:
        typer.echo(f"forebay-consumer: {error}", err=True)
        raise typer.Exit(1) from None


def _print(report: show.Report, as_json: bool) -> None:
    if report.refused:
        typer.echo(f"forebay-consumer: {report.refused} requests left out; the first: {report.refusal}", err=True)
    if report.found.cut:
        typer.echo("forebay-consumer: the time was over before all was tried; more --seconds may find better", err=True)
    if as_json:
        typer.echo(orjson.dumps(show.as_json(report), option=orjson.OPT_INDENT_2).decode())
        return
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, PLAIN_WIDTH)  # a file has no edge at which lines must break
    console.print(show.sweep_table(report.found), "", show.linger_table(report), "")
    typer.echo(show.as_yaml(report), nl=False)


def _source(settings: WorkerSettings, requests: Path | None, topic_sample: int | None) -> tuple[str, Prepare]:
    """Where the requests are from, and how a loaded model prepares them; a file or topic is read now."""
    if requests is not None:
        raw = from_file(requests)
    elif topic_sample is not None:
        raw = from_topics(settings.kafka, settings.topics.requests, topic_sample)
    else:
        from forebay_consumer.build import warmup_rows

        return "samples", lambda model: prepare_samples(warmup_rows(settings.model.warmup, model), model)
    name = requests.name if requests is not None else "recorded"
    return name, lambda model: prepare(raw, model, settings, _most(settings, model.max_batch_size))


def _most(settings: WorkerSettings, of_model: int | None) -> int:
    """Rows that a batch may have at all; `limits.max_in_flight` refuses more."""
    return min([MOST_ROWS, *(most for most in (of_model, settings.limits.max_in_flight) if most is not None)])


def _report(
    settings: WorkerSettings,
    source: str,
    prepared: Prepare,
    dtypes: list[str],
    threads: list[int],
    seconds: float,
    told: Callable[[str], None],
) -> show.Report:
    from forebay_consumer.build import placements
    from forebay_consumer.tune.loaded import Loaded
    from forebay_consumer.tune.loaded import load as load_model

    candidates = load_model(settings.model, dtypes, threads, prepared)
    most = _most(settings, candidates[0].model.max_batch_size)
    lookahead = settings.batching.lookahead
    found = Sweep(candidates, most, lookahead, seconds, monotonic, time.process_time, told).run()
    best = found.best
    chosen = best.candidate
    assert isinstance(chosen, Loaded)
    told("linger")
    of_chosen = [cell for cell in found.cells if cell.measured and cell.candidate is chosen]
    pass_s = linger.interpolated([time_ for cell in of_chosen for time_ in cell.times])
    rules = Rules(max_rows=best.max_rows, max_cost=best.max_cost, lookahead=lookahead)
    waits = linger.compare(chosen.items, rules, chosen.packs, best.formed, pass_s, settings.batching.linger_ms)
    policy = linger.choose(waits)
    own = chosen.prepared
    return show.Report(
        device=placements(settings.model, type(chosen.model))[0],
        precision=chosen.model.precision,
        packing=chosen.model.packing,
        requests=len(own.items),
        source=source,
        refused=own.refused,
        refusal=own.refusal,
        preprocess_ms_per_request=1000 * own.preprocess_s / (len(own.items) + own.refused),
        found=found,
        capacity_per_s=linger.capacity(best.formed, pass_s),
        waits=waits,
        policy=policy,
        settings=show.settings_of(best, policy, settings.batching),
    )


def _words(text: str | None) -> list[str]:
    return [] if text is None else list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _counts(text: str | None) -> list[int]:
    words = _words(text)
    for word in words:
        if not (word.isascii() and word.isdigit() and 1 <= int(word) <= 1024):
            raise BadConfig(f"--threads {text}: {word!r} is no number of threads; allowed are 1 to 1024, as in 1,2")
    return [int(word) for word in words]


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        raise BadConfig(f"--out {file}: {error.strerror}") from error
