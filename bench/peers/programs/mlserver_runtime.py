"""The model as an MLServer runtime."""

from typing import Any

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from bench.peers.programs import job as jobs


class Bench(MLModel):
    async def load(self) -> bool:
        self._job = jobs.given()
        self._runner = jobs.model(self._job)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        tensor = payload.inputs[0]
        values: Any = tensor.data.root
        if self._job.load == "T3":
            rows: Any = np.asarray(values, dtype=np.float32).reshape(tensor.shape)
        else:
            rows = [jobs.row_of_tensor(self._job, value) for value in values]
        outputs = self._runner.run(rows)
        if self._job.load == "T2":
            best = outputs.argmax(-1)
            outputs = np.stack([best.astype(np.float32), outputs.max(-1)], axis=-1)  # [B, 2]
        return InferenceResponse(
            id=payload.id, model_name=self.name, outputs=[NumpyCodec.encode_output("answers", outputs)]
        )
