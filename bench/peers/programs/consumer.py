"""Hand-written Kafka workers: `naive` runs each message alone and commits after it, `batch` takes full ones."""

import sys
from typing import Any

from confluent_kafka import Consumer, Producer

from bench import reference
from bench.peers.programs import job as jobs


def main() -> None:
    job = jobs.given()
    size = 1 if sys.argv[1] == "naive" else job.batch
    model = jobs.model(job)
    consumer: Any = Consumer(
        {
            "bootstrap.servers": job.servers,
            "group.id": f"{job.requests}-{sys.argv[1]}",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    producer: Any = Producer({"bootstrap.servers": job.servers, "enable.idempotence": True})
    consumer.subscribe([job.requests])
    while True:
        if size == 1:
            message = consumer.poll(1.0)
            messages = [message] if message is not None else []
        else:
            messages = consumer.consume(size, job.window_ms / 1000)
        messages = [message for message in messages if message.error() is None]
        if not messages:
            continue
        outputs = model.run([jobs.row_of(job, message.value()) for message in messages])
        for message, answer in zip(messages, reference.answers(job.load, outputs), strict=True):
            producer.produce(job.replies, jobs.reply(message.key().decode(), answer), message.key())
        producer.flush()
        consumer.commit(asynchronous=False)


if __name__ == "__main__":
    main()
