"""MLServer with its Kafka server. It reads without a group, from the newest offset on, and commits nothing."""

import json
from collections.abc import Sequence
from pathlib import Path

from bench.peers.base import Job, V2Peer, free_port


class MLServer(V2Peer):
    name = "MLServer"
    what = "its Kafka server, adaptive batching"
    requirements = "mlserver"
    backlog = 2_000

    def commands(self, job: Job) -> Sequence[Sequence[str]]:
        folder = Path(job.folder) / "mlserver"
        folder.mkdir(exist_ok=True)
        settings = {
            "kafka_enabled": True,
            "kafka_servers": job.servers,
            "kafka_topic_input": job.requests,
            "kafka_topic_output": job.replies,
            "parallel_workers": 0,
            "http_port": free_port(),
            "grpc_port": free_port(),
            "metrics_port": free_port(),
            "debug": False,
        }
        model = {
            "name": "bench",
            "implementation": "bench.peers.programs.mlserver_runtime.Bench",
            "max_batch_size": job.batch,
            "max_batch_time": job.window_ms / 1000,
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / "model-settings.json").write_text(json.dumps(model))
        return [[str(self.python().parent / "mlserver"), "start", str(folder)]]

    def headers(self) -> Sequence[tuple[str, bytes]]:
        return (("mlserver-model", b"bench"),)
