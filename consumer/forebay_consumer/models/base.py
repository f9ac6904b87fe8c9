"""What the built-in models share: options, loading by transformers, and the edge that translates torch's errors."""

import contextlib
import hashlib
import os
import platform
import shutil
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import structlog
import torch
import transformers

from forebay_consumer.errors import BadConfig, FatalError, ModelUnavailable, OutOfMemory
from forebay_consumer.meaning import translated
from forebay_consumer.model import Model
from forebay_consumer.models.precision import multiplies_bfloat16, scores_differ
from forebay_schemas import InvalidRequest, RequestError

_DTYPES: Final = {
    "checkpoint": "auto",
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "fast": torch.float32,  # until `tune` finds that bfloat16 does as well
}
_KINDS_OF_ALL_COPIES: Final = 256
_CONFIGS: Final = ("config.json", "adapter_config.json")  # the second is an adapter's, which names its own base

# transformers changes torch's defaults for the whole process while it loads: two loads at once spoil each other.
_loading: Final = threading.Lock()


class TorchModel(Model):
    """A transformers checkpoint on one device. Weights are safetensors only; no code of the checkpoint is run.

    Args:
        path: folder, or name on a hub.
        dtype: `checkpoint` (default, as saved), `float32`, `bfloat16`, or `fast`: bfloat16 where the device multiplies
            it natively and the outputs of the samples stay within the task's tolerance, else float32.
        threads: torch's intra-op threads for the whole process; None leaves torch's choice.
        trust_remote_code: run Python code that comes with the checkpoint; off unless set.
        compile: let torch.compile make kernels for this model before the first request, which takes a minute or two.
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
        self,
        path: str,
        dtype: str = "checkpoint",
        threads: int | None = None,
        trust_remote_code: bool = False,
        compile: bool = False,  # noqa: A002 - the option's name, as torch says it
    ) -> None:
        check_option("dtype", dtype, dtype in _DTYPES, ", ".join(_DTYPES))
        check_option("threads", threads, threads is None or is_positive(threads), "positive integers, or null")
        check_option("compile", compile, isinstance(compile, bool), "true and false")
        # A folder's name is made whole here; a hub name stays as it is.
        self._path = str(Path(path).expanduser()) if path.startswith("~") else path
        self._dtype = _DTYPES[dtype]
        self._fast = dtype == "fast"
        self._compile = compile
        self._threads = threads
        self._trust_remote_code = trust_remote_code
        self._device = "cpu"
        self._model: Any = None
        self._log = structlog.get_logger()

    def load(self, device: str) -> None:
        """Load the checkpoint onto `device`; one at a time in a process, others wait.

        Raises:
            ModelUnavailable: no such folder, no config.json or safetensors in it, or weights that the task needs are
                missing; or it is to be compiled, and there is no compiler.
        """
        if self._compile:
            _check_compiler()
        # A path that is meant as a folder must not be looked up on a hub when it is missing.
        if self._path.startswith((".", "/")) and not Path(self._path).is_dir():
            raise ModelUnavailable(f"model.path={self._path!r}: there is no such folder")
        _check_folder(self._path)
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
        self.precision = _name_of(self._model.dtype)

    def tune(self, rows: Sequence[Any]) -> None:
        """Settle the precision, then compile if that is asked for.

        Raises:
            ModelUnavailable: the model cannot be compiled.
        """
        rows = [*self.precision_rows(), *rows]
        if self._fast:
            reason = self._take_bfloat16(rows)
            self.precision = _name_of(self._model.dtype)
            self._log.info(
                "precision settled", action="precision", device=self._device, dtype=self.precision, reason=reason
            )
        if self._compile:
            self._compile_for(rows)

    def precision_rows(self) -> Sequence[Any]:
        """Raw rows, many and varied, on which another precision and compiled kernels are tried out."""
        return self.samples()

    def differ(self, exact: Any, other: Any) -> str | None:  # noqa: ARG002 - a hook with a default
        """Why outputs of `forward` are too far from the exact ones to stand for them; None where they are not."""
        return "no tolerance is stated for this task"

    def _take_bfloat16(self, rows: Sequence[Any]) -> str | None:
        """Go over to bfloat16, or say why not. Both copies of the weights are in memory until that is known."""
        if not multiplies_bfloat16(self._device):
            return "the device does not multiply bfloat16 natively"
        prepared = self._prepared(rows)
        if not prepared:
            return "there is no sample to check it with"
        try:
            expected = [self.forward(self.collate([row])) for row in prepared]
            with converted(self._model, torch.bfloat16) as keep:
                if reason := self._bfloat16_differs(prepared, expected):
                    return reason
                keep()
        except OutOfMemory:
            return "the device cannot hold both copies of the weights"
        return None

    def _bfloat16_differs(self, prepared: Sequence[Any], expected: Sequence[Any]) -> str | None:
        for row, exact in zip(prepared, expected, strict=True):
            try:
                found = self.forward(self.collate([row]))
            except (FatalError, OutOfMemory):
                raise
            except Exception as error:  # an operator without bfloat16, a table that stayed in float32
                return f"it raises {type(error).__name__} in bfloat16: {error}"
            if reason := self.differ(exact, found):
                return reason
        return None

    def _compile_for(self, rows: Sequence[Any]) -> None:
        prepared = self._prepared(rows)
        # The compiler keeps the kernels of all copies together, and from the ninth on it makes none.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _KINDS_OF_ALL_COPIES)
        # Frozen weights are constants of the kernels; what a GPU gains by that is not known here.
        options = {"freezing": True} if self._device == "cpu" else {}
        try:
            with _loading:  # another copy that loads changes torch's defaults, at which the compiler gives up
                self._model.compile(dynamic=True, options=options)
                for batch in self.batches_of_each_kind(prepared) if prepared else ():
                    self.forward(self.collate(batch))
        except Exception as error:  # the compiler's own tree of errors, and whatever the checkpoint's code raises there
            raise ModelUnavailable(f"model.options.compile=true: the model cannot be compiled: {error}") from error

    def batches_of_each_kind(self, rows: Sequence[Any]) -> Iterable[Sequence[Any]]:
        """Batches of the prepared `rows`, one for each case that the compiler makes kernels of its own for.

        Any number of rows is one case, a single row another.
        """
        return [rows[-1:], [rows[-1]] * 2]

    def _prepared(self, rows: Sequence[Any]) -> list[Any]:
        return [row for row in self.preprocess(rows, {}) if not isinstance(row, RequestError)]

    def to_device(self, values: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        """A copy on the model's device; a GPU's is made from pinned memory, and the host does not wait for it.

        Whatever runs on the device afterwards sees it whole: both are in one stream.
        """
        if self._device.startswith("cuda"):
            return values.pin_memory().to(self._device, dtype, non_blocking=True)
        return values.to(self._device, dtype)

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
            output = self._run(batch)
            if self._device.startswith("cuda"):  # what a task leaves there may not be computed yet
                torch.cuda.synchronize(self._device)
        return output

    @abstractmethod
    def _run(self, batch: Any) -> Any:
        """The task's own part of `forward`."""

    def profile_file(self) -> Path | None:
        folder = Path(self._path).resolve()
        return folder.with_name(f"{folder.name}.profile.json") if folder.is_dir() else None

    def profile_key(self) -> str:
        """Shapes and settings tell, not the weights' values: of those only the size is looked at."""
        told = hashlib.sha256()
        folder = Path(self._path)
        for file in sorted(filter(Path.is_file, folder.iterdir())) if folder.is_dir() else ():
            if file.suffix == ".json":
                told.update(file.read_bytes())
            elif file.suffix == ".safetensors":
                told.update(f"{file.name} {file.stat().st_size}".encode())
        chip = torch.cuda.get_device_name(self._device) if self._device.startswith("cuda") else _cpu_name()
        versions = f"torch-{torch.__version__} transformers-{transformers.__version__}"
        how = f"{self.precision} {self.packing or self.unpacked}{' compiled' if self._compile else ''}"
        threads = f"{torch.get_num_threads()} of {os.cpu_count()}"
        return f"{type(self).__name__} {told.hexdigest()[:16]} {self._device} {chip} {how} {threads} {versions}"

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
            return numbers(logits)
        if config.problem_type == "multi_label_classification" or config.num_labels == 1:
            return numbers(logits.sigmoid())
        return numbers(logits.softmax(-1))

    def differ(self, exact: Any, other: Any) -> str | None:
        return scores_differ(exact, other)

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


def numbers(values: torch.Tensor) -> Any:
    """The same as numpy.

    Raises:
        ValueError: some are infinite or no numbers, for which JSON has no word; half precision overflows so.
    """
    found = values.cpu().numpy()
    if not np.isfinite(found).all():
        raise ValueError("the model gave what is no number, as half precision does where it overflows")
    return found


def _check_folder(path: str) -> None:
    """Of a folder that is no checkpoint transformers says what it misses first, and that may be sentencepiece."""
    folder = Path(path)
    if not folder.is_dir() or any((folder / name).is_file() for name in _CONFIGS):
        return
    held = sorted(each.name + ("/" if each.is_dir() else "") for each in folder.iterdir())
    more = f" and {len(held) - 5} more" if len(held) > 5 else ""
    raise ModelUnavailable(
        f"model.path={path!r}: the folder holds no config.json, so it is no transformers checkpoint; it holds "
        + (", ".join(held[:5]) + more if held else "nothing")
    )


def _check_compiler() -> None:
    compilers = [*os.environ.get("CXX", "").split()[:1], "g++", "clang++"]
    if not any(map(shutil.which, compilers)):
        raise ModelUnavailable(
            f"model.options.compile=true: there is no C++ compiler ({', '.join(compilers)}); install one, or leave "
            "compile off"
        )


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return f"{platform.processor() or platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@contextmanager
def converted(model: torch.nn.Module, dtype: torch.dtype) -> Iterator[Callable[[], None]]:
    """Convert the weights in place: whoever holds the model or a part of it sees them.

    Both copies are in memory until the end; then the former weights return, unless what is given was called.

    Raises:
        OutOfMemory: the device cannot hold both.
    """
    weights = [(each, each.data) for each in model.parameters()]
    buffers = [(each, dict(each._buffers)) for each in model.modules()]
    kept: list[bool] = []
    try:
        with translated_memory_errors():
            model.to(dtype)
        for module, names in buffers:
            # What is worked out and not saved, as frequencies of rotary positions, stays exact when transformers loads
            # bfloat16, too: rounded, they turn far positions by whole fractions of a circle.
            module._buffers.update({name: names[name] for name in module._non_persistent_buffers_set & names.keys()})
        yield lambda: kept.append(True)
    finally:
        if not kept:
            for parameter, former in weights:
                parameter.data = former
            for module, names in buffers:
                module._buffers.update(names)


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
