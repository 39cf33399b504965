"""What lies before, between and behind the layers of ``kernels.py``, the first and the last convolution among them.

PyTorch would take a pass through memory for each step, and for such convolutions kernels that are made for more channels.

Axes as there; S colours, P the S * 9 factors of a convolution, or somewhat more.
"""

# ruff: noqa: ANN001, ANN201  (tensors are Triton's own)
from __future__ import annotations

import triton
import triton.language as tl

from swinir.gpu.kernels import standard


@triton.jit
def part_of_rows(x_TC, token_L, inside_L, ROW: tl.constexpr, FIRST: tl.constexpr, NUM: tl.constexpr):
    """Where NUM channels of rows of ROW lie, and which are there: no more is asked than must be, for loads of 16 bytes."""
    channel = FIRST + tl.arange(0, NUM)
    inside = inside_L[:, None]
    if ROW < FIRST + NUM:
        inside = inside & (channel < ROW)[None, :]
    return x_TC + token_L[:, None] * ROW + channel[None, :], inside


@triton.jit
def joined(
    x_TC, y_TC, bias_3C, token_L, inside_L,
    ROW: tl.constexpr, ALL: tl.constexpr, FIRST: tl.constexpr, NUM: tl.constexpr,
):  # fmt: skip
    """x + bias + y, of NUM channels."""
    places, inside = part_of_rows(x_TC, token_L, inside_L, ROW, FIRST, NUM)
    x = tl.load(places, inside, 0.0).to(tl.float32) + tl.load(bias_3C + FIRST + tl.arange(0, NUM))[None, :]
    places, inside = part_of_rows(y_TC, token_L, inside_L, ALL, FIRST, NUM)
    return x + tl.load(places, inside, 0.0).to(tl.float32)


@triton.jit
def put(
    out_TC, token_L, inside_L, x, bias_3C,
    ROW: tl.constexpr, ALL: tl.constexpr, NORM: tl.constexpr, FIRST: tl.constexpr, NUM: tl.constexpr,
):  # fmt: skip
    """Writes NUM channels, if NORM with its gain and bias."""
    if NORM:
        channel = FIRST + tl.arange(0, NUM)
        x = x * tl.load(bias_3C + ALL + channel)[None, :] + tl.load(bias_3C + 2 * ALL + channel)[None, :]
    places, inside = part_of_rows(out_TC, token_L, inside_L, ROW, FIRST, NUM)
    tl.store(places, x.to(out_TC.dtype.element_ty), inside)


@triton.jit
def products(
    x_LP, weight_PC, P: tl.constexpr, FIRST: tl.constexpr, NUM: tl.constexpr, ALL: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    """With NUM columns of a weight."""
    weight = tl.load(weight_PC + tl.arange(0, P)[:, None] * ALL + FIRST + tl.arange(0, NUM)[None, :])
    return tl.dot(x_LP, weight, input_precision=PRECISION)


@triton.jit(do_not_specialize=["height", "width"])
def first_kernel(
    x_BSHW, weight_PC, bias_3C, shallow_TC, out_TC, height, width,
    S: tl.constexpr, P: tl.constexpr, DIM: tl.constexpr, EPS: tl.constexpr, C_PAD: tl.constexpr, C_MORE: tl.constexpr,
    BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The first convolution, of S colours by 3 x 3, for BLOCK pixels of a row; shallow, and through a LayerNorm, padded, out.

    P is S * 9 or somewhat more. The grid is rows, parts of a row, images. ``bias_3C`` is as in ``join_kernel``.
    """
    ALL: tl.constexpr = C_PAD + C_MORE
    row, image = tl.program_id(0), tl.program_id(2)
    col_L, factor = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, P)
    inside_L = col_L < width
    y, x_LP = row + factor // 3 % 3 - 1, col_L[:, None] + (factor % 3 - 1)[None, :]
    there = ((factor < S * 9) & (y >= 0) & (y < height))[None, :] & (x_LP >= 0) & (x_LP < width)
    plane = x_BSHW + image.to(tl.int64) * S * height * width
    x_LP = tl.load(plane + ((factor // 9 * height + y) * width)[None, :] + x_LP, there, 0.0)
    first = (image.to(tl.int64) * height + row) * width
    shallow_TC += first * DIM
    out_TC += first * ALL
    x = products(x_LP, weight_PC, P, 0, C_PAD, ALL, PRECISION) + tl.load(bias_3C + tl.arange(0, C_PAD))[None, :]
    put(shallow_TC, col_L, inside_L, x, bias_3C, DIM, ALL, False, 0, C_PAD)
    more = x
    if C_MORE:
        more = products(x_LP, weight_PC, P, C_PAD, C_MORE, ALL, PRECISION)
        more += tl.load(bias_3C + C_PAD + tl.arange(0, C_MORE))[None, :]
        put(shallow_TC, col_L, inside_L, more, bias_3C, DIM, ALL, False, C_PAD, C_MORE)
    x, more = standard(x, more, DIM, EPS, C_PAD, C_MORE)
    put(out_TC, col_L, inside_L, x, bias_3C, ALL, ALL, True, 0, C_PAD)
    if C_MORE:
        put(out_TC, col_L, inside_L, more, bias_3C, ALL, ALL, True, C_PAD, C_MORE)


@triton.jit(do_not_specialize=["height", "width"])
def last_kernel(
    x_TC, weight_9CO, bias_O, out_BSHW, height, width,
    SCALE: tl.constexpr, NUM: tl.constexpr, OUT: tl.constexpr, ALL: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """A convolution by 3 x 3 into NUM channels, of OUT, and a pixel shuffle, for BLOCK pixels of a row.

    The grid is rows, parts of a row, images. Of ALL channels it takes CHUNK at a time.
    """
    row, image, col_L = tl.program_id(0), tl.program_id(2), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    out = tl.arange(0, OUT)
    y_LO = tl.zeros((BLOCK, OUT), tl.float32) + tl.load(bias_O + out)[None, :]
    for factor in tl.static_range(9):
        y, x_L = row + factor // 3 - 1, col_L + factor % 3 - 1
        there_L = (y >= 0) & (y < height) & (x_L >= 0) & (x_L < width)
        places_L = ((image * height + y) * width + x_L) * ALL
        for first in tl.static_range(0, ALL, CHUNK):
            channel = first + tl.arange(0, CHUNK)
            x_LC = tl.load(x_TC + places_L[:, None] + channel[None, :], there_L[:, None], 0.0)
            weight = tl.load(weight_9CO + (factor * ALL + channel)[:, None] * OUT + out[None, :])
            y_LO = tl.dot(x_LC, weight, y_LO, input_precision=PRECISION)
    AREA: tl.constexpr = SCALE * SCALE
    row_O = ((image * (NUM // AREA) + out // AREA) * height + row) * SCALE + out % AREA // SCALE
    places_LO = (row_O.to(tl.int64) * width * SCALE + out % SCALE)[None, :] + (col_L * SCALE)[:, None]
    tl.store(out_BSHW + places_LO, y_LO, (col_L < width)[:, None] & (out < NUM)[None, :])


@triton.jit(do_not_specialize=["num_tokens"])
def join_kernel(
    x_TC, y_TC, bias_3C, out_TC, num_tokens,
    DIM: tl.constexpr, EPS: tl.constexpr, C_PAD: tl.constexpr, C_MORE: tl.constexpr, BLOCK: tl.constexpr,
    X_ROW: tl.constexpr, OUT_ROW: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    """out = x + bias + y, through a LayerNorm if NORM, for BLOCK tokens; in place too.

    The bias is that of a convolution which ran without. Rows of x and out, X_ROW and OUT_ROW long, are padded or are not.
    ``bias_3C`` holds the bias, and gain and bias of the LayerNorm.
    """
    ALL: tl.constexpr = C_PAD + C_MORE
    first = tl.program_id(0).to(tl.int64) * BLOCK
    x_TC += first * X_ROW
    y_TC += first * ALL
    out_TC += first * OUT_ROW
    token_L = tl.arange(0, BLOCK)
    inside_L = first + token_L < num_tokens
    x = joined(x_TC, y_TC, bias_3C, token_L, inside_L, X_ROW, ALL, 0, C_PAD)
    more = joined(x_TC, y_TC, bias_3C, token_L, inside_L, X_ROW, ALL, C_PAD, C_MORE) if C_MORE else x
    if NORM:
        x, more = standard(x, more, DIM, EPS, C_PAD, C_MORE)
    put(out_TC, token_L, inside_L, x, bias_3C, OUT_ROW, ALL, NORM, 0, C_PAD)
    if C_MORE:
        put(out_TC, token_L, inside_L, more, bias_3C, OUT_ROW, ALL, NORM, C_PAD, C_MORE)
