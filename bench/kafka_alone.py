"""The limit of everything around the model: a bare confluent-kafka loop, in a process of its own on the model's core.

`python -m bench.kafka_alone SERVERS REQUESTS REPLIES COUNT copy|orjson` reads COUNT requests of T3 and writes as many
replies, with the headers, the size and the delivery callbacks of Forebay's; `orjson` reads each request and writes each
reply's JSON too. Prints one JSON row.
"""

import json
import sys
import time
from typing import Any, Final

import orjson
import psutil
from confluent_kafka import Consumer, Producer, TopicPartition

from bench.measure import MODEL_CORE, pin

OUTPUT: Final = (0.12345679, -1.2345679)  # as many digits as float32 has
LINGER_MS: Final = 50
"""As in the worker: with 0 the client's thread polls without a pause, which costs several times the sending itself."""
TIMING: Final = {"queue_ms": 1.234, "linger_ms": 1.234, "preprocess_ms": 1.234, "forward_ms": 1.234, "batch_size": 256}


def main() -> None:
    servers, requests, replies, count, mode = sys.argv[1:6]
    pin(MODEL_CORE)
    print(json.dumps(run(servers, requests, replies, int(count), with_json=mode == "orjson")))


def run(servers: str, requests: str, replies: str, count: int, with_json: bool) -> dict[str, Any]:
    consumer: Any = Consumer({"bootstrap.servers": servers, "group.id": f"{replies}-bare", "enable.auto.commit": False})
    sends = {"bootstrap.servers": servers, "enable.idempotence": True, "linger.ms": LINGER_MS, "log_level": 3}
    producer: Any = Producer(sends)
    consumer.assign([TopicPartition(requests, 0, 0)])
    delivered = taken = 0
    value = _reply("00000000-0")

    def on_delivery(error: Any, _: Any) -> None:
        nonlocal delivered
        assert error is None, error
        delivered += 1

    producer.produce(f"{replies}-first", value)  # the broker's part in the first write is no part of the loop
    assert producer.flush(30) == 0
    process = psutil.Process()
    before, started = process.cpu_times(), time.perf_counter()
    while taken < count:
        for message in consumer.consume(500, 0.05):
            key, body = message.key(), message.value()
            message.headers()
            if with_json:
                value = _reply(orjson.loads(body)["id"])
            headers = _headers(key, requests, message.offset())
            taken += 1
            while True:
                try:
                    producer.produce(replies, value, key, headers=headers, on_delivery=on_delivery)
                    break
                except BufferError:
                    producer.poll(0.01)
        producer.poll(0)
    producer.flush()
    wall, after = time.perf_counter() - started, process.cpu_times()
    assert delivered == count
    cpu = after.user + after.system - before.user - before.system
    return {"count": count, "per_s": count / wall, "cpu_ms": 1000 * cpu / count}


def _reply(request_id: str) -> bytes:
    return orjson.dumps(
        {"id": request_id, "model": "bench", "model_version": "1", "outputs": [OUTPUT], "timing": TIMING}
    )


def _headers(key: bytes, topic: str, offset: int) -> list[tuple[str, bytes]]:
    return [
        ("request-id", key),
        ("content-type", b"application/json"),
        ("model", b"bench"),
        ("model-version", b"1"),
        ("status", b"ok"),
        ("source-topic", topic.encode()),
        ("source-partition", b"0"),
        ("source-offset", b"%d" % offset),
    ]


if __name__ == "__main__":
    main()
