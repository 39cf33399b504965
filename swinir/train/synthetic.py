"""Drawn training pictures of text, lines, regular textures, leaves and gradients, which photographs hold little of."""

from __future__ import annotations

import math
import string

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SIZE = 768
OVERSAMPLING = 2


def synthetic_picture(kind: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One (SIZE, SIZE, 3) RGB uint8 picture; ``kind`` counts round text, lines, gratings, bricks, leaves and gradients."""
    draw_page = (_text, _lines, _gratings, _bricks, _leaves, _gradients)[kind % 6]
    page = draw_page(SIZE * OVERSAMPLING, rng).resize((SIZE, SIZE), Image.Resampling.BOX)
    return np.asarray(page)


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    r, g, b = (int(v) for v in rng.integers(0, 256, 3))
    return r, g, b


def _pair(rng: np.random.Generator) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Two colours that can be told apart: black and white, as print is; one of them and a colour, as captions are; or any.

    Captions, because video holds colour at half the resolution: what is thin and white there takes the colour around it.
    """
    black_or_white = ((0, 0, 0), (255, 255, 255)) if rng.random() < 0.5 else ((255, 255, 255), (0, 0, 0))
    kind = rng.random()
    if kind < 0.35:
        return black_or_white
    while True:
        a, b = black_or_white[0] if kind < 0.75 else _colour(rng), _colour(rng)
        if abs(sum(a) - sum(b)) > 150:
            return a, b


def _text(size: int, rng: np.random.Generator) -> Image.Image:
    page = Image.new("RGB", (size, size), _pair(rng)[1])
    draw = ImageDraw.Draw(page)
    letters = list(string.ascii_letters + string.digits + string.punctuation + "      ")
    y = 0
    while y < size:
        points = int(rng.integers(18, 90))
        ink, paper = _pair(rng)
        draw.rectangle((0, y, size, y + int(points * 1.3)), fill=paper)
        font = ImageFont.load_default(size=points)
        draw.text((int(rng.integers(-20, 20)), y), "".join(rng.choice(letters, size // (points // 3))), fill=ink, font=font)
        y += int(points * 1.3)
    return page


def _lines(size: int, rng: np.random.Generator) -> Image.Image:
    page = Image.new("RGB", (size, size), _colour(rng))
    draw = ImageDraw.Draw(page)
    for _ in range(160):
        x0, y0, x1, y1 = (int(v) for v in rng.integers(-size // 8, size * 9 // 8, 4))
        width = int(rng.integers(1, 14))
        match int(rng.integers(0, 4)):
            case 0:
                draw.line((x0, y0, x1, y1), fill=_colour(rng), width=width)
            case 1:
                reach = int(rng.integers(10, size // 4))
                draw.ellipse((x0, y0, x0 + reach, y0 + reach), outline=_colour(rng), width=width)
            case 2:
                corners = [(x0 + int(rng.integers(0, size // 4)), y0 + int(rng.integers(0, size // 4))) for _ in range(4)]
                draw.polygon(corners, fill=_colour(rng), outline=_colour(rng))
            case _:
                start = int(rng.integers(0, 360))
                draw.arc((x0, y0, x0 + size // 3, y0 + size // 3), start, start + 120, fill=_colour(rng), width=width)
    return page


def _gratings(size: int, rng: np.random.Generator) -> Image.Image:
    page = np.zeros((size, size, 3))
    cell = size // 4
    y, x = np.mgrid[0:cell, 0:cell]
    for row in range(4):
        for col in range(4):
            a, b = (np.array(c) for c in _pair(rng))
            angle, period = rng.uniform(0, math.pi), rng.uniform(5, 36)
            wave = np.sin(2 * math.pi * (x * math.cos(angle) + y * math.sin(angle)) / period)
            if rng.random() < 0.3:
                wave = wave * np.sin(2 * math.pi * (y * math.cos(angle) - x * math.sin(angle)) / period)
            level = (wave > 0).astype(float) if rng.random() < 0.5 else (wave + 1) / 2
            tile = level[..., None] * a + (1 - level[..., None]) * b
            page[row * cell : (row + 1) * cell, col * cell : (col + 1) * cell] = tile
    return Image.fromarray(np.round(page).astype(np.uint8))


def _bricks(size: int, rng: np.random.Generator) -> Image.Image:
    page = Image.new("RGB", (size, size), _colour(rng))
    draw = ImageDraw.Draw(page)
    base = np.array(_colour(rng))
    height = int(rng.integers(16, 80))
    width = int(height * rng.uniform(1, 3.5))
    joint = int(rng.integers(2, 8))
    for row in range(size // height + 1):
        for col in range(-1, size // width + 1):
            x, y = col * width + (row % 2) * width // 2, row * height
            r, g, b = (int(v) for v in np.clip(base + rng.normal(0, 18, 3), 0, 255))
            draw.rectangle((x, y, x + width - joint, y + height - joint), fill=(r, g, b))
    angle = float(rng.uniform(-25, 25))
    turned = page.rotate(angle, Image.Resampling.BICUBIC, fillcolor=page.getpixel((0, 0)))
    noise = rng.normal(0, rng.uniform(0, 10), (size, size, 1))
    return Image.fromarray(np.clip(np.asarray(turned) + noise, 0, 255).astype(np.uint8))


def _leaves(size: int, rng: np.random.Generator) -> Image.Image:
    """Foliage: pointed leaves over one another, the lower ones in shade, each with a lighter vein."""
    base = rng.uniform((20, 60, 10), (120, 160, 70))
    page = Image.new("RGB", (size, size), _shade(base, 0.15))
    draw = ImageDraw.Draw(page)
    length = rng.uniform(24, 90)
    count = int(12 * (size / length) ** 2)
    for number, (x, y, angle, stretch) in enumerate(rng.uniform((0, 0, 0, 0.5), (size, size, 2 * math.pi, 1.5), (count, 4))):
        light = 0.2 + 0.8 * number / count + rng.normal(0, 0.08)
        along = np.array([math.cos(angle), math.sin(angle)]) * length * stretch
        across = np.array([-along[1], along[0]]) * 0.22
        stem = np.array([x, y])
        outline = [stem, stem + 0.35 * along + across, stem + along, stem + 0.35 * along - across]
        draw.polygon([(float(a), float(b)) for a, b in outline], fill=_shade(base, light))
        tip = stem + 0.9 * along
        draw.line((x, y, float(tip[0]), float(tip[1])), fill=_shade(base, light * 1.25), width=2)
    return page


def _shade(base: NDArray[np.float64], light: float) -> tuple[int, int, int]:
    r, g, b = (int(v) for v in np.clip(base * light, 0, 255))
    return r, g, b


def _gradients(size: int, rng: np.random.Generator) -> Image.Image:
    """Skies and lit walls: colours that blend over the whole page, with a few round things of soft shading on it."""
    y, x = np.mgrid[0:size, 0:size] / size
    corners = rng.uniform(0, 255, (4, 3))
    page = sum(
        weight[..., None] * corner
        for weight, corner in zip(((1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y), corners, strict=True)
    )
    for _ in range(10):
        (cx, cy), radius = rng.uniform(0, 1, 2), rng.uniform(0.03, 0.2)
        distance = np.hypot(x - cx, y - cy) / radius
        shading = rng.uniform(0, 255, 3) * (1 - 0.6 * np.clip(distance, 0, 1)[..., None] ** 2)
        page = np.where((distance < 1)[..., None], shading, page)
    return Image.fromarray(np.round(page).astype(np.uint8))
