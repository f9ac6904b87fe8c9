"""LitServe, asked over HTTP."""

import base64
from typing import Any

import orjson

from bench.peers.base import ProgramPeer


class LitServe(ProgramPeer):
    name = "LitServe"
    what = "max_batch_size, batch_timeout, HTTP"
    by_kafka = False
    requirements = "litserve"
    program = "litserve"
    url_path = "/predict"

    def body(self, request_id: str, row: Any) -> bytes:
        value = base64.b64encode(row).decode() if isinstance(row, bytes) else row
        return orjson.dumps({"id": request_id, "inputs": [value]})
