"""docs/performance.md. Pure: a run's figures in, Markdown out."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from bench.report.found import Found, is_limit, mode_of, number, shown

TITLES: Final[Mapping[tuple[str, str], str]] = {
    ("T1", "float32"): "Texts of mixed length (T1)",
    ("T1", "bfloat16"): "The same texts in bfloat16",
    ("T2", "float32"): "Pictures (T2)",
    ("T3", "float32"): "Small requests (T3)",
}
QUESTIONS: Final[Mapping[str, str]] = {
    "lengths": "Five mixes of length, a backlog of each; ratio: throughput by one at a time",
    "idle": "One request in flight; ratio: p50 by the bare forward pass's",
    "lag": "T3, so many waiting, of which as many as the shortest has are measured; ratio: CPU by that of the shortest",
    "memory": "Memory: a worker with a backlog and its model alone in a process, and how much more it needs",
    "workers": "T1, three quarters of a backlog, one worker and two in turns; ratio: throughput by one worker's",
}
FIGURES: Final[Mapping[str, str]] = {
    "per_s": "requests/s",
    "ratio": "ratio",
    "cpu_ms": "CPU ms a request",
    "p50_ms": "p50 ms",
    "p95_ms": "p95 ms",
    "p99_ms": "p99 ms",
    "peak_mb": "peak MB",
    "above_mb": "MB above",
}
NONE: Final[Mapping[str, str]] = MappingProxyType({})


def page(runs: Sequence[Mapping[str, Any]], experiments: Mapping[str, str], others: Mapping[str, str] = NONE) -> str:
    """Markdown of runs, of which no two measured the same.

    Args:
        experiments: a title for each.
        others: pages like this one, of other machines, and where they are.
    """
    found = Found([row for run in runs for row in run["rows"]])
    parts = [*_head(runs, others)]
    for (load, dtype), title in TITLES.items():
        if found.contenders(load, dtype):
            parts += [f"## {title}\n", f"![{title}](performance/{load}-{dtype}.svg)\n", *_load(found, load, dtype)]
    asked = [name for name in QUESTIONS if found.of("question", name)]
    if asked:
        parts.append("## Single questions\n")
    for name in asked:
        parts += [
            f"**{QUESTIONS[name]}.**\n",
            _table(["", *FIGURES.values()], found.cases("question", name, list(FIGURES))),
        ]
    parts += list(_experiments(found, experiments))
    if missing := found.missing():
        parts += ["## Not measured\n", _table(["contender", "load", "why"], [list(each) for each in missing])]
    return "\n".join(parts)


def measured(run: Mapping[str, Any]) -> list[str]:
    """What a run measured: loads, questions and experiments by their names."""
    found = Found(run["rows"])
    loads = [f"{load} {dtype}" for load, dtype in TITLES if found.contenders(load, dtype)]
    questions = [f"question {name}" for name in QUESTIONS if found.of("question", name)]
    experiments = dict.fromkeys(f"experiment {row['experiment']}" for row in run["rows"] if "experiment" in row)
    return [*loads, *questions, *experiments]


def _head(runs: Sequence[Mapping[str, Any]], others: Mapping[str, str]) -> Iterator[str]:
    yield "# Performance\n"
    yield _paragraph("Made by `make bench` and `make bench-experiments`, each table in one run:")
    yield _table(["measured", "on", "machine", "repeats", "length of loops", "minutes"], [_told(run) for run in runs])
    yield _paragraph(
        "A cell is the median, with the least and the most of the repeats. "
        "Every contender runs the same model with one torch thread on one core, batches of at most 32 (pictures: 8, "
        "small requests: 256) and a window of 5 ms, Forebay, of T1 and T2, with the sizes that its own profile finds; "
        "driver and broker, which is warm, or Redis, run on another core. Each run's requests are all answered, "
        "and a sample of the answers is compared with the model's own. *Closed 64* keeps 64 requests in flight; a "
        "*backlog* waits in the topic before the contender is let go. CPU is that of the contender's processes, "
        "without the broker; *share of the limit* is the CPU of the best loop in one process, by the contender's. "
        "Contenders asked by HTTP lose what they hold when they die. No GPU was measured. How to run it: "
        "[bench/README.md](../bench/README.md)."
    )
    if others:
        told = ", ".join(f"[{name}]({where})" for name, where in others.items())
        yield _paragraph(f"Other machines: {told}.")


def _told(run: Mapping[str, Any]) -> list[str]:
    machine = run["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    what = [name for name in measured(run) if not name.startswith("experiment")]
    experiments = [name for name in measured(run) if name.startswith("experiment")]
    what += [f"{len(experiments)} experiments"] if len(experiments) > 2 else experiments
    return [
        ", ".join(what),
        run["began"].split()[0],
        f"{machine['cores']} cores of {machine['processor']}, {machine['memory_gb']} GB, Python {machine['python']}, "
        + versions,
        _repeats(run),
        "full" if run["scale"] == 1 else f"{run['scale']:g} of it",
        f"{run['minutes']:.0f}",
    ]


def _repeats(run: Mapping[str, Any]) -> str:
    """As many as there are rows of, for a run may be broken off."""
    made = len({row["repeat"] for row in run["rows"] if "repeat" in row}) or run["repeats"]
    told = f"{made}" if made == run["repeats"] else f"{made} of {run['repeats']} planned"
    return told if made == 1 else f"{told}, interleaved"


def _paragraph(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False) + "\n"


def _load(found: Found, load: str, dtype: str) -> Iterator[str]:
    limit = found.limit(load, dtype)
    header = ["", "closed 64, requests/s", "p50 ms", "p95 ms", "p99 ms", "CPU ms a request", "share of the limit"]
    header += ["backlog, requests/s", "its share of the limit", "peak MB"]
    lines = []
    for peer in found.contenders(load, dtype):

        def cell(mode: str, figure: str, peer: str = peer) -> str:
            return shown(found.spread(load, dtype, peer, mode, figure))

        name = f"**{peer}**" if peer in ("Forebay", limit) else peer
        if is_limit(peer):
            mode = mode_of(peer)
            rate, share = cell(mode, "per_s"), shown(found.share(load, dtype, peer, mode))
            if mode == "loop":
                lines.append([name, rate, "", "", "", cell(mode, "cpu_ms"), share, "", "", ""])
            else:
                lines.append([name, "", "", "", "", cell(mode, "cpu_ms"), "", rate, share, ""])
            continue
        closed = [cell("closed 64", figure) for figure in ("per_s", "p50_ms", "p95_ms", "p99_ms", "cpu_ms")]
        shares = [shown(found.share(load, dtype, peer, mode)) for mode in ("closed 64", "backlog")]
        lines.append([name, *closed, shares[0], cell("backlog", "per_s"), shares[1], _peak(found, load, dtype, peer)])
    yield _table(header, lines)
    few = list(_few_in_flight(found, load, dtype))
    if few:
        yield "**Fewer in flight**, and how far the slowest wait beyond their share.\n"
        header = ["", "closed 1, p50 / p99 ms", "closed 16, requests/s", "closed 16, p50 / p99 ms"]
        yield _table([*header, "closed 64, p99 in units of 64 / throughput"], few)


def _few_in_flight(found: Found, load: str, dtype: str) -> Iterator[list[str]]:
    for peer in found.contenders(load, dtype):
        alone = found.spread(load, dtype, peer, "closed 1", "p50_ms")
        if alone is None:
            continue

        def pair(mode: str, peer: str = peer) -> str:
            spreads = [found.spread(load, dtype, peer, mode, figure) for figure in ("p50_ms", "p99_ms")]
            return " / ".join(number(spread.median) for spread in spreads if spread)

        rate = shown(found.spread(load, dtype, peer, "closed 16", "per_s"))
        yield [peer, pair("closed 1"), rate, pair("closed 16"), shown(found.stretch(load, dtype, peer, 64))]


def _peak(found: Found, load: str, dtype: str, peer: str) -> str:
    modes = ("closed 64", "backlog")
    peaks = [spread.most for mode in modes if (spread := found.spread(load, dtype, peer, mode, "peak_mb"))]
    return number(max(peaks)) if peaks else ""


def _experiments(found: Found, titles: Mapping[str, str]) -> Iterator[str]:
    known = [name for name in titles if found.of("experiment", name)]
    if known:
        yield "## Experiments of five write-ups\n"
    for name in known:
        rows = found.of("experiment", name)
        hidden = ("experiment", "case", "failed", "repeat")
        figures = list(dict.fromkeys(key for row in rows for key in row if key not in hidden))
        yield f"**{titles[name]}** ({name})\n"
        header = ["", *[FIGURES.get(figure, figure.replace("_", " ")) for figure in figures]]
        yield _table(header, found.cases("experiment", name, figures))


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    used = [
        place for place in range(len(header)) if place == 0 or any(line[place] for line in lines if len(line) > place)
    ]

    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells[place] if place < len(cells) else "" for place in used) + " |"

    return "\n".join([row(header), "|" + "---|" * len(used), *map(row, lines)]) + "\n"
