"""Single questions that the comparison leaves open. Each adds rows with `question`, `case` and its figures."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from bench.drive.kafka import KafkaDriver
from bench.drive.sample import NotAnswered, Plan
from bench.load import MIXES
from bench.measure import MODEL_CORE, driver_core
from bench.peers.forebay import Forebay
from bench.session import Row, Session, figures

TEXTS: Final = 160
MEASURED: Final = 20_000
LAGS: Final = (20_000, 200_000, 2_000_000)
IDLE: Final = 64


def ask(session: Session, name: str, common: Row) -> None:
    """Add the rows of one question, or one that says why there are none."""
    about = {**common, "question": name}
    try:
        QUESTIONS[name](session, about)
    except NotAnswered as error:
        session.rows.append({**about, "case": name, "failed": str(error)})


def lengths(session: Session, about: Row) -> None:
    """Five mixes of length: Forebay's backlog against the model alone on the same texts."""
    count = session.size.of(TEXTS)
    for mix in MIXES:
        for row in session.limits(f"T1:{mix}", "float32", about, count):
            session.rows.append({**row, "case": mix})
        with session.asked(Forebay(), session.work(f"T1:{mix}", "float32", count)) as (driver, tree):
            driver.closed(Plan(16, 16))
            found = session.backlog(driver, tree, count)
            session.rows.append({**about, "case": mix, "peer": "Forebay", "mode": "backlog", **found})


def idle(session: Session, about: Row) -> None:
    """One request in flight: the worker without linger against the bare forward pass."""
    with session.asked(Forebay(batching={"linger_ms": 0}), session.work("T1", "float32")) as (driver, tree):
        driver.closed(Plan(1, 8))
        found = session.closed(driver, tree, Plan(1, session.size.of(IDLE)))
        session.rows.append({**about, "case": "Forebay, no linger", **found})
    for row in session.limits("T1", "float32", about, session.size.of(IDLE)):
        if "p50_ms" in row:
            session.rows.append({**row, "case": "bare forward pass"})


def lag(session: Session, about: Row) -> None:
    """What a request of T3 costs when 20 thousand, 200 thousand or 2 million wait: the first 20 thousand of them."""
    measured = session.size.of(MEASURED)
    for waiting in LAGS:
        with session.asked(Forebay(), session.work("T3", "float32")) as (driver, tree):
            assert isinstance(driver, KafkaDriver)
            driver.closed(Plan(16, 64))
            tree.suspend()
            tally = driver.fill(measured)
            driver.fill_unanswered(session.size.of(waiting) - measured)
            with session.meter(tree) as meter:
                tree.resume()
                driver.drain(tally)
            session.rows.append({**about, "case": f"{session.size.of(waiting):,}", **figures(tally, meter)})


def workers(session: Session, about: Row) -> None:
    """One worker and two, on a core each, with a backlog of T1."""
    count = session.size.of(2 * TEXTS)
    work = session.work("T1", "float32", count)
    for cores in ((MODEL_CORE,), (MODEL_CORE, driver_core())):
        peer = Forebay(workers=len(cores))
        with session.asked(peer, work, partitions=2, cores=cores) as (driver, tree):
            driver.closed(Plan(16, 32))
            found = session.backlog(driver, tree, count)
            session.rows.append({**about, "case": f"{len(cores)} on {len(cores)} cores", **found})


QUESTIONS: Final[Mapping[str, Callable[[Session, dict[str, Any]], None]]] = MappingProxyType(
    {"lengths": lengths, "idle": idle, "lag": lag, "workers": workers}
)
"""By the name that `--questions` takes."""
