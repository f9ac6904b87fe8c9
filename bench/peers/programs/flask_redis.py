"""The Flask and Redis design that tutorials show: `lpop` up to 32 queries, one forward pass, `set` each result.

The handler and the model's thread spin, as there; with an argument they sleep so many seconds instead.
"""

import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import orjson
import redis
from flask import Flask, Response, request

from bench import reference
from bench.peers.programs import job as jobs

QUEUE = "queries"
PAUSE_S = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0


def main() -> None:
    job = jobs.given()
    store: Any = redis.Redis(unix_socket_path=str(Path(job.folder) / "redis.sock"))
    app = Flask("bench")

    @app.post("/predict")
    def predict() -> Response:
        query = str(uuid.uuid1())
        store.rpush(QUEUE, query.encode() + b" " + request.get_data())
        while (result := store.get(query)) is None:
            if PAUSE_S:
                time.sleep(PAUSE_S)
        store.delete(query)
        return Response(result, mimetype="application/json")

    threading.Thread(target=serve, args=(job, store), daemon=True).start()
    app.run(host="127.0.0.1", port=job.port, threaded=True)


def serve(job: Any, store: Any) -> None:
    model = jobs.model(job)
    while True:
        count = min(store.llen(QUEUE), job.batch)
        if count == 0:
            if PAUSE_S:
                time.sleep(PAUSE_S)
            continue
        queries = [store.lpop(QUEUE).split(b" ", 1) for _ in range(count)]
        outputs = model.run([jobs.row_of(job, body) for _, body in queries])
        for (query, _), answer in zip(queries, reference.answers(job.load, outputs), strict=True):
            store.set(query, orjson.dumps({"outputs": [answer]}))


if __name__ == "__main__":
    main()
