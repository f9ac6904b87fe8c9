"""The job that a contender's program was given."""

import base64
import json
import os
from types import SimpleNamespace
from typing import Any

import orjson

from bench import reference


def given() -> Any:
    """See `bench.peers.base.Job`."""
    return SimpleNamespace(**json.loads(os.environ["BENCH_JOB"]))


def model(job: Any) -> reference.Runner:
    """The job's model, loaded and warm."""
    runner = reference.loaded(job.load, job.path, job.dtype)
    if job.load == "T1":
        runner.run(["a short text", "and another one that is a little longer"])
    return runner


def row_of(job: Any, body: bytes) -> Any:
    """The row that a plain request carries."""
    return body if job.load == "T2" else orjson.loads(body)["inputs"][0]


def row_of_tensor(job: Any, value: Any) -> Any:
    """A row as the model takes it, of an element of a tensor."""
    if isinstance(value, bytes):
        value = value.decode()
    return base64.b64decode(value) if job.load == "T2" else value


def reply(request_id: Any, answer: Any) -> bytes:
    return orjson.dumps({"id": request_id, "outputs": [answer]})
