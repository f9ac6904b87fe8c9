"""`python -m soak`: minutes of random faults over a mixed load, and the verdict. See docs/testing.md."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from soak import requests
from soak.fleet import Fleet
from soak.history import check, from_line
from soak.load import Load
from soak.nemesis import Nemesis
from soak.recorder import Recorder
from soak.schedule import FAULTS, draw
from soak.watch import Watch
from support.broker import Topics, running_broker
from support.proxy import Proxy

PARTITIONS: Final = 6
IDLE_S: Final = 60.0  # without an answer or a commit, once all faults have ended
SETTLE_S: Final = 900.0
HOPELESS_S: Final = 15.0
STOP_S: Final = 60.0
TELL_EVERY_S: Final = 15.0


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when nothing that the mode forbids was seen and all was answered in time, else 1."""
    asked = _parser().parse_args(arguments)
    if asked.check is not None:
        with asked.check.open() as lines:
            report = check(map(from_line, lines), asked.mode)
        print(report.text())
        return 1 if report.violations else 0
    folder = asked.out.resolve() / f"{asked.mode}-seed{asked.seed}-{time.strftime('%H%M%S')}"
    folder.mkdir(parents=True)
    return _soak(asked, folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mode", default="at-least-once", choices=["at-least-once", "exactly-once", "queue"])
    parser.add_argument("--protocol", default="classic", choices=["classic", "consumer"], help="of the group")
    parser.add_argument("--workers", type=int, default=2, help="beside the one that comes and goes")
    parser.add_argument("--rate", type=float, default=150, help="requests a second, on average")
    parser.add_argument("--without", action="append", default=[], choices=list(FAULTS), help="leave this fault out")
    parser.add_argument("--only", action="append", default=[], choices=list(FAULTS), help="leave all others out")
    parser.add_argument("--out", type=Path, default=Path("build/soak"), help="where histories and logs are kept")
    parser.add_argument("--check", type=Path, help="judge this history.jsonl again, and run nothing")
    return parser


def _soak(asked: argparse.Namespace, folder: Path) -> int:
    without = [kind for kind in FAULTS if kind in asked.without or (asked.only and kind not in asked.only)]
    faults = draw(asked.seed, asked.minutes * 60, asked.workers, without)
    print(f"soak: {asked.mode}, seed {asked.seed}, {asked.minutes:g} minutes, {len(faults)} faults; kept in {folder}")
    with (
        Proxy(lambda: broker.proxied_port) as proxy,
        running_broker(proxy_port=proxy.port) as broker,
        Recorder(folder / "history.jsonl", asked.mode) as recorder,
    ):
        topics = Topics(broker.bootstrap_servers)
        request_topic = topics.create("requests", partitions=PARTITIONS)
        limit = {"max.message.bytes": str(requests.MAX_REPLY_BYTES)}
        reply_topic = topics.create("replies", partitions=2, config=limit)
        dead_topic = topics.create("dead", partitions=1)
        group = topics.group()
        settings = {
            "kafka": {"bootstrap.servers": proxy.bootstrap_servers, "group.id": group, **_protocol(asked)},
            "topics": {"requests": [request_topic], "replies": [reply_topic], "dead_letters": dead_topic},
            "delivery": {"mode": asked.mode, "commit_interval_ms": 100},
            "model": {"options": {"journal": None, "pass_s": 0.005, "memory_rows": requests.MEMORY_ROWS}},
            "batching": {"max_batch_size": requests.MAX_ROWS, "linger_ms": 5},
        }
        watch = Watch(
            broker.bootstrap_servers,
            group,
            {request_topic: PARTITIONS, reply_topic: 2, dead_topic: 1},
            request_topic,
            reply_topic,
            dead_topic,
            recorder,
            commits=asked.mode != "queue",
        )
        load = Load(broker.bootstrap_servers, request_topic, PARTITIONS, asked.rate, asked.seed, recorder)
        with watch, Fleet(folder, settings, asked.workers, recorder) as fleet:
            fleet.wait_serving()
            with load, Nemesis(faults, broker, proxy, fleet, load, recorder) as nemesis:
                _wait(asked.minutes * 60, recorder, watch, nemesis)
                nemesis.calm()
            settled = _settle(recorder, watch)
            fleet.stop(STOP_S)
            if not watch.wait_look(STOP_S):  # what the last of them answered twice is to be seen too
                recorder.note("no last look", waits_for=watch.waits_for())
                settled = False
            watch.check()
        return _tell(folder, recorder, fleet, settled, {**vars(asked), "out": str(asked.out), "check": None})


def _protocol(asked: argparse.Namespace) -> dict[str, str]:
    """A share group has no protocol to choose."""
    return {} if asked.mode == "queue" else {"group.protocol": asked.protocol}


def _wait(seconds: float, recorder: Recorder, watch: Watch, nemesis: Nemesis) -> None:
    told_s = recorder.elapsed_s
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.1)
        watch.check()
        nemesis.check()
        if recorder.elapsed_s - told_s >= TELL_EVERY_S:
            told_s = recorder.elapsed_s
            _tell_state(recorder, watch)


def _settle(recorder: Recorder, watch: Watch) -> bool:
    """Wait until every request in the log is answered and committed; False when that cannot be, or stops short.

    The faults may leave a long backlog on a busy machine: it takes the time it takes, as long as it is worked off.
    """
    began = recorder.elapsed_s
    hopeless_since = moved_at = time.monotonic()
    deadline = hopeless_since + SETTLE_S
    left = (-1, -1, -1)
    while time.monotonic() < min(deadline, moved_at + IDLE_S):
        looked = watch.wait_look(TELL_EVERY_S)
        watch.check()
        if not looked:
            recorder.note("no look", waits_for=watch.waits_for())
        if looked and recorder.unanswered == 0 and watch.uncommitted() == 0:
            recorder.note("settled", after_s=round(recorder.elapsed_s - began, 1))
            return True
        # Answers that are repeated count as work: a share group may be set back by thousands of requests.
        if left != (left := (recorder.unanswered, watch.uncommitted(), recorder.total("answered"))):
            moved_at = time.monotonic()
        if not looked or not watch.passed_by():
            hopeless_since = time.monotonic()
        elif time.monotonic() - hopeless_since > HOPELESS_S:
            break  # nobody will ever run what a commit has passed
    recorder.note("not settled", unanswered=recorder.unanswered, uncommitted=watch.uncommitted())
    return False


def _tell_state(recorder: Recorder, watch: Watch) -> None:
    told = "  ".join(f"{kind} {recorder.total(kind)}" for kind in ("sent", "answered", "letter", "look"))
    print(f"{recorder.elapsed_s:7.1f} s  {told}  unanswered {recorder.unanswered}", flush=True)


def _tell(folder: Path, recorder: Recorder, fleet: Fleet, settled: bool, asked: dict[str, Any]) -> int:
    report = recorder.report()
    alone = [
        (name, code, why)
        for name, code, why in fleet.exits
        if why == "by itself" or (why == "term" and code) or why.startswith("kill, as")
    ]
    plain = {**report.plain(), "settled": settled, "unexpected_exits": alone, "asked": asked, "notes": recorder.notes}
    (folder / "report.json").write_text(json.dumps(plain, indent=1))
    print("\nwhat was done\n" + "\n".join(recorder.notes))
    if alone:
        print("\nworkers that ended by themselves, or badly: a promise is kept without them, but look why")
        print("\n".join(f"  {name} code {code} ({why})" for name, code, why in alone))
    print(f"\n{report.text()}")
    if not settled:
        print("NOT SETTLED: requests stayed unanswered or uncommitted though all faults had ended")
    passed = settled and not report.violations
    print(f"\n{'PASSED' if passed else 'FAILED'}: seed {asked['seed']}, {asked['mode']}; kept in {folder}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
