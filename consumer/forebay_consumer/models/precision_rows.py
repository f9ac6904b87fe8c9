"""Rows on which a lower precision is checked: texts and pictures of many kinds, made here, the same every time."""

import io
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from PIL import Image, ImageDraw

_SENTENCES: Final = (
    "Water.",
    "I loved every minute of it, and I would go again tomorrow.",
    "The worst service I have ever had; nobody answered for three weeks.",
    "The pump is in the cellar, next to the boiler.",
    "Invoice 2031-77: 4,250.00 EUR, due within 30 days.",
    "How do I reset my password?",
    "SHIPPING WAS LATE!!! again :(",
    "It was not bad, though hardly as good as the reviews had promised.",
    "def area(r): return 3.14159 * r ** 2",
    "The reservoir above the turbine takes the river's bursts, so that the turbine always runs full.",
    "Der Zug nach Zürich fährt heute von Gleis sieben ab.",
    "水はいつも低い方へ流れる。",
    "Le médecin a prescrit deux comprimés par jour pendant une semaine.",
    "Вода точит камень не силой, а частым падением.",
    "Two people in yellow jackets carry a ladder across the street while it rains.",
    "Shares fell by six percent after the company cut its forecast for the year.",
)
TEXTS: Final = (*_SENTENCES, *(" ".join(pair) for pair in pairwise(_SENTENCES[::2])), " ".join(_SENTENCES))
"""One word to some 300 tokens."""


def pictures() -> Sequence[bytes]:
    """PNGs: slopes, checks, shapes and colours."""
    slope, bowl = Image.linear_gradient("L"), Image.radial_gradient("L")
    flat = Image.new("L", slope.size, 90)
    found = [
        Image.merge("RGB", channels)
        for channels in (
            (slope, slope, slope),
            (slope, slope.rotate(90), flat),
            (bowl, flat, slope),
            (flat, bowl, slope.rotate(180)),
            (bowl, bowl.point(lambda value: 255 - value), bowl),
        )
    ]
    found += [Image.new("RGB", slope.size, colour) for colour in ((0, 0, 0), (255, 255, 255), (127, 63, 191))]
    for step in (8, 24, 64):
        found.append(_checks(step))
    return [_png(picture) for picture in found]


def _checks(step: int) -> Image.Image:
    """Squares of many colours under a disc."""
    picture = Image.new("RGB", (256, 256))
    draw = ImageDraw.Draw(picture)
    for left in range(0, 256, step):
        for top in range(0, 256, step):
            draw.rectangle((left, top, left + step, top + step), fill=(left, top, (left * top) % 251))
    draw.ellipse((60, 90, 190, 200), fill=(230, 200, 40))
    return picture


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
