"""Image tasks: classification."""

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from forebay_consumer.models.base import TorchModel, labelled, scores, top_k
from forebay_schemas import DecodeError, InvalidRequest, RequestError, TooLarge

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP")


class ImageClassification(TorchModel):
    """`{"label", "score"}`, the best one; request parameter `top_k` gives a list.

    A row is an encoded JPEG, PNG, WebP or BMP, or its base64.

    Args:
        max_pixels: an image whose header says more is answered `too_large`, undecoded (default 50 million).
    """

    auto_class = "AutoModelForImageClassification"
    allowed_parameters: ClassVar[frozenset[str]] = frozenset({"top_k"})

    def __init__(self, path: str, max_pixels: int = 50_000_000, **options: Any) -> None:
        super().__init__(path, **options)
        self._max_pixels = max_pixels
        self._processor: Any = None

    def _load_processor(self, transformers: Any) -> None:
        self._processor = transformers.AutoImageProcessor.from_pretrained(
            str(Path(self._path).expanduser()), trust_remote_code=self._trust_remote_code
        )

    def preprocess(self, rows: Sequence[Any], parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Float32 [3, H, W] each, or the row's own error."""
        self._check_parameters(parameters)
        top_k(parameters, None)
        decoded = [self._decode(row) for row in rows]
        images = [image for image in decoded if not isinstance(image, RequestError)]
        pixels = iter(self._processor(images, return_tensors="pt")["pixel_values"] if images else ())  # [N, 3, H, W]
        return [image if isinstance(image, RequestError) else next(pixels) for image in decoded]

    def _decode(self, row: Any) -> Image.Image | RequestError:
        if isinstance(row, str):
            try:
                row = base64.b64decode(row, validate=True)
            except (binascii.Error, ValueError):
                return InvalidRequest("expected an image, or its base64; got a string that is no base64")
        if not isinstance(row, bytes):
            return InvalidRequest(f"expected an image ({', '.join(FORMATS)}), got {type(row).__name__}")
        try:
            image = Image.open(io.BytesIO(row), formats=FORMATS)
            if image.width * image.height > self._max_pixels:
                size = f"{image.width} x {image.height} pixels"
                return TooLarge(f"image: {size}; max_pixels is {self._max_pixels}")
            # As transformers' own loader: turned as its EXIF says, without alpha.
            return ImageOps.exif_transpose(image).convert("RGB")
        except UnidentifiedImageError:
            return DecodeError(f"image: not a {', '.join(FORMATS)}")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            return DecodeError(f"image: it cannot be decoded ({error})")

    def collate(self, rows: Sequence[Any]) -> dict[str, Any]:
        """`pixel_values`, [B, 3, H, W] in the model's dtype."""
        return {"pixel_values": torch.stack(list(rows)).to(self._device, self._model.dtype)}

    def postprocess(self, output: Any, rows: Sequence[Any], parameters: Mapping[str, Any]) -> Sequence[Any]:
        return labelled(scores(output.logits, self._model.config), self._model.config, parameters)

    def samples(self) -> Sequence[Any]:
        picture = io.BytesIO()
        Image.new("RGB", (224, 224), (127, 63, 191)).save(picture, "PNG")
        return (picture.getvalue(),)
