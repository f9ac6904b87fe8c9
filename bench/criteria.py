"""Single questions that the comparison leaves open. Each adds rows with `question`, `case` and its figures."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import MappingProxyType
from typing import Any, Final

from confluent_kafka.admin import AdminClient

from bench.drive.kafka import KafkaDriver
from bench.drive.sample import NotAnswered, Plan
from bench.load import MIXES
from bench.measure import MODEL_CORE, Tree, driver_core
from bench.peers.all import PEERS
from bench.peers.forebay import Forebay
from bench.session import Row, Session, child, figures

TEXTS: Final = 160
MEASURED: Final = 20_000
LAGS: Final = (20_000, 200_000, 2_000_000)
IDLE: Final = 64
BACKLOG: Final = 1_600  # so many texts that two partitions come to nearly the same
TURNS: Final = 3  # of a contender and what it is compared with, whose ratio a wavering clock would else decide
SHARED_WITHIN_S: Final = 60.0


def ask(session: Session, name: str, common: Row) -> None:
    """Add the rows of one question, or one that says why there are none."""
    about = {**common, "question": name}
    try:
        QUESTIONS[name](session, about)
    except NotAnswered as error:
        session.rows.append({**about, "case": name, "failed": str(error)})


def lengths(session: Session, about: Row) -> None:
    """Five mixes of length: Forebay's backlog against the model alone on the same texts, in turns."""
    count = session.size.of(TEXTS)
    for mix in MIXES:
        with session.asked(Forebay(), session.work(f"T1:{mix}", "float32", count)) as (driver, tree):
            driver.closed(Plan(16, 16))
            for _ in range(TURNS):
                loops = session.limits(f"T1:{mix}", "float32", about, count)
                single = next(row["per_s"] for row in loops if "p50_ms" in row)
                session.rows += [{**row, "case": mix, "ratio": row["per_s"] / single} for row in loops]
                found = {"mode": "backlog", **session.backlog(driver, tree, count)}
                ratio = found["per_s"] / single
                session.rows.append({**about, "case": mix, "peer": "Forebay", **found, "ratio": ratio})


def idle(session: Session, about: Row) -> None:
    """One request in flight: Forebay and the plainest consumer, each in turns with the bare forward pass."""
    count = session.size.of(IDLE)
    for peer in (Forebay(), PEERS["naive"]):
        with session.asked(peer, session.work("T1", "float32", count)) as (driver, tree):
            driver.closed(Plan(1, count))
            for _ in range(TURNS):
                loops = session.limits("T1", "float32", about, count)
                bare = next(row for row in loops if "p50_ms" in row)
                session.rows.append({**about, "case": "bare forward pass", "p50_ms": bare["p50_ms"], "ratio": 1.0})
                found = session.closed(driver, tree, Plan(1, count))
                ratio = found["p50_ms"] / bare["p50_ms"]
                session.rows.append({**about, "case": peer.name, **found, "ratio": ratio})


def lag(session: Session, about: Row) -> None:
    """What a request of T3 costs when 20 thousand, 200 thousand or 2 million wait, in turns: the first 20 thousand.

    Where more wait, the worker goes on while the driver reads what was measured; it is charged for what it answered.
    It stands still while they are written, which takes longer than a session as a rule is long.
    """
    patient = Forebay(kafka={"session.timeout.ms": 300_000, "max.poll.interval.ms": 600_000})
    measured = session.size.of(MEASURED)
    for _ in range(TURNS):
        first = 0.0
        for waiting in map(session.size.of, LAGS):
            with session.asked(patient, session.work("T3", "float32")) as (driver, tree):
                assert isinstance(driver, KafkaDriver)
                driver.closed(Plan(16, 64))
                tree.suspend()
                tally = driver.fill(measured)
                driver.fill_unanswered(waiting - measured)
                before = driver.replied()
                with session.meter(tree) as meter:
                    tree.resume()
                    driver.drain(tally)
                    answered = driver.replied() - before
                found = {**figures(tally, meter), "cpu_ms": 1000 * meter.cpu_s / answered}
                found = {name: value for name, value in found.items() if name not in ("p50_ms", "p95_ms", "p99_ms")}
                first = first or found["cpu_ms"]
                session.rows.append({**about, "case": f"{waiting:,}", **found, "ratio": found["cpu_ms"] / first})


def workers(session: Session, about: Row) -> None:
    """One worker and two, on a core each, in turns, with a backlog of T1, as long as both have work."""
    count = session.size.of(BACKLOG)
    work = session.work("T1", "float32", count)
    with ExitStack() as served:
        asked: dict[int, tuple[KafkaDriver, Tree]] = {}
        for cores in ((MODEL_CORE,), (MODEL_CORE, driver_core())):
            peer = Forebay(workers=len(cores))
            driver, tree = served.enter_context(session.asked(peer, work, partitions=2, cores=cores))
            assert isinstance(driver, KafkaDriver)
            driver.closed(Plan(16, 32))
            _wait_shared(session, f"{driver.job.requests}-forebay", len(cores))
            driver.closed(Plan(16, 32))
            asked[len(cores)] = driver, tree
        with session.modest():
            for _ in range(TURNS):
                found = {number: _while_busy(session, *asked[number], count) for number in asked}
                for number, row in found.items():
                    ratio = row["per_s"] / found[1]["per_s"]
                    case = f"{number} on {number} cores"
                    session.rows.append({**about, "case": case, **row, "ratio": ratio})


def _while_busy(session: Session, driver: KafkaDriver, tree: Tree, count: int) -> Row:
    """The first three quarters of a backlog: what is last is done by the slower of two workers alone."""
    tree.suspend()
    tally = driver.fill(count)
    with session.meter(tree) as meter:
        tree.resume()
        driver.drain(tally, left=count // 4)
    found = figures(tally, meter)
    driver.drain(tally)
    return found


def _wait_shared(session: Session, group: str, members: int) -> None:
    """Block until so many members of the group have partitions."""
    admin, deadline = AdminClient({"bootstrap.servers": session.servers}), time.monotonic() + SHARED_WITHIN_S
    while True:
        found = admin.describe_consumer_groups([group])[group].result().members
        if sum(bool(member.assignment.topic_partitions) for member in found) == members:
            return
        if time.monotonic() > deadline:
            raise NotAnswered(f"the group {group} has not {members} members with partitions")
        time.sleep(0.2)


def memory(session: Session, about: Row) -> None:
    """What a worker with a backlog needs at most, against its model class alone in a process."""
    for load, many in (("T1", TEXTS), ("T2", TEXTS // 2)):
        count = session.size.of(many)
        bare = child("bench.limits", "memory", load, "float32", str(count))["peak_mb"]
        session.rows.append({**about, "case": f"{load}: the model alone", "peak_mb": bare, "above_mb": 0.0})
        with session.asked(Forebay(), session.work(load, "float32", count)) as (driver, tree):
            peak = session.backlog(driver, tree, count)["peak_mb"]
            session.rows.append({**about, "case": f"{load}: Forebay", "peak_mb": peak, "above_mb": peak - bare})


QUESTIONS: Final[Mapping[str, Callable[[Session, dict[str, Any]], None]]] = MappingProxyType(
    {"lengths": lengths, "idle": idle, "lag": lag, "workers": workers, "memory": memory}
)
"""By the name that `--questions` takes."""
