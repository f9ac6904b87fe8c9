"""The model behind Triton."""

from typing import Any

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from bench.peers.programs import job as jobs


def main() -> None:
    job = jobs.given()
    model = jobs.model(job)
    floats = job.load == "T3"

    @batch
    def infer(rows: Any) -> list[Any]:
        given = rows if floats else [jobs.row_of_tensor(job, row) for row in rows[:, 0]]
        outputs = model.run(given)
        if job.load == "T2":
            outputs = np.stack([outputs.argmax(-1).astype(np.float32), outputs.max(-1)], axis=-1)  # [B, 2]
        return [outputs]

    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=job.port,
        allow_grpc=False,
        allow_metrics=False,
        log_verbose=0,
    )
    with Triton(config=config) as server:
        server.bind(
            model_name="bench",
            infer_func=infer,
            inputs=[Tensor(name="rows", dtype=np.float32 if floats else bytes, shape=(16,) if floats else (1,))],
            outputs=[Tensor(name="answers", dtype=np.float32, shape=(-1,))],
            config=ModelConfig(
                max_batch_size=job.batch,
                batcher=DynamicBatcher(max_queue_delay_microseconds=int(job.window_ms * 1000)),
            ),
        )
        server.serve()


if __name__ == "__main__":
    main()
