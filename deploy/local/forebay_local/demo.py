"""The demo: a real broker, one worker per model, a burst of texts and images, and what became of them."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import orjson
from confluent_kafka import Consumer, TopicPartition
from rich.console import Console
from rich.table import Table

from forebay_local import models
from forebay_local.broker import Broker
from forebay_local.samples import digit_images, sentences
from forebay_local.topics import create_topics
from forebay_producer import Client, ForebayError, Request, submit_all
from forebay_schemas import Result

TEXTS: Final = 240
IMAGES: Final = 60
READY_WITHIN_S: Final = 120.0
REPLIES: Final = "demo.replies"
SERVED: Final = ("sentiment", "digits", "embeddings")


class DemoError(Exception):
    """The demo could not run to its end; the message says where."""


def run(console: Console) -> None:
    """Run the demo from start to end, leaving nothing behind.

    Raises:
        BrokerError, DemoError: something did not start or did not answer.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forebay-demo-")))
        console.print("[bold]1[/] the models (made once, then kept)")
        for name in SERVED:
            known = models.about(models.build(name))
            accuracy = f"accuracy {known['accuracy']:.3f} on held-out examples" if "accuracy" in known else ""
            console.print(f"    {name:<11} {models.TASKS[name]:<21} {accuracy}")
        console.print("[bold]2[/] a real Apache Kafka, and its topics")
        broker = stack.enter_context(Broker())
        create_topics(broker.bootstrap_servers, {REPLIES: 2, **{requests_of(name): 4 for name in SERVED}})
        console.print(f"    answers on {broker.bootstrap_servers}")
        console.print(f"[bold]3[/] one burst: {TEXTS} texts for each text model, {IMAGES} images; no worker runs yet")
        lag = stack.enter_context(_watched_lag(broker.bootstrap_servers))
        clients = {name: stack.enter_context(_client(broker, name)) for name in SERVED}
        answers = _Answers(clients)
        answers.start()
        lag.wait_for(2 * TEXTS + IMAGES)
        console.print(f"    waiting in the topics: {lag.now()} requests")
        console.print("[bold]4[/] the workers start, load their models, and take up the lag")
        workers = [stack.enter_context(_worker(name, broker, folder)) for name in SERVED]
        for worker in workers:
            worker.wait_started()
        answers.wait(workers)
        console.print(f"    lag over time: {' → '.join(map(str, lag.falling()))}")
        _show(console, answers, workers)
        _show_how(console)


def requests_of(name: str) -> str:
    return f"demo.{name}"


def _client(broker: Broker, name: str) -> Client:
    kafka = {"bootstrap.servers": broker.bootstrap_servers}
    return Client(kafka=kafka, requests=requests_of(name), replies=REPLIES, timeout_s=READY_WITHIN_S)


class _Answers:
    """Sends the burst, model by model on a thread each, and keeps the answers with the moment they came."""

    def __init__(self, clients: dict[str, Client]) -> None:
        self._clients = clients
        written = sentences()
        texts = [Request(*written[index % len(written)]) for index in range(TEXTS)]
        images = [Request(picture, str(digit)) for picture, digit in digit_images(IMAGES)]
        self._requests = {"sentiment": texts, "digits": images, "embeddings": texts}
        self.found: dict[str, list[tuple[Request, Result]]] = {name: [] for name in clients}
        self.failed: list[str] = []
        self.times: list[float] = []
        self._threads = [threading.Thread(target=self._run, args=(name,)) for name in clients]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wait(self, workers: Sequence["_Worker"]) -> None:
        while any(thread.is_alive() for thread in self._threads):
            for worker in workers:
                worker.check()
            time.sleep(0.05)
        if self.failed:
            raise DemoError(f"{len(self.failed)} requests were not answered, the first: {self.failed[0]}")

    def _run(self, name: str) -> None:
        requests = self._requests[name]
        for request, outcome in submit_all(self._clients[name], requests, in_flight=len(requests)):
            self.times.append(time.monotonic())
            if isinstance(outcome, ForebayError):
                self.failed.append(str(outcome))
            else:
                self.found[name].append((request, outcome))


class _Worker:
    """One worker process: `forebay-consumer run`, as a user starts it."""

    def __init__(self, name: str, broker: Broker, folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._config = folder / f"{name}.json"
        self._config.write_bytes(orjson.dumps(_settings(name, broker)))
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "forebay_consumer", "run", "--config", str(self._config)],
                stdout=log,
                stderr=log,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
            )

    def check(self) -> None:
        if (code := self._process.poll()) is not None:
            end = "\n".join(self.log.read_text().splitlines()[-10:])
            raise DemoError(f"the {self.name} worker ended with {code}; its log ends:\n{end}")

    def wait_started(self) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            self.check()
            if '"action":"assigned"' in self.log.read_text():
                return
            time.sleep(0.1)
        raise DemoError(f"the {self.name} worker was not ready within {READY_WITHIN_S:.0f} s")

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def _worker(name: str, broker: Broker, folder: Path) -> Iterator[_Worker]:
    worker = _Worker(name, broker, folder)
    try:
        yield worker
    finally:
        worker.stop()


def _settings(name: str, broker: Broker) -> dict[str, Any]:
    return {
        "kafka": {"bootstrap.servers": broker.bootstrap_servers, "group.id": f"demo-{name}"},
        "topics": {"requests": [requests_of(name)], "replies": [REPLIES]},
        "model": {
            "name": name,
            "task": models.TASKS[name],
            "path": str(models.build(name)),
            "options": {"threads": 1},
        },
        "metrics": {"host": "127.0.0.1", "port": 0},
        "logging": {"format": "json"},
    }


class _Lag:
    """The groups' lag, read again and again: records in the topics that no committed offset covers."""

    def __init__(self, servers: str) -> None:
        self._servers = servers
        self._seen: list[int] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def now(self) -> int:
        return self._seen[-1] if self._seen else 0

    def wait_for(self, records: int) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while self.now() < records:
            if time.monotonic() > deadline:
                raise DemoError(f"only {self.now()} of {records} requests reached the broker")
            time.sleep(0.05)

    def falling(self) -> list[int]:
        """Eight values at most, from the highest to the last."""
        self.stop()
        fall = self._seen[self._seen.index(max(self._seen)) :]
        changes = [value for place, value in enumerate(fall) if place == 0 or value != fall[place - 1]]
        step = max(1, -(-len(changes) // 7))
        kept = changes[::step]
        return kept if kept[-1] == changes[-1] else [*kept, changes[-1]]

    def _run(self) -> None:
        askers = [Consumer({"bootstrap.servers": self._servers, "group.id": f"demo-{name}"}) for name in SERVED]
        topics = [requests_of(name) for name in SERVED]
        while not self._ended.wait(0.1):
            self._seen.append(sum(_group_lag(asker, topic) for asker, topic in zip(askers, topics, strict=True)))
        for asker, topic in zip(askers, topics, strict=True):
            self._settle(asker, topic)
        for asker in askers:
            asker.close()

    def _settle(self, asker: Any, topic: str) -> None:
        """The last value is read once the last commit, at most 200 ms late, is in."""
        deadline = time.monotonic() + 5
        while (lag := _group_lag(asker, topic)) and time.monotonic() < deadline:
            time.sleep(0.05)
        if topic == requests_of(SERVED[-1]):
            self._seen.append(lag)


def _group_lag(asker: Any, topic: str) -> int:
    lag = 0
    for found in asker.committed([TopicPartition(topic, partition) for partition in range(4)], timeout=10):
        low, high = asker.get_watermark_offsets(TopicPartition(topic, found.partition), timeout=10)
        lag += high - max(found.offset, low)
    return lag


@contextmanager
def _watched_lag(servers: str) -> Iterator[_Lag]:
    lag = _Lag(servers)
    lag.start()
    try:
        yield lag
    finally:
        lag.stop()


def _show(console: Console, answers: _Answers, workers: Sequence[_Worker]) -> None:
    table = Table(title="some of the replies", title_justify="left")
    for column in ("model", "request", "reply", "expected", "forward ms", "in a batch of"):
        table.add_column(column)
    for name, found in answers.found.items():
        for request, result in found[:: max(1, len(found) // 4)][:4]:
            asked = request.value if isinstance(request.value, str) else f"a picture, {len(request.value)} bytes"
            timing = result.timing
            expected = request.source if name != "embeddings" else ""
            told = _told(result.outputs[0])
            table.add_row(
                name, asked[:44], told, expected, f"{timing['forward_ms']:.1f}", f"{timing['batch_size']:.0f}"
            )
    console.print(table)
    for worker in workers:
        found = answers.found[worker.name]
        batches = Counter(int(result.timing["batch_size"]) for _, result in found)  # a row each
        shown = ", ".join(f"{size} ({count // size}×)" for size, count in sorted(batches.items(), reverse=True))
        right = sum(result.outputs[0].get("label") == request.source for request, result in found
                    if isinstance(result.outputs[0], dict))  # fmt: skip
        score = f"; {right} of {len(found)} labels as expected" if worker.name != "embeddings" else ""
        console.print(f"[bold]{worker.name}[/]: {len(found)} answered{score}; batch sizes {shown}", highlight=False)
    seconds = max(answers.times) - min(answers.times)
    count = len(answers.times)
    rate = f"{count / seconds:.0f} a second" if seconds else "at once"
    console.print(f"[bold]{count} requests, {count} answers[/], {rate} from the first answer to the last")


def _told(output: Any) -> str:
    if isinstance(output, dict):
        return f"{output['label']} {output['score']:.3f}"
    return f"{len(output)} numbers: {output[0]:.3f}, {output[1]:.3f}, …"


def _show_how(console: Console) -> None:
    commands = os.path.relpath(Path(sys.executable).parent)
    console.print(
        "\n[bold]ask a question yourself[/]: in three terminals\n"
        f"    {commands}/forebay-local broker --topic inference.requests:4 --topic inference.replies\n"
        f"    {commands}/forebay-local worker sentiment\n"
        f"    {commands}/forebay-producer ask 'What a lovely day' 'This was a waste of money'\n",
        highlight=False,
    )
