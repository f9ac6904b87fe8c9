"""The Kafka workers that tutorials show, and that are written in an afternoon."""

from bench.peers.base import ProgramPeer


class Naive(ProgramPeer):
    name = "consumer, one at a time"
    what = "confluent-kafka: poll, run, produce, flush, commit"
    program = "consumer"
    arguments = ("naive",)
    backlog = 5_000


class Batch(ProgramPeer):
    name = "consumer, batches"
    what = "confluent-kafka: consume 32, one forward pass, produce, flush, commit"
    program = "consumer"
    arguments = ("batch",)
