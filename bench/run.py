"""`make bench`: Forebay, the limits, and what a user would pick instead, interleaved in one run.

Every repeat measures each load with the limits and with each contender in turn, so that a busy neighbour hits all
alike; the limits before Forebay, after it and at the end, since a clock that wavers in between would else decide the
shares. The model's process is on core 0 with one torch thread; driver, broker and the like are on the last core. The
figures are written after each contender, so that an interrupted run still has a report.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from bench import criteria
from bench.load import LOADS
from bench.machine import NO_BFLOAT16, machine, machine_multiplies_bfloat16
from bench.peers.all import PEERS
from bench.session import RESULTS, Row, Session, Size

IN_FLIGHT: Final = (1, 16, 64)


class Log:
    """Says what is measured, and keeps what was found."""

    def __init__(self, out: Path, about: Row) -> None:
        self._out, self._about = out, about
        self._console, self._began = Console(), time.monotonic()

    def say(self, what: str) -> None:
        self._console.print(f"{self._minutes():6.1f} min  {what}", highlight=False, soft_wrap=True)

    def keep(self, rows: Sequence[Row]) -> None:
        self._out.parent.mkdir(parents=True, exist_ok=True)
        found = {"machine": machine(), **self._about, "minutes": self._minutes(), "rows": rows}
        self._out.write_text(json.dumps(found, indent=1))

    def end(self, rows: Sequence[Row]) -> None:
        self.keep(rows)
        for row in rows:
            if why := row.get("not_measured") or row.get("failed"):
                self.say(f"not measured: {row.get('peer', row.get('case'))} ({row.get('load', '')}): {why}")
        self.say(f"figures: {self._out}")

    def _minutes(self) -> float:
        return (time.monotonic() - self._began) / 60


def chosen(given: str, allowed: Sequence[str]) -> list[str]:
    names = [name for name in given.split(",") if name]
    if unknown := [name for name in names if name not in allowed]:
        raise typer.BadParameter(f"{', '.join(unknown)}: there are {', '.join(allowed)}")
    return names


def limits(session: Session, load: str, dtype: str, common: Row) -> None:
    session.rows += session.limits(load, dtype, common)
    if load == "T3":
        session.kafka_alone(PEERS["forebay"], common)


def main(
    peers: Annotated[str, typer.Option(help="which contenders, by comma")] = ",".join(PEERS),
    loads: Annotated[str, typer.Option(help="which loads, by comma")] = ",".join(LOADS),
    questions: Annotated[str, typer.Option(help="which single questions, by comma")] = ",".join(criteria.QUESTIONS),
    repeats: Annotated[int, typer.Option(help="how often all is measured, in turn")] = 3,
    scale: Annotated[float, typer.Option(help="less than 1: shorter loops, for a try")] = 1.0,
    bfloat16: Annotated[bool, typer.Option(help="T1 in bfloat16 too, where the CPU multiplies it")] = True,
    out: Annotated[Path, typer.Option(help="the figures")] = RESULTS / "full.json",
) -> None:
    """Measure; `python -m bench.report` makes the page and the plots of what was found."""
    names, wanted, asked = chosen(peers, list(PEERS)), chosen(loads, LOADS), chosen(questions, list(criteria.QUESTIONS))
    about: dict[str, Any] = {"began": time.strftime("%Y-%m-%d %H:%M"), "repeats": repeats, "scale": scale}
    log = Log(out, about)
    skipped = {name: why for name in names if (why := PEERS[name].not_here())}
    names = [name for name in names if name not in skipped]
    dtypes = ("float32", "bfloat16") if bfloat16 and machine_multiplies_bfloat16() else ("float32",)
    with Session(Size(scale)) as session:
        session.rows += [{"peer": PEERS[name].name, "not_measured": why} for name, why in skipped.items()]
        if bfloat16 and "bfloat16" not in dtypes:
            session.rows.append({"peer": "all, in bfloat16", "load": "T1", "not_measured": NO_BFLOAT16})
        for repeat in range(repeats):
            for load in wanted:
                for dtype in dtypes if load == "T1" else dtypes[:1]:
                    log.say(f"repeat {repeat + 1} of {repeats}: {load} {dtype}")
                    limits(session, load, dtype, {"repeat": repeat})
                    for name in names:
                        if not PEERS[name].takes(load, dtype):
                            continue
                        log.say(f"repeat {repeat + 1} of {repeats}: {load} {dtype}: {name}")
                        closed = IN_FLIGHT if dtype == "float32" else (64,)
                        session.measure(PEERS[name], load, dtype, closed, {"repeat": repeat})
                        if name == "forebay":
                            limits(session, load, dtype, {"repeat": repeat})
                        log.keep(session.rows)
                    if names and names[-1] != "forebay":
                        limits(session, load, dtype, {"repeat": repeat})
                        log.keep(session.rows)
            for name in asked:
                log.say(f"repeat {repeat + 1} of {repeats}: {name}")
                criteria.ask(session, name, {"repeat": repeat})
                log.keep(session.rows)
        log.end(session.rows)


if __name__ == "__main__":
    typer.run(main)
