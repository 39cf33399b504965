"""A Swin transformer layer of 64 padded channels as one Triton kernel that keeps its window in registers from load to store.

Axes: L the 64 tokens of a window, C channels, D padded channels a head, H hidden channels, P those of a chunk.

Tokens and channels lie in the order in which the matrix units hold them, so that what a thread loads, in 16 bytes at once, is
what it multiplies, and nothing of a picture or of the position bias goes through shared memory. Row 16 w + 8 r + i is token
32 r + 8 w + i of the window; column 32 q + 16 f + 8 e + 2 j + d is channel 32 q + 8 j + 4 f + 2 e + d. Weights and position
bias are packed to match (``ordered.py``), all biases in rows that meet a 1; what is skipped begins each sum.

Every window reads all weights and the bias anew, 131 KB beside 16 of its own, on an H200 about as fast as its second cache can:
there ``persistent.py`` takes those windows that a shifted grid does not wrap around, where it can.
"""

# ruff: noqa: ANN001, ANN201  (tensors are Triton's own)
from __future__ import annotations

import triton
import triton.language as tl

from swinir.gpu.gelu import PLAIN, gelu

C = tl.constexpr(64)
L = tl.constexpr(64)
PAIR = tl.constexpr(2)  # heads that a step takes


@triton.jit
def load_window(x_TC, places_LC):
    """(L, C) float32; ``places_LC`` are of the first half of the channels. In two loads: every Triton lays those out alike."""
    x = tl.join(tl.load(x_TC + places_LC), tl.load(x_TC + places_LC + C // 2))
    x = tl.reshape(x, (2, 4, 8, 4, 2, 2, 2, 2))  # r, w, i, j, f, e, d, q
    return tl.reshape(tl.permute(x, (1, 0, 2, 7, 4, 5, 3, 6)), (L, C)).to(tl.float32)


@triton.jit
def store_window(out_TC, places_LC, x_LC):
    x = tl.reshape(x_LC.to(out_TC.dtype.element_ty), (4, 2, 8, 2, 2, 2, 4, 2))  # w, r, i, q, f, e, j, d
    left, right = tl.split(tl.reshape(tl.permute(x, (1, 0, 2, 6, 4, 5, 7, 3)), (L, C // 2, 2)))
    tl.store(out_TC + places_LC, left)
    tl.store(out_TC + places_LC + C // 2, right)


@triton.jit
def load_bias(bias):
    """The position bias of a kind of window and a head, (L, L), from the order in which threads load it."""
    x = tl.reshape(tl.load(bias + tl.arange(0, L * L)), (4, 4, 8, 4, 2, 2, 2))  # q, w, i, j, e, r, d
    return tl.reshape(tl.permute(x, (1, 5, 2, 0, 4, 3, 6)), (L, L)).to(tl.float32)


@triton.jit
def normalized(x_LC, one_C, DTYPE, DIM: tl.constexpr, EPS: tl.constexpr):
    """LayerNorm without gain and bias, in one pass; ones in the channels of ``one_C``."""
    mean_L = tl.sum(x_LC, 1) * (1.0 / DIM)
    variance_L = tl.sum(x_LC * x_LC, 1) * (1.0 / DIM) - mean_L * mean_L
    factor_L = tl.rsqrt(tl.maximum(variance_L, 0.0) + EPS)
    y_LC = x_LC * factor_L[:, None] - (mean_L * factor_L)[:, None]
    return tl.where(one_C[None, :], 1.0, y_LC).to(DTYPE)


@triton.jit
def reciprocal(x):
    if PLAIN:
        return 1 / x
    return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def in_two(x_LE, D: tl.constexpr):
    """(L, 2 D) to its left and its right half."""
    return tl.split(tl.permute(tl.reshape(x_LE, (L, 2, D)), (0, 2, 1)))


@triton.jit
def one_head(q_LD, k_LD, v_LD, bias_LL, PART: tl.constexpr, D: tl.constexpr, PRECISION: tl.constexpr):
    """The softmax goes without the largest score, as that of ``kernels.py`` does."""
    scores_LL = tl.dot(q_LD, tl.trans(k_LD), bias_LL, input_precision=PRECISION)
    out_LD = tl.dot(tl.exp2(scores_LL).to(v_LD.dtype), v_LD, input_precision=PRECISION)
    total_L = tl.sum(tl.where((tl.arange(0, D) == PART)[None, :], out_LD, 0.0), 1)
    total_L = tl.where(total_L > 1e-30, total_L, float("nan"))
    return (out_LD * reciprocal(total_L)[:, None]).to(v_LD.dtype)


@triton.jit
def add_heads(
    y_LC, x_LC, qkv_3CE, proj_EC, bias, head,
    PART: tl.constexpr, D: tl.constexpr, E: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """To y what two heads give, of x, which is normalized; E are the columns of all heads."""
    channel, column = tl.arange(0, C), head * D + tl.arange(0, PAIR * D)
    weights = qkv_3CE + channel[:, None] * E + column[None, :]
    q_weights, k_weights, v_weights = tl.load(weights), tl.load(weights + C * E), tl.load(weights + 2 * C * E)
    q0_LD, q1_LD = in_two(tl.dot(x_LC, q_weights, input_precision=PRECISION).to(x_LC.dtype), D)
    k0_LD, k1_LD = in_two(tl.dot(x_LC, k_weights, input_precision=PRECISION).to(x_LC.dtype), D)
    v0_LD, v1_LD = in_two(tl.dot(x_LC, v_weights, input_precision=PRECISION).to(x_LC.dtype), D)
    out0_LD = one_head(q0_LD, k0_LD, v0_LD, load_bias(bias + head * L * L), PART, D, PRECISION)
    out1_LD = one_head(q1_LD, k1_LD, v1_LD, load_bias(bias + (head + 1) * L * L), PART, D, PRECISION)
    out_LE = tl.reshape(tl.permute(tl.join(out0_LD, out1_LD), (0, 2, 1)), (L, PAIR * D))
    weights = tl.load(proj_EC + column[:, None] * C + channel[None, :])
    return tl.dot(out_LE, weights, y_LC, input_precision=PRECISION)


@triton.jit
def places(height, width, shift, EDGES: tl.constexpr):
    """Of the tokens of a window in the picture, and its kind. The grid is columns, rows, images: nothing to divide.

    If EDGES it is one row, of the windows of the last column, then those of the last row but its last.
    """
    token = tl.arange(0, L)
    col, row, image = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    rows, cols = height // 8, width // 8
    if EDGES:
        col, row = tl.where(col < rows, cols - 1, col - rows), tl.where(col < rows, col, rows - 1)
    y, x = row * 8 + token // 8 + shift, col * 8 + token % 8 + shift
    y, x = tl.where(y < height, y, y - height), tl.where(x < width, x, x - width)
    right, bottom = col == cols - 1, row == rows - 1
    kind = tl.where(shift > 0, right.to(tl.int32) + 2 * bottom.to(tl.int32), 0)
    return (image * height + y) * width + x, kind


@triton.jit(do_not_specialize=["height", "width", "shift"])
def direct_kernel(
    x_TC, out_TC, qkv_3CE, bias, proj_EC, fc1_CH, fc2_HC, height, width, shift,
    DIM: tl.constexpr, HEADS: tl.constexpr, EPS: tl.constexpr, D: tl.constexpr, H: tl.constexpr, CHUNK: tl.constexpr,
    PRECISION: tl.constexpr, EDGES: tl.constexpr,
):  # fmt: skip
    """What ``attention_kernel`` does if WHOLE, for one window of 8 by 8; in place too."""
    DTYPE: tl.constexpr = qkv_3CE.dtype.element_ty
    column = tl.arange(0, C)
    channel = column // 32 * 32 + column % 8 // 2 * 8 + column // 16 % 2 * 4 + column // 8 % 2 * 2 + column % 2
    places_L, kind = places(height, width, shift, EDGES)
    places_LC = places_L[:, None] * C + tl.arange(0, C // 2)[None, :]
    y_LC = load_window(x_TC, places_LC)
    x_LC = normalized(y_LC, channel >= DIM, DTYPE, DIM, EPS)
    bias += kind * HEADS * L * L
    # Not without loads ahead, for which ptxas 12.8 compiles wrongly: the matrix units' descriptors come from registers that
    # nothing wrote, and on Hopper that is an illegal access to memory.
    for head in tl.range(0, HEADS, PAIR, num_stages=2):
        y_LC = add_heads(y_LC, x_LC, qkv_3CE, proj_EC, bias, head, DIM // HEADS, D, HEADS * D, PRECISION)
    z_LC = normalized(y_LC, channel >= DIM, DTYPE, DIM, EPS)
    for start in tl.static_range(0, H, CHUNK):
        hidden = start + tl.arange(0, CHUNK)
        hidden_LP = tl.dot(z_LC, tl.load(fc1_CH + column[:, None] * H + hidden[None, :]), input_precision=PRECISION)
        weights = tl.load(fc2_HC + hidden[:, None] * C + column[None, :])
        y_LC = tl.dot(gelu(hidden_LP, PRECISION == "ieee"), weights, y_LC, input_precision=PRECISION)
    store_window(out_TC, places_LC, y_LC)
