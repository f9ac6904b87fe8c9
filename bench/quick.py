"""`make bench-quick`: the worker against bare loops, in one run of a few minutes.

Texts    MiniLM on texts of mixed length: CPU per request and throughput of the worker over Kafka, against loops in
         one process that have all texts in hand: one at a time, 32 in order of arrival, sorted with a token budget,
         packed; and the worker once more with delivery exactly-once.
Messages a model that costs next to nothing: the worker against a bare confluent-kafka loop that reads and writes the
         same headers and reply bytes, parses and encodes them with orjson, and has delivery callbacks.
Idle     one request in flight: the worker's latency against the bare forward pass.

Model and worker have one torch thread and run on core 0, where there are two; driver and broker on the other.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import orjson
import psutil
from confluent_kafka import Consumer, Producer, TopicPartition
from rich.console import Console
from rich.table import Table

from bench.kafka_alone import LINGER_MS
from bench.load import small_requests, texts
from forebay_local import models
from forebay_local.broker import Broker
from forebay_local.topics import create_topics
from forebay_producer import Client

TEXTS: Final = 192
MESSAGES: Final = 60_000
IDLE: Final = 60
REPEATS: Final = 3
BUDGET: Final = 1024
WITHIN_S: Final = 240.0
ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = ROOT / "bench" / "results"
DELIVERIES: Final = ("at-least-once", "exactly-once")
Row = dict[str, Any]


def main() -> None:
    pin("driver")
    console = Console(width=None if sys.stdout.isatty() else 150)
    rows: list[Row] = []
    with Broker() as broker, tempfile.TemporaryDirectory(prefix="forebay-bench-") as folder:
        psutil.Process(broker.pid).cpu_affinity([driver_core()])
        for repeat in range(REPEATS):  # interleaved, so that a busy neighbour hits all alike
            console.print(f"run {repeat + 1} of {REPEATS} ...")
            rows += child("limit")
            for delivery in DELIVERIES:
                rows += worker_texts(broker, Path(folder), repeat, delivery)
            rows += child("bare", broker.bootstrap_servers, f"bare-{repeat}")
            for delivery in DELIVERIES:
                rows += worker_messages(broker, Path(folder), repeat, delivery)
            rows += worker_idle(broker, Path(folder), repeat)
    show(console, rows)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "quick.json").write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))
    console.print(f"all figures: {(RESULTS / 'quick.json').relative_to(ROOT)}")


# ---- who runs where


def driver_core() -> int:
    return (os.cpu_count() or 1) - 1


def pin(who: str) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {0 if who == "model" else driver_core()})


def machine() -> Row:
    return {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine(), "python": sys.version}


def child(name: str, *arguments: str) -> list[Row]:
    """Run one loop in a process of its own, on the model's core."""
    told = subprocess.run(
        [sys.executable, "-m", "bench.quick", name, *arguments], stdout=subprocess.PIPE, check=True, cwd=ROOT
    )
    found: list[Row] = json.loads(told.stdout)
    return found


def timed(name: str, count: int, run: Callable[[], object]) -> Row:
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    run()
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"name": name, "per_s": count / wall, "cpu_ms": 1000 * cpu / count}


# ---- the limit: the model alone, every text in hand


def limit() -> list[Row]:
    pin("model")
    import structlog
    import torch

    from forebay_consumer.models.text import FeatureExtraction

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # the figures go to the other
    torch.set_num_threads(1)
    model, packing = (FeatureExtraction(path=str(models.build("embeddings")), packing=how) for how in ("off", "auto"))
    model.load("cpu")
    packing.load("cpu")
    work = texts(TEXTS)

    def run(rows: Sequence[Any], model: Any = model) -> None:
        model.postprocess(model.forward(model.collate(rows)), rows, {})

    def packed() -> None:
        for start in range(0, len(work), 32):
            run(packing.preprocess(work[start : start + 32], {}), packing)

    def one_at_a_time() -> None:
        for text in work:
            run(model.preprocess([text], {}))

    def in_order() -> None:
        for start in range(0, len(work), 32):
            run(model.preprocess(work[start : start + 32], {}))

    def budgeted() -> None:
        rows: list[Any] = sorted(model.preprocess(work, {}), key=model.cost)
        batch: list[Any] = []
        for row in rows:
            if batch and (len(batch) + 1) * model.cost(row) > BUDGET:
                run(batch)
                batch = []
            batch.append(row)
        run(batch)

    run(model.preprocess(work[:8], {}))  # warm
    rows = [
        timed("texts: model alone, 32 in order of arrival", TEXTS, in_order),
        timed("texts: model alone, one at a time", TEXTS, one_at_a_time),
        timed("texts: model alone, sorted, token budget", TEXTS, budgeted),
        timed("texts: model alone, packed", TEXTS, packed),
    ]
    alone = []
    for text in texts(IDLE, seed=3):
        started = time.perf_counter()
        run(model.preprocess([text], {}))
        alone.append(1000 * (time.perf_counter() - started))
    return [*rows, {"name": "idle: bare forward pass", "p50_ms": statistics.median(alone)}]


# ---- the bare loop: Kafka alone, with the worker's headers and bytes


def bare(servers: str, topic: str) -> list[Row]:
    pin("model")
    from bench.near_zero import OUTPUT
    from forebay_consumer.record import Claim, Record
    from forebay_schemas import Model, read_request, reply_headers, result_body

    replies = f"{topic}-replies"
    create_topics(servers, {topic: 1, replies: 1})
    fill(servers, topic, small_requests(MESSAGES))
    served, done = Model("bench"), 0
    timing = {"queue_ms": 1.234, "preprocess_ms": 1.234, "linger_ms": 1.234, "forward_ms": 1.234, "batch_size": 32}
    # The same bytes as the worker's; of JSON, what nobody can do without: each request parsed, each reply encoded.
    claim = Claim(topic, 0, 1)
    sample = Record(claim, 0, None, small_requests(1)[0], None, None, None, 0.0, 0)
    envelope, _ = read_request(sample)
    body, headers = (
        orjson.loads(result_body(envelope, served, [OUTPUT], timing)),
        reply_headers(envelope, sample, served, None),
    )
    consumer: Any = Consumer({"bootstrap.servers": servers, "group.id": "bare", "enable.auto.commit": False})
    producer: Any = Producer({"bootstrap.servers": servers, "enable.idempotence": True, "linger.ms": LINGER_MS})
    consumer.assign([TopicPartition(topic, 0, 0)])

    def delivered(error: Any, _: Any) -> None:
        nonlocal done
        assert error is None
        done += 1

    def run() -> None:
        taken = 0
        while taken < MESSAGES:
            for message in consumer.consume(500, 0.05):
                taken += 1
                message.headers()
                orjson.loads(message.value())
                value = orjson.dumps(body)
                while True:
                    try:
                        producer.produce(replies, value, message.key(), headers=headers, on_delivery=delivered)
                        break
                    except BufferError:
                        producer.poll(0.01)
            producer.poll(0)
        producer.flush()
        assert done == MESSAGES

    return [timed("messages: bare confluent-kafka loop", MESSAGES, run)]


# ---- the worker


def fill(servers: str, topic: str, values: Sequence[bytes | str]) -> None:
    producer: Any = Producer({"bootstrap.servers": servers, "linger.ms": 20})
    for value in values:
        while True:
            try:
                producer.produce(topic, value)
                break
            except BufferError:
                producer.poll(0.05)
    assert producer.flush(60) == 0


@contextmanager
def worker(broker: Broker, folder: Path, name: str, model: Row, **parts: Any) -> Iterator[psutil.Process]:
    config = folder / f"{name}.yaml"
    settings = {
        "kafka": {"bootstrap.servers": broker.bootstrap_servers, "group.id": name},
        "topics": {"requests": [name], "replies": [f"{name}-replies"]},
        "model": model,
        "metrics": {"port": None},
        "logging": {"format": "json"},
        **parts,
    }
    config.write_text(json.dumps(settings))
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "forebay_consumer", "run", "--config", str(config)],
            stdout=log, stderr=log, cwd=ROOT, preexec_fn=lambda: pin("model"),
        )  # fmt: skip
    try:
        wait(lambda: '"action":"assigned"' in (folder / f"{name}.log").read_text(), f"{name} serves")
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def wait(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)


def drained(broker: Broker, process: psutil.Process, name: str, topic: str, values: Sequence[bytes | str]) -> Row:
    """Fill the topic while the worker is stopped, let it go, and measure until the last reply can be read."""
    process.suspend()
    fill(broker.bootstrap_servers, topic, values)
    end: Any = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": "end"})  # reads what is committed
    end.assign([TopicPartition(f"{topic}-replies", 0, 0)])
    seen = 0

    def all_seen() -> bool:
        nonlocal seen
        seen += sum(message.error() is None for message in end.consume(10_000, 0.02))
        return seen >= len(values)

    before, started = process.cpu_times(), time.perf_counter()
    process.resume()
    wait(all_seen, f"all replies of {name}")
    wall, after = time.perf_counter() - started, process.cpu_times()
    end.close()
    cpu = after.user + after.system - before.user - before.system
    return {"name": name, "per_s": len(values) / wall, "cpu_ms": 1000 * cpu / len(values)}


def minilm() -> Row:
    return {
        "name": "embeddings",
        "task": "feature-extraction",
        "path": str(models.build("embeddings")),
        "options": {"threads": 1},
    }


def named(what: str, delivery: str) -> str:
    return f"{what}: Forebay over Kafka" + ("" if delivery == DELIVERIES[0] else f", {delivery}")


def worker_texts(broker: Broker, folder: Path, repeat: int, delivery: str) -> list[Row]:
    topic = f"texts-{delivery}-{repeat}"
    create_topics(broker.bootstrap_servers, {topic: 1, f"{topic}-replies": 1})
    batching = {"max_batch_size": 64, "max_batch_cost": BUDGET, "lookahead": 8}
    with worker(broker, folder, topic, minilm(), batching=batching, delivery=delivery) as process:
        return [drained(broker, process, named("texts", delivery), topic, texts(TEXTS))]


def worker_messages(broker: Broker, folder: Path, repeat: int, delivery: str) -> list[Row]:
    topic = f"messages-{delivery}-{repeat}"
    create_topics(broker.bootstrap_servers, {topic: 1, f"{topic}-replies": 1})
    model = {"name": "bench", "class": "bench.near_zero:NearZero"}
    parts = {"batching": {"max_batch_size": 256}, "logging": {"level": "info", "format": "json"}, "delivery": delivery}
    with worker(broker, folder, topic, model, **parts) as process:
        return [drained(broker, process, named("messages", delivery), topic, small_requests(MESSAGES))]


def worker_idle(broker: Broker, folder: Path, repeat: int) -> list[Row]:
    topic = f"idle-{repeat}"
    create_topics(broker.bootstrap_servers, {topic: 1, f"{topic}-replies": 1})
    seconds = []
    with worker(broker, folder, topic, minilm(), batching={"linger_ms": 0}):
        kafka = {"bootstrap.servers": broker.bootstrap_servers}
        with Client(kafka=kafka, requests=topic, replies=f"{topic}-replies") as client:
            for text in [*texts(5), *texts(IDLE, seed=3)]:
                started = time.perf_counter()
                client.request(text)
                seconds.append(time.perf_counter() - started)
    return [{"name": "idle: Forebay over Kafka", "p50_ms": 1000 * statistics.median(seconds[5:])}]


# ---- what came out


def show(console: Console, rows: Sequence[Row]) -> None:
    names = list(dict.fromkeys(row["name"] for row in rows))
    table = Table(title=f"median (min to max) of {REPEATS} interleaved runs, one core", title_justify="left")
    for column in ("", "requests/s", "CPU ms a request", "p50 ms", "CPU share of the limit"):
        table.add_column(column, justify="left" if not column else "right")

    def values(name: str, figure: str) -> list[float]:
        return [row[figure] for row in rows if row["name"] == name and figure in row]

    def cell(name: str, figure: str, digits: int) -> str:
        found = values(name, figure)
        if not found:
            return ""
        return f"{statistics.median(found):,.{digits}f} ({min(found):,.{digits}f} to {max(found):,.{digits}f})"

    for name in names:
        group = name.split(":")[0]
        of_group = [other for other in names if other.startswith(group) and "Forebay" not in other]
        costs = [statistics.median(found) for other in of_group if (found := values(other, "cpu_ms"))]
        own = values(name, "cpu_ms")
        share = f"{min(costs) / statistics.median(own):.2f}" if own and costs else ""
        cells = (cell(name, "per_s", 0), cell(name, "cpu_ms", 4 if group == "messages" else 2), cell(name, "p50_ms", 2))
        table.add_row(name, *cells, share)
    console.print(table)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    elif sys.argv[1] == "limit":
        print(json.dumps(limit()))
    else:
        print(json.dumps(bare(*sys.argv[2:])))
