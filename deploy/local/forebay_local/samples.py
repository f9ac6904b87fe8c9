"""Real inputs for demo and tests: sentences with their label, pictures of digits with their digit."""

import io
from importlib import resources
from typing import Any


def sentences() -> list[tuple[str, str]]:
    """(text, label) pairs, `POSITIVE` or `NEGATIVE`, as many of each."""
    written = resources.files("forebay_local").joinpath("sentences.tsv").read_text()
    rows = (line.split("\t") for line in written.splitlines())
    return [(text, label) for label, text in rows]


def held_out(count: int) -> list[bool]:
    """Which of `count` examples were never trained on: every fifth."""
    return [index % 5 == 4 for index in range(count)]


def digits() -> tuple[Any, Any]:
    """scikit-learn's bundled digits: uint8 [N, 8, 8] (0 to 255) and their values [N]."""
    from sklearn.datasets import load_digits

    bundled = load_digits()
    return (bundled.images * 255 / 16).astype("uint8"), bundled.target


def digit_images(count: int, fmt: str = "PNG") -> list[tuple[bytes, int]]:
    """(encoded picture, digit) pairs of the held-out part, 32 × 32 pixels."""
    from PIL import Image

    images, values = digits()
    pictures = []
    for image, value, unseen in zip(images, values, held_out(len(values)), strict=True):
        if unseen:
            file = io.BytesIO()
            Image.fromarray(image).convert("RGB").resize((32, 32), Image.Resampling.BICUBIC).save(file, fmt)
            pictures.append((file.getvalue(), int(value)))
    return [pictures[index % len(pictures)] for index in range(count)]
