"""Drawn training pictures of text, lines and regular textures, which photographs hold little of."""

from __future__ import annotations

import math
import string

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SIZE = 768
OVERSAMPLING = 2


def synthetic_picture(kind: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One (SIZE, SIZE, 3) RGB uint8 picture; ``kind`` counts round text, lines, gratings and bricks."""
    draw_page = (_text, _lines, _gratings, _bricks)[kind % 4]
    page = draw_page(SIZE * OVERSAMPLING, rng).resize((SIZE, SIZE), Image.Resampling.BOX)
    return np.asarray(page)


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    r, g, b = (int(v) for v in rng.integers(0, 256, 3))
    return r, g, b


def _pair(rng: np.random.Generator) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Two colours that can be told apart; black on white half the time, as print is."""
    if rng.random() < 0.5:
        return ((0, 0, 0), (255, 255, 255)) if rng.random() < 0.7 else ((255, 255, 255), (0, 0, 0))
    while True:
        a, b = _colour(rng), _colour(rng)
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
