"""Loading, devices and memory: what all built-in models share."""

import contextlib
import json
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forebay_consumer.errors import ModelUnavailable, OutOfMemory
from forebay_consumer.models.registry import TASKS, model_class
from unit.consumer.models.tiny import TEXTS, Checkpoint, Loaded, run

pytestmark = pytest.mark.models


def _really_too_large(**_: Any) -> Any:
    import torch

    return torch.empty(2**50, dtype=torch.uint8)


def _cuda_says(**_: Any) -> Any:
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory.")


def _raising(error: Exception) -> Callable[..., Any]:
    def raises(**_: Any) -> Any:
        raise error

    return raises


@pytest.mark.parametrize(
    "model_call",
    [
        pytest.param(_really_too_large, id="cpu"),
        pytest.param(_cuda_says, id="cuda"),
        pytest.param(_raising(RuntimeError("CUDA error: out of memory")), id="driver"),
        pytest.param(_raising(RuntimeError("cublasCreate: CUBLAS_STATUS_ALLOC_FAILED")), id="cublas"),
        pytest.param(_raising(MemoryError()), id="python"),
    ],
)
def test_out_of_memory_is_said_in_one_way(loaded: Loaded, model_call: Callable[..., Any]) -> None:
    model = loaded("text-classification", "classes", packing="off")
    batch = model.collate(model.preprocess(TEXTS, {}))
    model._model = model_call  # type: ignore[attr-defined]
    with pytest.raises(OutOfMemory) as translated:
        model.forward(batch)
    assert translated.value.__cause__ is not None


def test_a_pass_on_a_gpu_is_over_when_the_device_is_done(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """The masks' scores stay there, and would be waited for by whoever looks at them."""
    import torch

    waited: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    model: Any = loaded("fill-mask", "masked", packing="off")
    batch = model.collate(model.preprocess(["the [MASK]"], {}))
    monkeypatch.setattr(model, "_device", "cuda:1")
    model.forward(batch)
    assert waited == ["cuda:1"]


def test_another_error_of_the_model_is_left_as_it_is(loaded: Loaded) -> None:
    model = loaded("text-classification", "classes", packing="off")
    batch = model.collate(model.preprocess(TEXTS, {}))
    model._model = _raising(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="mat1"):
        model.forward(batch)


@pytest.mark.parametrize("task", TASKS)
def test_a_missing_folder_is_named(task: str, tmp_path: Path) -> None:
    model = model_class(task, None)(path=str(tmp_path / "nothing"))  # type: ignore[call-arg]
    with pytest.raises(ModelUnavailable, match=r"nothing'.*no such folder"):
        model.load("cpu")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        pytest.param([], "it holds nothing", id="empty"),
        pytest.param(["digits/config.json", "a.txt"], r"it holds a\.txt, digits/", id="the folder above"),
        pytest.param(list("hgfedcba"), "it holds a, b, c, d, e and 3 more", id="many"),
    ],
)
@pytest.mark.parametrize("task", TASKS)
def test_a_folder_that_is_no_checkpoint_is_told_with_what_it_holds(
    task: str, files: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in files:
        (tmp_path / "models" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "models" / name).touch()
    (tmp_path / "models").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path)
    model = model_class(task, None)(path="models")  # type: ignore[call-arg]
    with pytest.raises(ModelUnavailable, match=rf"model\.path='models': the folder holds no config\.json, .*; {said}$"):
        model.load("cpu")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_checkpoint_that_lacks_a_file_is_unavailable(checkpoint: Checkpoint, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "lacking"
    shutil.copytree(checkpoint("classes"), folder)
    (folder / name).unlink()
    if name == "tokenizer.json":
        (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ModelUnavailable, match="lacking"):
        model_class("text-classification", None)(path=str(folder)).load("cpu")  # type: ignore[call-arg]


def test_pickled_weights_are_not_read(checkpoint: Checkpoint, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = tmp_path / "pickled"
    shutil.copytree(checkpoint("classes"), folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match="safetensors"):
        model_class("text-classification", None)(path=str(folder)).load("cpu")  # type: ignore[call-arg]


def with_code(folder: Path, model_type: str | None) -> Path:
    """Give a checkpoint Python code for its configuration, model and tokenizer, which leaves a trace when it is run."""
    trace = folder / "trace"
    (folder / "mine.py").write_text(
        f"import pathlib\npathlib.Path({str(trace)!r}).touch()\n"
        "import transformers\n"
        # Classes of its own: transformers marks those that it loads from a checkpoint, for the rest of the process.
        "class Config(transformers.BertConfig): pass\n"
        "class Model(transformers.BertForSequenceClassification): pass\n"
        "class Tokenizer(transformers.BertTokenizerFast): pass\n"
    )
    for name, classes in (
        ("config.json", {"AutoConfig": "mine.Config", "AutoModelForSequenceClassification": "mine.Model"}),
        ("tokenizer_config.json", {"AutoTokenizer": [None, "mine.Tokenizer"]}),
    ):
        config = json.loads((folder / name).read_text())
        config["auto_map"] = classes
        if model_type is not None and "model_type" in config:
            config["model_type"] = model_type
        (folder / name).write_text(json.dumps(config))
    return trace


def test_the_code_of_a_checkpoint_is_not_run(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "coded"
    shutil.copytree(checkpoint("classes"), folder)
    trace = with_code(folder, "of-my-own")
    with pytest.raises(ModelUnavailable, match=r"(?s)coded'.*trust_remote_code=True"):
        model_class("text-classification", None)(path=str(folder)).load("cpu")  # type: ignore[call-arg]
    assert not trace.exists()


def test_the_code_of_a_checkpoint_that_needs_none_is_not_run(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "coded"
    shutil.copytree(checkpoint("classes"), folder)
    trace = with_code(folder, None)
    model = model_class("text-classification", None)(path=str(folder))  # type: ignore[call-arg]
    model.load("cpu")
    assert not trace.exists()
    assert run(model, ["Short."])


def test_the_code_of_a_trusted_checkpoint_is_run(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "trusted"
    shutil.copytree(checkpoint("classes"), folder)
    trace = with_code(folder, "of-my-own")
    with contextlib.suppress(ModelUnavailable):  # a model would be more than this code makes
        model_class("text-classification", None)(path=str(folder), trust_remote_code=True).load("cpu")  # type: ignore[call-arg]
    assert trace.exists()


def test_broken_weights_are_unavailable(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(checkpoint("classes"), folder)
    (folder / "model.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(ModelUnavailable, match="broken"):
        model_class("text-classification", None)(path=str(folder)).load("cpu")  # type: ignore[call-arg]


def test_an_unknown_device_is_unavailable(checkpoint: Checkpoint) -> None:
    with pytest.raises(ModelUnavailable, match="cuda:99"):
        model_class("text-classification", None)(path=str(checkpoint("classes"))).load("cuda:99")  # type: ignore[call-arg]


def test_copies_that_load_at_the_same_time_do_not_mix_their_dtypes(checkpoint: Checkpoint) -> None:
    found: list[tuple[str, str]] = []

    def load(dtype: str) -> None:
        model: Any = model_class("text-classification", None)(path=str(checkpoint("classes")), dtype=dtype)  # type: ignore[call-arg]
        model.load("cpu")
        run(model, TEXTS)
        found.extend((f"torch.{dtype}", str(weights.dtype)) for weights in model._model.parameters())

    threads = [threading.Thread(target=load, args=(dtype,)) for dtype in ("float32", "bfloat16") * 6]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12 * 41
    assert {asked for asked, _ in found} == {"torch.float32", "torch.bfloat16"}
    assert [pair for pair in found if pair[0] != pair[1]] == []


def test_default_devices_are_the_gpus_else_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    model = model_class("feature-extraction", None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert model.default_devices() == ["cuda:0", "cuda:1"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert model.default_devices() == ["cpu"]


def test_threads_are_torchs(loaded: Loaded) -> None:
    import torch

    before = torch.get_num_threads()
    try:
        loaded("text-classification", "classes", threads=before + 1)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_a_profile_lies_beside_the_folder_and_not_in_it(loaded: Loaded, checkpoint: Checkpoint) -> None:
    folder = checkpoint("classes")
    assert loaded("text-classification", "classes").profile_file() == folder.with_name(f"{folder.name}.profile.json")


def test_a_name_on_a_hub_has_no_place_for_a_profile() -> None:
    model = model_class("text-classification", None)(path="somebody/something")  # type: ignore[call-arg]
    assert model.profile_file() is None


def test_a_profile_depends_on_shapes_device_precision_and_threads(
    loaded: Loaded, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    import torch

    model: Any = loaded("text-classification", "classes")
    key = model.profile_key()
    shutil.copytree(checkpoint("classes"), tmp_path / "copy")
    moved: Any = model_class("text-classification", None)(path=str(tmp_path / "copy"))  # type: ignore[call-arg]
    moved.load("cpu")
    assert moved.profile_key() == key
    found = {key}
    config = tmp_path / "copy" / "config.json"
    config.write_text(config.read_text() + " ")
    found.add(moved.profile_key())
    found.add(loaded("text-classification", "classes", dtype="bfloat16").profile_key())
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        found.add(model.profile_key())
    finally:
        torch.set_num_threads(before)
    model._compile = True
    found.add(model.profile_key())
    model._device = "cpu:0"
    found.add(model.profile_key())
    assert len(found) == 6
    assert f"torch-{torch.__version__}" in key
