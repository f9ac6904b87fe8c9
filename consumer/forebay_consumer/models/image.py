"""Image tasks: classification."""

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import torch
import transformers
from PIL import Image, ImageOps, UnidentifiedImageError

from forebay_consumer.models import precision_rows
from forebay_consumer.models.base import Classification, check_option, is_positive, translated_memory_errors
from forebay_consumer.models.scaling import Scaling, scaling_of
from forebay_schemas import DecodeError, InvalidRequest, RequestError, TooLarge

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP")
"""Pillow's names of the formats that are decoded; no other decoder ever sees a request's bytes."""


class ImageClassification(Classification):
    """The class of an image; see `Classification`. One answer unless `top_k` is given (a pipeline would give five).

    A row is an encoded JPEG, PNG, WebP or BMP, or its base64. It is read as transformers' pipelines do: turned as its
    EXIF says, the first frame, without alpha.

    Args:
        max_pixels: an image whose header says more is answered `too_large`, undecoded (default 50 million).
        reduced_jpeg: decode a JPEG at a half, a quarter or an eighth of its size where that divides evenly and leaves
            both edges at least three times as long as the model's (default). At 12 megapixels that is 2.6 times as
            fast; pixels are off by up to 5 of 255.
    """

    auto_class = "AutoModelForImageClassification"
    max_preprocess_rows: ClassVar[int | None] = 8  # also of base64: of a few bytes each may hold `max_pixels`

    def __init__(self, path: str, max_pixels: int = 50_000_000, reduced_jpeg: bool = True, **options: Any) -> None:
        super().__init__(path, **options)
        check_option("reduced_jpeg", reduced_jpeg, isinstance(reduced_jpeg, bool), "true and false")
        most = Image.MAX_IMAGE_PIXELS or max_pixels  # above it Pillow itself warns, then refuses
        check_option("max_pixels", max_pixels, is_positive(max_pixels) and max_pixels <= most, f"1 to {most}")
        self._max_pixels = max_pixels
        self._reduced_jpeg = reduced_jpeg
        self._processor: Any = None
        self._scaling: Scaling | None = None

    def _load_processor(self) -> None:
        self._processor = transformers.AutoImageProcessor.from_pretrained(
            self._path, trust_remote_code=self._trust_remote_code
        )
        self._scaling = scaling_of(self._processor)

    def preprocess(self, rows: Sequence[Any], parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Decode and scale; where the processor does more than scale and normalise, all that it does.

        Returns:
            [3, H, W] on the CPU, uint8 or, of such a processor, float32; or in its place why the row is refused.
        Raises:
            InvalidRequest: a parameter is not allowed.
        """
        self.check_parameters(parameters)
        return [self._pixels(row) for row in rows]

    def _pixels(self, row: Any) -> Any:
        """Of one row; the decoded picture is let go here, before the next is decoded: it may take 200 MB."""
        image = self._decode(row)
        if isinstance(image, RequestError):
            return image
        if self._scaling is not None:
            return self._scaling.scaled(image)
        return self._processor([image], return_tensors="pt")["pixel_values"][0]

    def _decode(self, row: Any) -> Image.Image | RequestError:
        """RGB, or why not."""
        try:
            encoded = _encoded(row)
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
                self._check_size(*image.size)
                if self._reduced_jpeg and self._scaling is not None:
                    image.draft(None, self._scaling.reduced(*image.size))  # whatever is no JPEG stays as it is
                ImageOps.exif_transpose(image, in_place=True)
                return image if image.mode == "RGB" else image.convert("RGB")  # no copy of what may take 200 MB
        except RequestError as error:
            return error
        except UnidentifiedImageError:
            return DecodeError(f"image: the bytes are none of {', '.join(FORMATS)}")
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            return TooLarge(f"image: far more than {self._max_pixels} pixels (max_pixels)")
        except Exception as error:  # Pillow raises what its parsers stumble over, struct.error and KeyError included
            return DecodeError(f"image: the bytes cannot be decoded ({error})")

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._max_pixels:
            raise TooLarge(f"image: {width} x {height} pixels; max_pixels is {self._max_pixels}")
        # A processor that scales by the shortest edge would blow up a thin strip: 1 x 1,000,000 to 224 million x 224.
        edge = (getattr(self._processor, "size", None) or {}).get("shortest_edge") or 0
        if edge * edge * max(width, height) > self._max_pixels * min(width, height):
            raise TooLarge(
                f"image: {width} x {height} pixels; scaled to {edge} on its shortest edge that is more than "
                f"{self._max_pixels} pixels (max_pixels)"
            )

    def collate(self, rows: Sequence[Any]) -> dict[str, Any]:
        """`pixel_values` in the model's dtype, [B, 3, H, W], on its device."""
        with translated_memory_errors():
            stacked = torch.stack(list(rows))
            if self._scaling is None:
                return {"pixel_values": self.to_device(stacked, self._model.dtype)}
            # Bytes go to the device, where they become floats: a quarter of the way for a picture.
            return {"pixel_values": self._scaling.normalised(self.to_device(stacked)).to(self._model.dtype)}

    def samples(self) -> Sequence[Any]:
        """A picture; the processor brings any to the model's size."""
        picture = io.BytesIO()
        Image.new("RGB", (224, 224), (127, 63, 191)).save(picture, "PNG")
        return (picture.getvalue(),)

    def precision_rows(self) -> Sequence[Any]:
        return precision_rows.pictures()


def _encoded(row: Any) -> bytes:
    """The image file's bytes, of bytes or base64 (`data:image/png;base64,` before it is allowed)."""
    if isinstance(row, bytes):
        return row
    if not isinstance(row, str):
        raise InvalidRequest(f"expected an image ({', '.join(FORMATS)}) or its base64, got {type(row).__name__}")
    body = row.partition(",")[2] if row.startswith("data:image/") else row
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DecodeError("image: the string is no base64") from error
