"""Image classification against transformers' own pipeline, and images that are none."""

import base64
import io
import struct
import weakref
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from forebay_consumer.errors import BadConfig
from forebay_schemas import DecodeError, InvalidRequest, RequestError, TooLarge
from unit.consumer.models.tiny import Loaded, assert_close, run

pytestmark = pytest.mark.models

Reference = Callable[[str, str], Any]


def picture(fmt: str, size: tuple[int, int] = (48, 36), mode: str = "RGB", **options: Any) -> bytes:
    """An encoded picture that is no mirror image of itself."""
    from PIL import Image

    red, green = Image.linear_gradient("L").resize(size), Image.linear_gradient("L").rotate(90).resize(size)
    blue = Image.new("L", size, 90)
    colours = Image.merge("RGB", (red, green, blue))
    if mode == "RGBA":
        colours.putalpha(Image.radial_gradient("L").resize(size))
    file = io.BytesIO()
    colours.convert(mode).save(file, fmt, **options)
    return file.getvalue()


def turned() -> bytes:
    """A JPEG whose EXIF says that it lies on its side."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    return picture("JPEG", exif=exif)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.fixture(scope="session")
def pictures() -> dict[str, bytes]:
    return {
        "jpeg": picture("JPEG"),
        "png": picture("PNG"),
        "webp": picture("WEBP"),
        "bmp": picture("BMP"),
        "grey": picture("PNG", mode="L"),
        "alpha": picture("PNG", mode="RGBA"),
        "palette": picture("PNG", mode="P"),
        "cmyk": picture("JPEG", mode="CMYK"),
        "turned": turned(),
        "dot": picture("PNG", size=(1, 1)),
        "strip": picture("PNG", size=(3, 90)),
    }


def test_every_format_equals_transformers_pipeline(
    loaded: Loaded, reference: Reference, pictures: dict[str, bytes]
) -> None:
    from PIL import Image

    model, pipeline = loaded("image-classification", "vit"), reference("image-classification", "vit")
    expected = [pipeline(Image.open(io.BytesIO(encoded)), top_k=10) for encoded in pictures.values()]
    rows = list(pictures.values())
    assert_close(run(model, rows, {"top_k": 10}), expected)
    assert_close([run(model, [row], {"top_k": None})[0] for row in rows], expected)
    assert_close(run(model, rows), [answer[0] for answer in expected])


def test_an_image_that_its_exif_turns_is_turned(loaded: Loaded, pictures: dict[str, bytes]) -> None:
    model = loaded("image-classification", "vit")
    upright, on_its_side = model.preprocess([pictures["jpeg"], pictures["turned"]], {})
    assert int((upright.int() - on_its_side.int()).abs().max()) > 64


def test_base64_is_an_image_too(loaded: Loaded, pictures: dict[str, bytes]) -> None:
    model = loaded("image-classification", "vit")
    encoded = base64.b64encode(pictures["png"]).decode()
    wrapped = base64.encodebytes(pictures["png"]).decode()
    rows = [pictures["png"], encoded, wrapped, f"data:image/png;base64,{encoded}"]
    answers = run(model, rows)
    assert_close(answers, [answers[0]] * 4)


def test_few_images_are_prepared_in_one_call_also_of_base64(loaded: Loaded) -> None:
    """A file of 40 bytes may hold as many pixels as are allowed, and each call has a limit of its own."""
    assert loaded("image-classification", "vit").max_preprocess_rows == 8


@pytest.mark.parametrize(
    ("row", "refusal", "said"),
    [
        pytest.param(lambda: b"", DecodeError, "none of JPEG, PNG, WEBP, BMP", id="empty"),
        pytest.param(lambda: b"plain text", DecodeError, "none of JPEG", id="text"),
        pytest.param(lambda: picture("GIF"), DecodeError, "none of JPEG", id="gif"),
        pytest.param(lambda: picture("TIFF"), DecodeError, "none of JPEG", id="tiff"),
        *(
            pytest.param(lambda fmt=fmt: picture(fmt), DecodeError, "none of JPEG", id=fmt.lower())
            for fmt in ("EPS", "ICO", "ICNS", "PCX", "PDF", "PPM", "SGI", "TGA", "JPEG2000", "AVIF")
        ),
        pytest.param(lambda: b"8BPS\0\1" + bytes(64), DecodeError, "none of JPEG", id="psd"),
        pytest.param(lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", DecodeError, "none of JPEG", id="svg"),
        pytest.param(lambda: picture("JPEG")[:-200], DecodeError, "cannot be decoded", id="cut-jpeg"),
        pytest.param(lambda: picture("PNG")[:-60], DecodeError, "cannot be decoded", id="cut-png"),
        pytest.param(lambda: picture("BMP")[:-200], DecodeError, "cannot be decoded", id="cut-bmp"),
        pytest.param(lambda: picture("WEBP")[:-200], DecodeError, "image: the bytes", id="cut-webp"),
        pytest.param(lambda: picture("JPEG")[:20], DecodeError, "image: the bytes", id="header-only"),
        pytest.param(lambda: "no base64 !", DecodeError, "no base64", id="no-base64"),
        pytest.param(lambda: "водa", DecodeError, "no base64", id="no-ascii"),
        pytest.param(lambda: 7, InvalidRequest, "got int", id="number"),
        pytest.param(lambda: None, InvalidRequest, "got NoneType", id="null"),
        pytest.param(lambda: png_header(8000, 8000), TooLarge, "8000 x 8000 pixels; max_pixels is 5", id="large"),
        pytest.param(lambda: png_header(12000, 10000), TooLarge, "max_pixels", id="pillow-warns"),
        pytest.param(lambda: png_header(60000, 60000), TooLarge, "max_pixels", id="pillow-refuses"),
    ],
)
def test_a_row_that_is_no_image_is_refused_alone(
    loaded: Loaded, pictures: dict[str, bytes], row: Callable[[], Any], refusal: type[RequestError], said: str
) -> None:
    model = loaded("image-classification", "vit")
    before, bad, after = model.preprocess([pictures["png"], row(), pictures["jpeg"]], {})
    assert type(bad) is refusal
    assert said in bad.message
    alone = model.preprocess([pictures["png"], pictures["jpeg"]], {})
    assert before.equal(alone[0])
    assert after.equal(alone[1])


def test_max_pixels_is_an_option(loaded: Loaded, pictures: dict[str, bytes]) -> None:
    fits, large = (loaded("image-classification", "vit", max_pixels=most) for most in (48 * 36, 48 * 36 - 1))
    assert not isinstance(fits.preprocess([pictures["png"]], {})[0], RequestError)
    (refused,) = large.preprocess([pictures["png"]], {})
    assert isinstance(refused, TooLarge)
    assert refused.message == "image: 48 x 36 pixels; max_pixels is 1727"
    with pytest.raises(BadConfig, match=r"model\.options\.max_pixels=1000000000: allowed are 1 to"):
        loaded("image-classification", "vit", max_pixels=1_000_000_000)


def photograph(width: int, height: int) -> bytes:
    """A JPEG with detail at every scale, down to noise."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(5)
    parts = []
    for step in (64, 12):
        coarse = rng.integers(0, 256, (height // step + 1, width // step + 1, 3), np.uint8)
        parts.append(np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float64))
    pixels = 0.65 * parts[0] + 0.3 * parts[1] + rng.normal(0, 6, (height, width, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=88)
    return file.getvalue()


@pytest.mark.parametrize(
    ("size", "divisor"),
    [
        pytest.param((400, 190), 1, id="one edge too short"),
        pytest.param((401, 301), 1, id="a remainder"),
        pytest.param((400, 300), 2, id="a half"),
        pytest.param((900, 500), 4, id="a quarter, for an eighth leaves a remainder"),
        pytest.param((896, 800), 8, id="an eighth"),
    ],
)
def test_a_large_jpeg_is_decoded_smaller_and_stays_the_same_within_5_of_255(
    loaded: Loaded, size: tuple[int, int], divisor: int
) -> None:
    encoded = photograph(*size)
    whole: Any = loaded("image-classification", "vit", reduced_jpeg=False)
    small: Any = loaded("image-classification", "vit")
    assert whole._decode(encoded).size == size
    assert small._decode(encoded).size == (size[0] // divisor, size[1] // divisor)
    (exact,), (near,) = (model.preprocess([encoded], {}) for model in (whole, small))
    off = (exact.int() - near.int()).abs()
    assert int(off.max()) <= 5
    assert float(off.float().mean()) <= 0.7
    assert (int(off.max()) == 0) is (divisor == 1)


def test_a_large_jpeg_that_is_reduced_is_still_turned(loaded: Loaded) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    model = loaded("image-classification", "vit")
    lying, upright = picture("JPEG", (640, 480), exif=exif), picture("JPEG", (640, 480))
    assert model._decode(lying).size == (120, 160)  # type: ignore[attr-defined]
    (one,), (other,) = (model.preprocess([row], {}) for row in (lying, upright))
    assert int((one.int() - other.rot90(-1, (1, 2)).int()).abs().max()) <= 5


def test_max_pixels_holds_for_what_the_header_says_whatever_is_decoded(loaded: Loaded) -> None:
    model = loaded("image-classification", "vit", max_pixels=640 * 480 - 1)
    (refused,) = model.preprocess([picture("JPEG", (640, 480))], {})
    assert isinstance(refused, TooLarge)


def test_scaling_by_picked_pixels_needs_them_all(loaded: Loaded) -> None:
    from PIL import Image
    from transformers import ViTImageProcessorPil

    from forebay_consumer.models.scaling import scaling_of

    size = {"height": 32, "width": 32}
    picking = scaling_of(ViTImageProcessorPil(size=size, resample=Image.Resampling.NEAREST))
    assert picking is not None
    assert picking.reduced(4000, 3000) == (4000, 3000)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="plain"),
        pytest.param({"size": {"height": 24, "width": 40}}, id="no square"),
        pytest.param({"resample": 3}, id="bicubic"),
        pytest.param({"image_mean": [0.48, 0.45, 0.4], "image_std": [0.27, 0.26, 0.28]}, id="by channel"),
        pytest.param({"do_normalize": False}, id="not normalised"),
        pytest.param({"do_rescale": False}, id="not rescaled"),
        pytest.param({"rescale_factor": 1 / 127.5}, id="rescaled otherwise"),
    ],
)
def test_scaling_here_equals_the_processors(options: dict[str, Any]) -> None:
    import torch
    from PIL import Image
    from transformers import ViTImageProcessorPil

    from forebay_consumer.models.scaling import scaling_of

    processor = ViTImageProcessorPil(**{"size": {"height": 32, "width": 32}, **options})
    scaling = scaling_of(processor)
    assert scaling is not None
    for size in ((32, 32), (57, 91), (640, 480)):
        image = Image.open(io.BytesIO(picture("PNG", size)))
        expected = processor([image], return_tensors="pt")["pixel_values"]
        found = scaling.normalised(torch.stack([scaling.scaled(image)]))
        assert float((found - expected).abs().max()) <= 1e-5 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("name", ["crops", "does more", "scales by an edge", "does not scale", "is none"])
def test_a_processor_that_does_more_is_used_as_it_is(name: str) -> None:
    import transformers

    from forebay_consumer.models.scaling import scaling_of

    class Inverting(transformers.ViTImageProcessorPil):  # type: ignore[misc]
        def __call__(self, images: Any, **options: Any) -> Any:
            made = super().__call__(images, **options)
            made["pixel_values"] = -made["pixel_values"]
            return made

    square = {"height": 32, "width": 32}
    processor: Any = {
        "crops": lambda: transformers.CLIPImageProcessorPil(size=square, crop_size={"height": 16, "width": 16}),
        "does more": lambda: Inverting(size=square),
        "scales by an edge": lambda: transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=square),
        "does not scale": lambda: transformers.ViTImageProcessorPil(size=square, do_resize=False),
        "is none": object,
    }[name]()
    assert scaling_of(processor) is None


def test_a_model_whose_processor_does_more_answers_by_it(loaded: Loaded, pictures: dict[str, bytes]) -> None:
    model: Any = loaded("image-classification", "vit")
    expected = run(model, list(pictures.values()), {"top_k": None})
    model._scaling = None
    assert model.preprocess([pictures["jpeg"]], {})[0].is_floating_point()
    assert_close(run(model, list(pictures.values()), {"top_k": None}), expected)


@pytest.mark.parametrize("by_processor", [False, True])
def test_one_picture_at_a_time_is_held_decoded(
    loaded: Loaded, pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, by_processor: bool
) -> None:
    model: Any = loaded("image-classification", "vit")
    if by_processor:
        model._scaling = None
    decode = model._decode
    decoded: list[weakref.ref[Any]] = []

    def watched(row: bytes) -> Any:
        assert all(earlier() is None for earlier in decoded)
        image = decode(row)
        decoded.append(weakref.ref(image))
        return image

    monkeypatch.setattr(model, "_decode", watched)
    assert len(model.preprocess(list(pictures.values()), {})) == len(decoded) == len(pictures)


def test_pictures_that_the_processor_gives_other_shapes_do_not_fail_each_other(loaded: Loaded) -> None:
    from transformers import CLIPImageProcessorPil

    model: Any = loaded("image-classification", "vit")
    model._scaling = None
    model._processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, do_center_crop=False)
    wide, high = model.preprocess([picture("PNG", (96, 32)), picture("PNG", (32, 64))], {})
    assert (wide.shape, high.shape) == ((3, 32, 96), (3, 64, 32))


def test_a_strip_that_scaling_would_blow_up_is_too_large(loaded: Loaded) -> None:
    from transformers import CLIPImageProcessorPil

    model = loaded("image-classification", "vit")
    model._scaling = None  # type: ignore[attr-defined]
    model._processor = CLIPImageProcessorPil(  # type: ignore[attr-defined]
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    short, long = model.preprocess([picture("PNG", (1, 900)), picture("PNG", (1, 60_000))], {})
    assert short.shape == (3, 32, 32)
    assert isinstance(long, TooLarge)
    assert "scaled to 32 on its shortest edge" in long.message


def test_broken_bytes_never_end_in_another_error(loaded: Loaded, pictures: dict[str, bytes]) -> None:
    import random

    model, chance = loaded("image-classification", "vit"), random.Random(7)
    rows = []
    for _ in range(40):
        for encoded in pictures.values():
            broken = bytearray(encoded)
            for _ in range(chance.randint(1, 30)):
                broken[chance.randrange(len(broken))] = chance.randrange(256)
            rows.append(bytes(broken))
    prepared = model.preprocess(rows, {})
    assert len(prepared) == len(rows)
    assert {type(row).__name__ for row in prepared} <= {"Tensor", "DecodeError", "TooLarge"}


def test_a_bad_parameter_is_refused(loaded: Loaded, pictures: dict[str, bytes]) -> None:
    with pytest.raises(InvalidRequest, match="'size' is unknown; allowed: top_k"):
        loaded("image-classification", "vit").preprocess([pictures["png"]], {"size": 3})


def test_samples_can_be_run_and_cost_one(loaded: Loaded) -> None:
    model = loaded("image-classification", "vit")
    (prepared,) = model.preprocess(model.samples(), {})
    assert prepared.shape == (3, 32, 32)
    assert model.cost(prepared) == 1
    assert len(run(model, model.samples())) == 1
