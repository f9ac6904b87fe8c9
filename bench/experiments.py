"""`make bench-experiments`: what five public write-ups of batching measured, measured here, each as a small
table.

The numbers are those of docs/acceptance.md. Sizes are cut where a source used a GPU; rows that need one say so.
"""

import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final

import orjson
import typer
from rich.console import Console
from rich.table import Table

from bench.drive.kafka import READY_WITHIN_S, KafkaDriver
from bench.drive.sample import NotAnswered, Plan, Work
from bench.load import mixed, rows_of
from bench.peers.base import Peer, started
from bench.peers.forebay import Forebay
from bench.report.found import Found
from bench.report.page import FIGURES
from bench.run import Log, chosen
from bench.session import RESULTS, Row, Session, Size, child

NO_GPU: Final = "not measured (no GPU)"
_ANY: Final = (None,)


class Rows(Forebay):
    """Forebay, asked for several rows in each request."""

    def body(self, request_id: str, row: Any) -> bytes:
        return orjson.dumps({"id": request_id, "inputs": row})


def by_pass(_: Session) -> Iterator[Row]:
    """000.1: 64 single predictions against one batch of 64."""
    for load in ("T1:all short", "T1:log-normal", "T2", "T3"):
        seconds = child("bench.limits", "passes", load, "float32", "64", "1,64")
        singles, batch = 1000 * seconds["1"], 1000 * seconds["64"]
        yield {"case": load, "64 x 1, ms": singles, "1 x 64, ms": batch, "singles / batch": singles / batch}


def ten_in_one(_: Session) -> Iterator[Row]:
    """004.1: a batch of ten costs two or three times a batch of one."""
    for load in ("T1:all short", "T1:all long", "T2", "T3"):
        seconds = child("bench.limits", "passes", load, "float32", "10", "1,10")
        yield {"case": load, "t(1), ms": 100 * seconds["1"], "t(10), ms": 1000 * seconds["10"],
               "t(10) / t(1)": 10 * seconds["10"] / seconds["1"]}  # fmt: skip


def batching_or_not(session: Session) -> Iterator[Row]:
    """001.14: batching is not always better."""
    for load, count in (("T1", 256), ("T2", 192), ("T3", 20_000)):
        for size in (1, 32):
            batching = {"max_batch_size": size, "max_batch_cost": None}
            with session.asked(Forebay(batching=batching), session.work(load, "float32")) as (driver, tree):
                driver.closed(Plan(16, 16))
                found = session.closed(driver, tree, Plan(64, session.size.of(count), 30))
            yield {"case": f"{load}, max_batch_size {size}", **kept(found)}


def instances(session: Session) -> Iterator[Row]:
    """002.5, 002.7: 20 clients, 25 requests of 64 texts (4 texts 16 times), 1 to 3 copies of the model."""
    rows = [mixed("log-normal", 4, seed=3) * 16]
    for count in (1, 2, 3):
        peer = Rows(model={"instance_group": [{"count": count, "devices": ["cpu"]}]}, batching=unbounded(64))
        with session.asked(peer, Work("T1", "float32", rows, {}), cores=_ANY) as (driver, tree):
            driver.closed(Plan(1, 1))  # what was asked while the models loaded is answered by then
            found = session.closed(driver, tree, Plan(20, 25, 300, 120))
        yield {"case": f"CPU, {count} in a worker", "rows/s": 64 * found["per_s"], **kept(found)}
    for gpus in (1, 2, 3):
        yield {"case": f"{gpus} GPU, 1 to 3 on each", "rows/s": NO_GPU}


def workers(_: Session) -> Iterator[Row]:
    """002.6, 003.9: time falls in proportion to the devices."""
    yield {"case": 'two CPU workers: `make bench BENCH="--questions workers"`', "requests/s": ""}
    yield {"case": "1, 2, 3 GPU", "requests/s": NO_GPU}


def warmed(session: Session) -> Iterator[Row]:
    """002.10: the first requests with and without a warm-up."""
    for count in (0, 1):
        peer = Forebay(model={"warmup": {"count": count, "batch_sizes": [1, 8]}})
        with serving(session, peer, session.work("T1:all short", "float32", 32)) as driver:
            first = driver.closed(Plan(1, 1)).latencies_s[0]
            rest = driver.closed(Plan(1, 20)).latencies_s
        mean = sum([first, *rest]) / (len(rest) + 1)
        yield {
            "case": "with warm-up" if count else "without",
            "first request, ms": 1000 * first,
            "mean of the first 21, ms": 1000 * mean,
        }
    yield {"case": "1, 2, 3 GPU", "first request, ms": NO_GPU}


def lingers(session: Session) -> Iterator[Row]:
    """002.13: a longer linger makes larger batches, and waits."""
    for linger in (0, 1, 20, 200):
        rules = {"linger_ms": linger, "adaptive_linger": False, "max_batch_size": 64}
        peer = Forebay(batching=rules, logging={"level": "debug"})
        with session.asked(peer, session.work("T3", "float32")) as (driver, tree):
            found = session.closed(driver, tree, Plan(32, session.size.of(2_000), 5))
            yield {"case": f"linger {linger} ms", "rows a batch": mean_batch(driver), **kept(found)}


def client_batches(session: Session) -> Iterator[Row]:
    """002.20, 002.21: 64 clients, batches made by clients of 1 to 16, with and without batching on the server."""
    texts = mixed("all short", 64)
    for rows in (1, 2, 4, 8, 16):
        per_item = {}
        for what, batching in (("off", {"max_batch_size": rows}), ("on", {"max_batch_size": 64})):
            peer = Rows(batching={**unbounded(64), **batching, "linger_ms": 20})
            grouped = [texts[start : start + rows] for start in range(0, 64 - rows + 1, rows)]
            with session.asked(peer, Work("T1", "float32", grouped, {})) as (driver, tree):
                driver.closed(Plan(16, 16))
                found = session.closed(driver, tree, Plan(64, session.size.of(500), 60))
            per_item[what] = 1000 / (found["per_s"] * rows)
        yield {
            "case": f"{rows} rows a request", "server off, ms a row": per_item["off"],
            "server on, ms a row": per_item["on"], "off / on": per_item["off"] / per_item["on"],
        }  # fmt: skip


def copies(session: Session) -> Iterator[Row]:
    """003.7: more copies of the model on one device add nothing."""
    for count in (1, 2, 4):
        peer = Forebay(model={"instance_group": [{"count": count, "devices": ["cpu"]}]})
        with session.asked(peer, session.work("T1", "float32")) as (driver, tree):
            driver.closed(Plan(16, 16))
            found = session.closed(driver, tree, Plan(64, session.size.of(256), 60))
        yield {"case": f"{count} on one core", **kept(found)}
    yield {"case": "1 to 4 on one GPU", "per_s": NO_GPU}


def decoders(session: Session) -> Iterator[Row]:
    """003.8: where decoding is slow, more threads for it help, up to the cores."""
    from bench.pictures import save

    work = Work("T2", "float32", large_pictures(24), {})
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder))
        model = {"path": folder}
        for threads in (1, 2, 4):
            peer = Forebay(limits={"preprocess_threads": threads}, model=model, batching={"max_batch_size": 8})
            with session.asked(peer, work, cores=_ANY) as (driver, tree):
                driver.closed(Plan(8, 16))
                found = session.closed(driver, tree, Plan(32, session.size.of(256), 60))
            yield {"case": f"{threads} threads", **kept(found)}


def micro_batches(_: Session) -> Iterator[Row]:
    """003.10: micro-batches within a pass."""
    yield {"case": "micro_batch_size", "requests/s": "not built: preprocess, forward and replies overlap already"}


def clients(session: Session) -> Iterator[Row]:
    """004.10: 10, 15, 20, 30 clients with 50 queries each, without batching and with it."""
    work = session.work("T1:all short", "float32", 64)
    each = session.size.of(50)
    for what, size in (("one at a time", 1), ("batches of 32", 32)):
        seconds = {}
        with session.asked(Forebay(batching={"max_batch_size": size}), work) as (driver, tree):
            driver.closed(Plan(16, 16))
            for count in (10, 15, 20, 30):
                found = session.closed(driver, tree, Plan(count, count * each, 300))
                seconds[count] = found["count"] / found["per_s"]
        told = {f"{count} clients, s": spent for count, spent in seconds.items()}
        yield {"case": what, **told, "T(30) / T(10)": seconds[30] / seconds[10]}


def unbounded(rows: int) -> dict[str, Any]:
    """Batching by number of rows alone, as the sources have it."""
    return {"max_batch_size": rows, "max_batch_cost": None}


def kept(found: Row) -> Row:
    return {name: found[name] for name in ("per_s", "cpu_ms", "p50_ms", "p99_ms")}


def mean_batch(driver: Any) -> float:
    """Rows in a forward pass, in the mean of what the worker's log tells."""
    lines = (Path(driver.job.folder) / "log.txt").read_text().splitlines()
    sizes = [json.loads(line)["rows"] for line in lines if '"action":"batch_done"' in line]
    return float(sum(sizes) / len(sizes)) if sizes else 0.0


def large_pictures(count: int) -> Sequence[bytes]:
    """Photographs' sizes: they cost far more to decode and scale than a small model to classify."""
    from PIL import Image

    made = []
    for picture in rows_of("T2", count):
        file = io.BytesIO()
        with Image.open(io.BytesIO(picture)) as small:
            small.resize((4000, 3000)).save(file, "JPEG", quality=85)
        made.append(file.getvalue())
    return made


@contextmanager
def serving(session: Session, peer: Peer, work: Work) -> Iterator[KafkaDriver]:
    """The driver of a worker that has its partitions and was asked nothing yet."""
    with session.job(work.load, work.dtype) as job, KafkaDriver(peer, job, work) as driver, started(peer, job):
        log, deadline = Path(job.folder) / "log.txt", time.monotonic() + READY_WITHIN_S
        while '"action":"assigned"' not in log.read_text():
            if time.monotonic() > deadline:
                raise NotAnswered(f"not ready within {READY_WITHIN_S:.0f} s")
            time.sleep(0.1)
        yield driver


EXPERIMENTS: Final[Mapping[str, Callable[[Session], Iterator[Row]]]] = MappingProxyType(
    {
        "000.1": by_pass,
        "001.14": batching_or_not,
        "002.5": instances,
        "002.6": workers,
        "002.10": warmed,
        "002.13": lingers,
        "002.20": client_batches,
        "003.7": copies,
        "003.8": decoders,
        "003.10": micro_batches,
        "004.1": ten_in_one,
        "004.10": clients,
    }
)
TITLES: Final = {
    name: told[:1].upper() + told[1:]
    for name, told in ((name, (run.__doc__ or "").partition(": ")[2]) for name, run in EXPERIMENTS.items())
}


def main(
    only: Annotated[str, typer.Option(help="which, by comma")] = ",".join(EXPERIMENTS),
    scale: Annotated[float, typer.Option(help="less than 1: shorter loops, for a try")] = 1.0,
    out: Annotated[Path, typer.Option(help="the figures")] = RESULTS / "experiments.json",
) -> None:
    """Run the experiments once and print their tables."""
    console = Console()
    log = Log(out, {"began": time.strftime("%Y-%m-%d %H:%M"), "repeats": 1, "scale": scale})
    with Session(Size(scale)) as session:
        for name in chosen(only, list(EXPERIMENTS)):
            log.say(f"{name}: {TITLES[name]}")
            try:
                for row in EXPERIMENTS[name](session):
                    session.rows.append({"experiment": name, **row})
            except NotAnswered as error:
                session.rows.append({"experiment": name, "case": name, "failed": str(error)})
            show(console, Found(session.rows), name)
            log.keep(session.rows)
        log.end(session.rows)


def show(console: Console, found: Found, name: str) -> None:
    rows = found.of("experiment", name)
    figures = list(dict.fromkeys(key for row in rows for key in row if key not in ("experiment", "case", "failed")))
    table = Table(title=f"{name}: {TITLES[name]}", title_justify="left")
    for column in ("", *[FIGURES.get(figure, figure) for figure in figures]):
        table.add_column(column, justify="left" if not column else "right")
    for line in found.cases("experiment", name, figures):
        table.add_row(*line)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
