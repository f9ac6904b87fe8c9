"""What the built-in models share: options, loading by transformers, and the edge where torch's errors are translated."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import torch

from forebay_consumer.errors import BadConfig, ModelUnavailable, OutOfMemory
from forebay_consumer.model import Model
from forebay_schemas import InvalidRequest

_DTYPES: Final = {"checkpoint": "auto", "float32": torch.float32, "bfloat16": torch.bfloat16}


class TorchModel(Model):
    """A transformers checkpoint on one device. Weights are safetensors only; no code of the checkpoint is run.

    Args:
        path: folder, or name on a hub.
        dtype: `checkpoint` (default, as saved), `float32` or `bfloat16`.
        threads: torch's intra-op threads for the whole process; None leaves torch's choice.
        trust_remote_code: run Python code that comes with the checkpoint; off unless set.
    """

    auto_class: ClassVar[str]
    """Name of the transformers Auto class that loads the checkpoint."""

    allowed_parameters: ClassVar[frozenset[str]] = frozenset()
    """Request parameters that the task understands."""

    def __init__(
        self, path: str, dtype: str = "checkpoint", threads: int | None = None, trust_remote_code: bool = False
    ) -> None:
        if dtype not in _DTYPES:
            raise BadConfig(f"model.options.dtype={dtype!r}: allowed are {', '.join(_DTYPES)}")
        self._path = path
        self._dtype = _DTYPES[dtype]
        self._threads = threads
        self._trust_remote_code = trust_remote_code
        self._model: Any = None
        self._device = "cpu"

    def load(self, device: str) -> None:
        """Load the checkpoint onto `device`.

        Raises:
            ModelUnavailable: there is no such folder, or it has no safetensors, or it is for another task.
        """
        import transformers

        if self._threads is not None:
            torch.set_num_threads(self._threads)
        # A path that is meant as a folder must not be looked up on a hub when it is missing.
        if self._path.startswith((".", "/", "~")) and not Path(self._path).expanduser().is_dir():
            raise ModelUnavailable(f"no checkpoint folder at {self._path}")
        loader = getattr(transformers, self.auto_class)
        try:
            self._load_processor(transformers)
            self._model = loader.from_pretrained(
                str(Path(self._path).expanduser()),
                dtype=self._dtype,
                use_safetensors=True,
                trust_remote_code=self._trust_remote_code,
            )
        except (OSError, ValueError, KeyError) as error:
            raise ModelUnavailable(f"{self._path} cannot be loaded as {self.auto_class}: {error}") from error
        self._device = device
        self._model.eval().to(device)

    def _load_processor(self, transformers: Any) -> None:
        """Load the tokenizer or image processor of the checkpoint."""
        raise NotImplementedError

    def _check_parameters(self, parameters: Mapping[str, Any]) -> None:
        unknown = sorted(set(parameters) - self.allowed_parameters)
        if unknown:
            allowed = ", ".join(sorted(self.allowed_parameters)) or "none"
            raise InvalidRequest(f"parameters: {unknown[0][:80]!r} is unknown; allowed: {allowed}")

    def forward(self, batch: Any) -> Any:
        """Run the model without gradients; `_run` is the task's own part.

        Raises:
            OutOfMemory: the device could not hold the batch.
        """
        try:
            with torch.inference_mode():
                return self._run(batch)
        except torch.OutOfMemoryError as error:
            raise OutOfMemory("the device could not hold the batch") from error
        except RuntimeError as error:
            if "not enough memory" in str(error) or "can't allocate memory" in str(error):  # torch's CPU allocator
                raise OutOfMemory("the machine could not hold the batch") from error
            raise

    def _run(self, batch: Any) -> Any:
        return self._model(**batch)

    @classmethod
    def default_devices(cls) -> Sequence[str]:
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]


def top_k(parameters: Mapping[str, Any], default: int | None) -> int | None:
    """The request parameter `top_k`: a positive integer, or null or -1 for all.

    Returns:
        The number, 0 for all, or `default` when it is not given.
    """
    if "top_k" not in parameters:
        return default
    value = parameters["top_k"]
    if value is None or value == -1:
        return 0
    if type(value) is not int or value < 1:
        raise InvalidRequest(
            f"parameters: top_k: expected a positive integer, or null or -1 for all, got {value!r:.40}"
        )
    return value


def scores(logits: Any, config: Any) -> Any:
    """Scores of class logits as transformers' pipelines give them: sigmoid for several labels or one, else softmax.

    Args:
        logits: float [B, C].
    Returns:
        float32 [B, C] on the CPU.
    """
    if config.problem_type == "regression":
        return logits.float().cpu()  # [B, C]
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return logits.float().sigmoid().cpu()  # [B, C]
    return logits.float().softmax(-1).cpu()  # [B, C]


def labelled(rows: Any, config: Any, parameters: Mapping[str, Any]) -> list[Any]:
    """Scores [B, C] as `{"label", "score"}`: the best one alone, or a list when the request says `top_k`."""
    wanted = top_k(parameters, None)
    outputs: list[Any] = []
    for row in rows:
        values, indices = row.topk(min(wanted or len(row), len(row)) if wanted is not None else 1)
        found = [
            {"label": config.id2label[index], "score": value}
            for index, value in zip(indices.tolist(), values.tolist(), strict=True)
        ]
        outputs.append(found[0] if wanted is None else found)
    return outputs
