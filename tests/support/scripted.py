"""A deterministic model in pure Python whose misbehaviour is scripted in the request itself.

"echo me"                    -> {"text": "echo me", "digest": ...}
{"sleep_s": 0.2, "n": 1}     sleeps in forward, once per batch the longest
{"exit": 9}                  forward ends the process, as a segmentation fault would
{"raise": true, "n": 2}      forward raises, and its error quotes the row
{"raise_unless": "path"}     forward raises until there is a file at the path
{"stumble": true, "n": 2}    preprocess raises, and its error quotes the row
{"transient": 2, "n": 4}     forward raises a TransientError in the first two passes that hold this row
{"hang": "a/gate"}           forward hangs in C with the interpreter lock held, unless the file is there
{"stick": "a/gate"}          the same in preprocess
{"refuse": "why", "n": 3}    preprocess refuses it
{"fatal": true}              preprocess says that the worker must end
{"end_producers": "a/file"}  forward gives the process's Kafka producers a fatal error, unless there is a file
{"until": "a/gate"}          forward waits until there is a file at the path
{"length": 1}                forward gives one output too few
{"exit": 3, "n": 4}          forward ends the process with this code, at once
{"huge": 100000, "n": 5}     its output is this many bytes of text
"""

import ctypes
import hashlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from forebay_consumer import FatalError, Model, OutOfMemory, TransientError
from forebay_schemas import InvalidRequest
from support.raw_producer import end_producers


def digest(row: Any) -> str:
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:16]


def _raises(row: Mapping[str, Any]) -> bool:
    return bool(row.get("raise")) or not Path(row.get("raise_unless", "/")).exists()


def _hang(gates: Iterable[str]) -> None:
    for gate in gates:
        if not Path(gate).exists():
            ctypes.PyDLL(None).sleep(600)  # PyDLL, unlike CDLL, keeps the lock


def _text(row: Any) -> Any:
    return "x" * row["huge"] if isinstance(row, dict) and "huge" in row else row


class Scripted(Model):
    """Args:
    journal: file to which every forward pass adds one line: pid, instance, rows, and how many passes ran at once.
    pass_s: seconds that every pass takes.
    load_s: seconds that loading takes.
    token: a secret that it has no use for.
    memory_rows: most rows that fit into memory; a pass of more raises OutOfMemory.
    """

    _running = 0
    _lock = threading.Lock()

    def __init__(
        self,
        journal: str | None = None,
        pass_s: float = 0.0,
        load_s: float = 0.0,
        memory_rows: int | None = None,
        token: str = "",
    ) -> None:
        self._journal = None if journal is None else Path(journal)
        self._pass_s = pass_s
        self._load_s = load_s
        self._memory_rows = memory_rows
        self._transients: Counter[str] = Counter()
        self._device = ""

    def load(self, device: str) -> None:
        time.sleep(self._load_s)  # it is the thing under test: a slow load
        self._device = device
        self._note({"loaded": device})

    def preprocess(self, rows: Sequence[Any], parameters: Mapping[str, Any]) -> Sequence[Any]:
        if culprit := next((row for row in rows if isinstance(row, dict) and row.get("stumble")), None):
            raise ValueError(f"scripted stumble over {culprit}")
        _hang(row["stick"] for row in rows if isinstance(row, dict) and "stick" in row)
        if any(isinstance(row, dict) and "fatal" in row for row in rows):
            raise FatalError("scripted end")
        return [InvalidRequest(row["refuse"]) if isinstance(row, dict) and "refuse" in row else row for row in rows]

    def cost(self, row: Any) -> int:
        return int(row.get("cost", 1)) if isinstance(row, dict) else max(1, len(str(row)))

    def forward(self, batch: Sequence[Any]) -> list[Any]:
        with self._lock:
            Scripted._running += 1
            running = Scripted._running
        try:
            scripts = [row for row in batch if isinstance(row, dict)]
            time.sleep(self._pass_s + max((row.get("sleep_s", 0.0) for row in scripts), default=0.0))
            self._note({"rows": len(batch), "device": self._device, "running": running})
            for gate in (Path(row["until"]) for row in scripts if "until" in row):
                while not gate.exists():
                    time.sleep(0.01)
            if any(not Path(row["end_producers"]).exists() for row in scripts if "end_producers" in row):
                end_producers()
            for code in (row["exit"] for row in scripts if "exit" in row):
                os._exit(code)
            _hang(row["hang"] for row in scripts if "hang" in row)
            if self._memory_rows is not None and len(batch) > self._memory_rows:
                raise OutOfMemory(f"{len(batch)} rows")
            for row in scripts:
                if self._transients[digest(row)] < row.get("transient", 0):
                    self._transients[digest(row)] += 1
                    raise TransientError("scripted failure that passes")
            if culprit := next((row for row in scripts if _raises(row)), None):
                raise RuntimeError(f"scripted failure of {culprit}")
            if any(row.get("length") for row in scripts):
                return list(batch)[:-1]
            return list(batch)
        finally:
            with self._lock:
                Scripted._running -= 1

    def postprocess(self, output: Any, rows: Sequence[Any], parameters: Mapping[str, Any]) -> Sequence[Any]:
        return [{"text": _text(row), "digest": digest(row), **parameters} for row in output]

    def samples(self) -> Sequence[Any]:
        return ("warm-up",) if self._device else ()  # as a real model, it has none before it is loaded

    def _note(self, line: dict[str, Any]) -> None:
        if self._journal is not None:
            with self._journal.open("a") as journal:
                journal.write(json.dumps({"pid": os.getpid(), "at": time.time(), **line}) + "\n")


class Measured(Scripted):
    """Answers with the length of each text: a small reply to a large request."""

    def postprocess(self, output: Any, rows: Sequence[Any], parameters: Mapping[str, Any]) -> Sequence[Any]:
        return [len(row) for row in output]


class Brief(Scripted):
    """Answers with the digest alone."""

    def postprocess(self, output: Any, rows: Sequence[Any], parameters: Mapping[str, Any]) -> Sequence[Any]:
        return [{"digest": digest(row)} for row in output]
