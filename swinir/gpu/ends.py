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
def row_of(rows_RC, ROW: tl.constexpr, ALL: tl.constexpr, FIRST: tl.constexpr, NUM: tl.constexpr):
    """NUM channels of a bias or of a gain, for all tokens."""
    return tl.load(rows_RC + ROW * ALL + FIRST + tl.arange(0, NUM))[None, :]


@triton.jit
def part_of(x_TC, token_L, inside_L, ALL: tl.constexpr, FIRST: tl.constexpr, NUM: tl.constexpr):
    """NUM channels of tokens, in float32."""
    places = token_L[:, None] * ALL + FIRST + tl.arange(0, NUM)[None, :]
    return tl.load(x_TC + places, inside_L[:, None], 0.0).to(tl.float32)


@triton.jit
def put(
    out_TC, token_L, inside_L, x, rows_RC, ALL: tl.constexpr, NORM: tl.constexpr, FIRST: tl.constexpr, NUM: tl.constexpr
):  # fmt: skip
    """Writes NUM channels, if NORM with its gain and bias."""
    if NORM:
        x = x * row_of(rows_RC, 1, ALL, FIRST, NUM) + row_of(rows_RC, 2, ALL, FIRST, NUM)
    places = token_L[:, None] * ALL + FIRST + tl.arange(0, NUM)[None, :]
    tl.store(out_TC + places, x.to(out_TC.dtype.element_ty), inside_L[:, None])


@triton.jit
def factors_of(x_BSHW, mean_P, row, col_L, image, height, width, S: tl.constexpr, P: tl.constexpr, RANGE: tl.constexpr):
    """(L, P): what the first convolution, of S colours by 3 x 3, multiplies for pixels of a row; in the network's range."""
    factor = tl.arange(0, P)
    y, x_LP = row + factor // 3 % 3 - 1, col_L[:, None] + (factor % 3 - 1)[None, :]
    there = ((factor < S * 9) & (y >= 0) & (y < height))[None, :] & (x_LP >= 0) & (x_LP < width)
    plane = x_BSHW + image.to(tl.int64) * S * height * width
    mean = tl.load(mean_P + factor)[None, :]  # in place of pixels that are not there, which then are 0
    return (tl.load(plane + ((factor // 9 * height + y) * width)[None, :] + x_LP, there, mean) - mean) * RANGE


@triton.jit
def shallow(
    x_LP, weight_PC, bias_4C, P: tl.constexpr, ALL: tl.constexpr, FIRST: tl.constexpr, NUM: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """NUM channels of the first convolution."""
    weight = tl.load(weight_PC + tl.arange(0, P)[:, None] * ALL + FIRST + tl.arange(0, NUM)[None, :])
    return tl.dot(x_LP, weight, input_precision=PRECISION) + row_of(bias_4C, 0, ALL, FIRST, NUM)


@triton.jit(do_not_specialize=["height", "width"])
def first_kernel(
    x_BSHW, mean_P, weight_PC, bias_4C, out_TC, height, width,
    S: tl.constexpr, P: tl.constexpr, DIM: tl.constexpr, EPS: tl.constexpr, C_PAD: tl.constexpr, C_MORE: tl.constexpr,
    BLOCK: tl.constexpr, RANGE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The first convolution and a LayerNorm for BLOCK pixels of a row.

    P is S * 9 or somewhat more. From each colour its mean is subtracted, which ``mean_P`` holds nine times, and what is left
    multiplied by RANGE. The grid is rows, parts of a row, images. ``bias_4C`` holds the bias, gain and bias of the LayerNorm,
    and what is for ``again_kernel``.
    """
    ALL: tl.constexpr = C_PAD + C_MORE
    row, image = tl.program_id(0), tl.program_id(2)
    col_L = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    x_LP = factors_of(x_BSHW, mean_P, row, col_L, image, height, width, S, P, RANGE)
    x = shallow(x_LP, weight_PC, bias_4C, P, ALL, 0, C_PAD, PRECISION)
    more = shallow(x_LP, weight_PC, bias_4C, P, ALL, C_PAD, C_MORE, PRECISION) if C_MORE else x
    x, more = standard(x, more, DIM, EPS, C_PAD, C_MORE)
    out_TC += (image.to(tl.int64) * height + row) * width * ALL
    put(out_TC, col_L, col_L < width, x, bias_4C, ALL, True, 0, C_PAD)
    if C_MORE:
        put(out_TC, col_L, col_L < width, more, bias_4C, ALL, True, C_PAD, C_MORE)


@triton.jit(do_not_specialize=["height", "width"])
def again_kernel(
    x_BSHW, mean_P, weight_PC, bias_4C, y_TC, out_TC, height, width,
    S: tl.constexpr, P: tl.constexpr, ALL: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr, RANGE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """out = the first convolution + bias + y, for BLOCK pixels of a row. Of ALL channels it takes CHUNK at a time.

    All is as for ``first_kernel``; the last of ``bias_4C`` is the bias of the convolution which gave y without.
    """
    row, image = tl.program_id(0), tl.program_id(2)
    col_L = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    x_LP = factors_of(x_BSHW, mean_P, row, col_L, image, height, width, S, P, RANGE)
    first = (image.to(tl.int64) * height + row) * width * ALL
    y_TC += first
    out_TC += first
    for channel in tl.static_range(0, ALL, CHUNK):
        x = shallow(x_LP, weight_PC, bias_4C, P, ALL, channel, CHUNK, PRECISION) + row_of(bias_4C, 3, ALL, channel, CHUNK)
        x += part_of(y_TC, col_L, col_L < width, ALL, channel, CHUNK)
        put(out_TC, col_L, col_L < width, x, bias_4C, ALL, False, channel, CHUNK)


@triton.jit(do_not_specialize=["height", "width"])
def last_kernel(
    x_TC, weight_9CO, bias_2O, out_BSHW, height, width,
    SCALE: tl.constexpr, NUM: tl.constexpr, OUT: tl.constexpr, ALL: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
    RANGE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A convolution by 3 x 3 into NUM channels, of OUT, and a pixel shuffle, for BLOCK pixels of a row.

    The grid is rows, parts of a row, images. Of ALL channels it takes CHUNK at a time. ``bias_2O`` holds the bias, and what is
    added once all is divided by RANGE.
    """
    row, image, col_L = tl.program_id(0), tl.program_id(2), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    out = tl.arange(0, OUT)
    y_LO = tl.zeros((BLOCK, OUT), tl.float32) + tl.load(bias_2O + out)[None, :]
    for factor in tl.static_range(9):
        y, x_L = row + factor // 3 - 1, col_L + factor % 3 - 1
        there_L = (y >= 0) & (y < height) & (x_L >= 0) & (x_L < width)
        places_L = ((image * height + y) * width + x_L) * ALL
        for first in tl.static_range(0, ALL, CHUNK):
            channel = first + tl.arange(0, CHUNK)
            x_LC = tl.load(x_TC + places_L[:, None] + channel[None, :], there_L[:, None], 0.0)
            weight = tl.load(weight_9CO + (factor * ALL + channel)[:, None] * OUT + out[None, :])
            y_LO = tl.dot(x_LC, weight, y_LO, input_precision=PRECISION)
    y_LO = y_LO * (1 / RANGE) + tl.load(bias_2O + OUT + out)[None, :]
    AREA: tl.constexpr = SCALE * SCALE
    row_O = ((image * (NUM // AREA) + out // AREA) * height + row) * SCALE + out % AREA // SCALE
    places_LO = (row_O.to(tl.int64) * width * SCALE + out % SCALE)[None, :] + (col_L * SCALE)[:, None]
    tl.store(out_BSHW + places_LO, y_LO, (col_L < width)[:, None] & (out < NUM)[None, :])


@triton.jit
def joined(x_TC, y_TC, bias_3C, token_L, inside_L, ALL: tl.constexpr, FIRST: tl.constexpr, NUM: tl.constexpr):
    """x + bias + y, of NUM channels."""
    x = part_of(x_TC, token_L, inside_L, ALL, FIRST, NUM) + row_of(bias_3C, 0, ALL, FIRST, NUM)
    return x + part_of(y_TC, token_L, inside_L, ALL, FIRST, NUM)


@triton.jit(do_not_specialize=["num_tokens"])
def join_kernel(
    x_TC, y_TC, bias_3C, num_tokens,
    DIM: tl.constexpr, EPS: tl.constexpr, C_PAD: tl.constexpr, C_MORE: tl.constexpr, BLOCK: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    """x becomes x + bias + y, through a LayerNorm if NORM, for BLOCK tokens.

    The bias is that of a convolution which ran without. ``bias_3C`` holds it, and gain and bias of the LayerNorm.
    """
    ALL: tl.constexpr = C_PAD + C_MORE
    first = tl.program_id(0).to(tl.int64) * BLOCK
    x_TC += first * ALL
    y_TC += first * ALL
    token_L = tl.arange(0, BLOCK)
    inside_L = first + token_L < num_tokens
    x = joined(x_TC, y_TC, bias_3C, token_L, inside_L, ALL, 0, C_PAD)
    more = joined(x_TC, y_TC, bias_3C, token_L, inside_L, ALL, C_PAD, C_MORE) if C_MORE else x
    if NORM:
        x, more = standard(x, more, DIM, EPS, C_PAD, C_MORE)
    put(x_TC, token_L, inside_L, x, bias_3C, ALL, NORM, 0, C_PAD)
    if C_MORE:
        put(x_TC, token_L, inside_L, more, bias_3C, ALL, NORM, C_PAD, C_MORE)
