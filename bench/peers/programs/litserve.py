"""The model behind LitServe."""

import base64
from typing import Any

import litserve

from bench import reference
from bench.peers.programs import job as jobs


class Bench(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002 - the CPU
        self._job = jobs.given()
        self._runner = jobs.model(self._job)

    def decode_request(self, request: dict[str, Any]) -> Any:
        row = request["inputs"][0]
        return base64.b64decode(row) if self._job.load == "T2" else row

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, x: list[Any]) -> list[Any]:
        return list(reference.answers(self._job.load, self._runner.run(x)))

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"outputs": [output]}


def main() -> None:
    job = jobs.given()
    api = Bench(max_batch_size=job.batch, batch_timeout=job.window_ms / 1000)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1)
    server.run(host="127.0.0.1", port=job.port, num_api_servers=1, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
