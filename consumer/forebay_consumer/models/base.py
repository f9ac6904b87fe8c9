"""What the built-in models share: options, loading by transformers, and the edge that translates torch's errors."""

import threading
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import torch
import transformers

from forebay_consumer.errors import BadConfig, ModelUnavailable
from forebay_consumer.meaning import translated
from forebay_consumer.model import Model
from forebay_schemas import InvalidRequest

_DTYPES: Final = {"checkpoint": "auto", "float32": torch.float32, "bfloat16": torch.bfloat16}

# transformers changes torch's defaults for the whole process while it loads: two loads at once spoil each other.
_loading: Final = threading.Lock()


class TorchModel(Model):
    """A transformers checkpoint on one device. Weights are safetensors only; no code of the checkpoint is run.

    Args:
        path: folder, or name on a hub.
        dtype: `checkpoint` (default, as saved), `float32` or `bfloat16`.
        threads: torch's intra-op threads for the whole process; None leaves torch's choice.
        trust_remote_code: run Python code that comes with the checkpoint; off unless set.
    Raises:
        BadConfig: an option has a value that is not allowed.
    """

    auto_class: ClassVar[str]
    """Name of the transformers Auto class that loads the checkpoint."""

    allowed_parameters: ClassVar[frozenset[str]] = frozenset()
    """Request parameters that the task understands."""

    unused_weights: ClassVar[str | None] = None
    """A word in the names of weights that the task does without; any other that is missing is refused."""

    def __init__(
        self, path: str, dtype: str = "checkpoint", threads: int | None = None, trust_remote_code: bool = False
    ) -> None:
        check_option("dtype", dtype, dtype in _DTYPES, ", ".join(_DTYPES))
        check_option("threads", threads, threads is None or is_positive(threads), "positive integers, or null")
        # A folder's name is made whole here; a hub name stays as it is.
        self._path = str(Path(path).expanduser()) if path.startswith("~") else path
        self._dtype = _DTYPES[dtype]
        self._threads = threads
        self._trust_remote_code = trust_remote_code
        self._device = "cpu"
        self._model: Any = None

    def load(self, device: str) -> None:
        """Load the checkpoint onto `device`; one at a time in a process, others wait.

        Raises:
            ModelUnavailable: no such folder, no safetensors in it, or weights that the task needs are missing.
        """
        # A path that is meant as a folder must not be looked up on a hub when it is missing.
        if self._path.startswith((".", "/")) and not Path(self._path).is_dir():
            raise ModelUnavailable(f"model.path={self._path!r}: there is no such folder")
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        with _loading:
            transformers.utils.logging.disable_progress_bar()
            try:
                self._load_processor()
                loader = getattr(transformers, self.auto_class)
                model, report = loader.from_pretrained(
                    self._path,
                    dtype=self._dtype,
                    use_safetensors=True,
                    trust_remote_code=self._trust_remote_code,
                    output_loading_info=True,
                )
                self._model = model.eval().to(device)
            except Exception as error:  # whatever transformers raises, and so does the code of a trusted checkpoint
                raise ModelUnavailable(
                    f"model.path={self._path!r} cannot be loaded as {self.auto_class} on {device}: {error}"
                ) from error
        # transformers makes up what a checkpoint lacks (a head, say) at random, and answers with it.
        missing = sorted(
            name for name in report["missing_keys"] if self.unused_weights is None or self.unused_weights not in name
        )
        if missing:
            raise ModelUnavailable(
                f"model.path={self._path!r} is no checkpoint for {self.auto_class}: it lacks the weights "
                + ", ".join(missing[:5])
                + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
            )
        self._device = device

    @abstractmethod
    def _load_processor(self) -> None:
        """Load the tokenizer or image processor of the checkpoint."""

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Refuse request parameters that the task does not know.

        Raises:
            InvalidRequest: the name is unknown or the value is of the wrong kind; the message says what is allowed.
        """
        for name in parameters:
            if name not in self.allowed_parameters:
                allowed = ", ".join(sorted(self.allowed_parameters)) or "none"
                raise InvalidRequest(f"parameters: {name[:80]!r} is unknown; allowed: {allowed}")
        top_k(parameters, 1)

    def forward(self, batch: Any) -> Any:
        """Run the model once, without gradients; blocks until the device is done.

        Raises:
            OutOfMemory: the device could not hold the batch.
        """
        with translated_memory_errors(), torch.inference_mode():
            return self._run(batch)

    @abstractmethod
    def _run(self, batch: Any) -> Any:
        """The task's own part of `forward`."""

    @classmethod
    def default_devices(cls) -> Sequence[str]:
        """Every visible GPU, else the CPU."""
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]


class Classification(TorchModel):
    """The best class as `{"label", "score"}`; with the request parameter `top_k` a list of them, best first.

    Scores are those of transformers' pipelines: sigmoid for several labels at once or a single one, the bare output
    for regression, else softmax.
    """

    allowed_parameters = frozenset({"top_k"})

    def _logits(self, batch: Any) -> torch.Tensor:
        """Float32 [B, C]."""
        logits: torch.Tensor = self._model(**batch).logits.float()
        return logits

    def _run(self, batch: Any) -> Any:
        """Scores as numpy, float32 [B, C]."""
        logits = self._logits(batch)  # [B, C]
        config = self._model.config
        if config.problem_type == "regression":
            return logits.cpu().numpy()
        if config.problem_type == "multi_label_classification" or config.num_labels == 1:
            return logits.sigmoid().cpu().numpy()
        return logits.softmax(-1).cpu().numpy()

    def postprocess(
        self,
        output: Any,
        rows: Sequence[Any],  # noqa: ARG002 - the output says it all
        parameters: Mapping[str, Any],
    ) -> Sequence[Any]:
        if "top_k" not in parameters:
            return [self._answer(row, index) for row, index in zip(output, output.argmax(-1), strict=True)]
        # Stable: equal scores keep the order of the labels, as in transformers' pipelines.
        order = np.argsort(-output, axis=-1, kind="stable")[:, : top_k(parameters, 1)]  # [B, K]
        return [[self._answer(row, index) for index in best] for row, best in zip(output, order, strict=True)]

    def _answer(self, scores: Any, index: Any) -> dict[str, Any]:
        return {"label": self._model.config.id2label[int(index)], "score": float(scores[index])}


@contextmanager
def translated_memory_errors() -> Iterator[None]:
    """The edge at which "out of memory", which torch says in several ways, becomes `OutOfMemory`, and so on."""
    with translated():
        yield


def top_k(parameters: Mapping[str, Any], default: int) -> int | None:
    """The request parameter `top_k`: how many answers, None for all, `default` where it is not given.

    Raises:
        InvalidRequest: it is neither a positive integer nor null or -1.
    """
    value = parameters.get("top_k", default)
    if value is None or (type(value) is int and value == -1):
        return None
    if not is_positive(value):
        raise InvalidRequest(
            f"parameters: top_k={value!r:.40} is not allowed; a positive integer is, and null or -1 for all"
        )
    return int(value)


def is_positive(value: Any) -> bool:
    """Whether it is an integer of at least 1, and no boolean."""
    return type(value) is int and value >= 1


def check_option(name: str, value: Any, allowed: bool, what: str) -> None:
    """Raise BadConfig naming the option, its value and what is allowed, unless it is."""
    if not allowed:
        raise BadConfig(f"model.options.{name}={value!r}: allowed are {what}")
