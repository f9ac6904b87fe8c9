"""`make bench-profile`: where the worker's time goes on messages whose model costs next to nothing, as a flame graph.

py-spy looks at the worker's stacks from outside, so the figures are the worker's own; a sample counts where a thread
runs or waits for the interpreter lock, not where it sleeps.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil

from bench.load import small_requests
from bench.quick import ROOT, drained, driver_core, pin, worker
from forebay_local.broker import Broker
from forebay_local.topics import create_topics

MESSAGES: Final = 200_000
RATE: Final = 400  # samples a second
GRAPH: Final = ROOT / "docs" / "performance" / "messages.svg"
TITLE: Final = "the worker on small messages: samples by function, a column for each thread"
SPY: Final = Path(sys.executable).parent / "py-spy"


def main() -> None:
    pin("driver")
    with Broker() as broker, tempfile.TemporaryDirectory(prefix="forebay-profile-") as folder:
        psutil.Process(broker.pid).cpu_affinity([driver_core()])
        topic = "messages"
        create_topics(broker.bootstrap_servers, {topic: 1, f"{topic}-replies": 1})
        model = {"name": "bench", "class": "bench.near_zero:NearZero"}
        with worker(broker, Path(folder), topic, model, batching={"max_batch_size": 256}) as process:
            with sampled(process.pid):
                row = drained(broker, process, "messages", topic, small_requests(MESSAGES))
    print(f"{row['per_s']:,.0f} requests/s, {row['cpu_ms']:.4f} ms CPU a request; {GRAPH.relative_to(ROOT)}")


@contextmanager
def sampled(pid: int) -> Iterator[None]:
    GRAPH.parent.mkdir(parents=True, exist_ok=True)
    command = [
        str(SPY), "record", "--pid", str(pid), "--rate", str(RATE), "--threads", "--nonblocking", "--function",
        "--duration", "unlimited", "--output", str(GRAPH),
    ]  # fmt: skip
    spy = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        spy.send_signal(2)  # it writes what it has
        spy.wait()
        # Its title is its command, with the paths of this machine.
        GRAPH.write_text(re.sub(r">[^<>]*py-spy record[^<]*<", f">{TITLE}<", GRAPH.read_text()))


if __name__ == "__main__":
    main()
