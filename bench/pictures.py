"""How fast pictures are prepared, and what a second thread adds: `python -m bench.pictures`.

Nothing here needs a broker. On a busy machine trust the CPU time, not the threads.
"""

import io
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import transformers
from PIL import Image

from forebay_consumer.models.image import ImageClassification

_SIZES: Final = ((224, 224), (640, 480), (4000, 3000))
_SECONDS: Final = 2.0


def picture(width: int, height: int) -> bytes:
    """A JPEG with the detail of a photograph."""
    rng = np.random.default_rng(1)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 32 + 1, width // 32 + 1, 3), np.uint8))
    pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) + rng.normal(0, 6, (height, width, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=88)
    return file.getvalue()


def save(folder: Path) -> None:
    """A tiny ViT that takes 224 x 224, and costs next to nothing beside its preprocessing."""
    config = transformers.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": 224, "width": 224}).save_pretrained(folder)


def model(**options: Any) -> ImageClassification:
    with tempfile.TemporaryDirectory() as name:
        save(Path(name))
        made = ImageClassification(name, **options)
        made.load("cpu")
    return made


def rate(served: ImageClassification, encoded: bytes, threads: int) -> tuple[float, float]:
    """Pictures a second, and CPU milliseconds a picture."""
    deadline = time.perf_counter() + _SECONDS

    def prepare(_thread: int) -> int:
        count = 0
        while time.perf_counter() < deadline:
            served.preprocess([encoded], {})
            count += 1
        return count

    started, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        count = sum(pool.map(prepare, range(threads)))
    return count / (time.perf_counter() - started), (time.process_time() - cpu) / count * 1e3


def main() -> None:
    torch.set_num_threads(1)
    for name, served in (("whole", model(reduced_jpeg=False)), ("reduced", model())):
        for size in _SIZES:
            encoded = picture(*size)
            one, cpu = rate(served, encoded, 1)
            two, _ = rate(served, encoded, 2)
            print(
                f"{size[0]:>4} x {size[1]:<4} {name:<7} {cpu:7.2f} ms CPU {one:8.1f}/s  two threads {two / one:.2f} x"
            )


if __name__ == "__main__":
    main()
