"""Window attention as Triton kernels, forwards and backwards, on the tokens of images in raster order, to train with on a GPU.

Axes: T tokens over all images, C channels (all heads), K heads, D channels a head (padded to D_PAD), L tokens of a window
(padded to L_PAD). Backwards the weights of the softmax are computed again, so that nothing of L times L is kept, and each
program goes through many windows of one head, so that the gradient of the position bias is summed up in registers.
"""

# ruff: noqa: ANN001, ANN201  (tensors are Triton's own)
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def place(window, height, width, shift, WINDOW: tl.constexpr, L_PAD: tl.constexpr):
    """Of the tokens of a window: where they lie, which are there, and numbers that differ where two may not see each other."""
    token = tl.arange(0, L_PAD)
    rows, cols = height // WINDOW, width // WINDOW
    col, row, image = window % cols, window // cols % rows, window // (cols * rows)
    down, right = token // WINDOW, token % WINDOW
    y, x = row * WINDOW + down + shift, col * WINDOW + right + shift
    y, x = tl.where(y < height, y, y - height), tl.where(x < width, x, x - width)
    region = ((row == rows - 1) & (down >= WINDOW - shift)) * 2 + ((col == cols - 1) & (right >= WINDOW - shift)) * 1
    return (image * height + y) * width + x, token < WINDOW * WINDOW, region


@triton.jit
def head_of(x, places_L, inside_LD, FIRST, ROW: tl.constexpr, D_PAD: tl.constexpr):
    """(L, D): channels from FIRST on of rows that are ROW long."""
    return tl.load(x + places_L[:, None] * ROW + FIRST + tl.arange(0, D_PAD)[None, :], inside_LD, 0.0)


@triton.jit
def put_head(x, places_L, inside_LD, values_LD, FIRST, ROW: tl.constexpr, D_PAD: tl.constexpr):
    where = x + places_L[:, None] * ROW + FIRST + tl.arange(0, D_PAD)[None, :]
    tl.store(where, values_LD.to(x.dtype.element_ty), inside_LD)


@triton.jit
def bias_of(bias_KLL, head, WINDOW: tl.constexpr, L_PAD: tl.constexpr):
    """(L, L) of the position bias of a head, and -inf for keys that are not there."""
    token, NUM = tl.arange(0, L_PAD), WINDOW * WINDOW
    queries, keys = token[:, None], token[None, :]
    bias = tl.load(bias_KLL + (head * NUM + queries) * NUM + keys, (queries < NUM) & (keys < NUM), 0.0)
    return tl.where(keys < NUM, bias, float("-inf"))


@triton.jit
def softmax(q_LD, k_LD, bias_LL, region_L, SCALE: tl.constexpr, PRECISION: tl.constexpr):
    scores_LL = tl.dot(q_LD, tl.trans(k_LD), input_precision=PRECISION) * SCALE + bias_LL
    scores_LL += tl.where(region_L[:, None] == region_L[None, :], 0.0, -100.0)
    weights_LL = tl.exp(scores_LL - tl.max(scores_LL, 1)[:, None])
    return weights_LL * (1 / tl.sum(weights_LL, 1))[:, None]


@triton.jit(do_not_specialize=["height", "width", "shift"])
def forward_kernel(
    qkv_T3C, bias_KLL, out_TC, height, width, shift,
    DIM: tl.constexpr, HEADS: tl.constexpr, WINDOW: tl.constexpr, SCALE: tl.constexpr, D_PAD: tl.constexpr,
    L_PAD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A window and a head."""
    window, head = tl.program_id(0), tl.program_id(1)
    D: tl.constexpr = DIM // HEADS
    places_L, inside_L, region_L = place(window, height, width, shift, WINDOW, L_PAD)
    inside_LD = inside_L[:, None] & (tl.arange(0, D_PAD) < D)[None, :]
    q_LD = head_of(qkv_T3C, places_L, inside_LD, head * D, 3 * DIM, D_PAD)
    k_LD = head_of(qkv_T3C, places_L, inside_LD, DIM + head * D, 3 * DIM, D_PAD)
    v_LD = head_of(qkv_T3C, places_L, inside_LD, 2 * DIM + head * D, 3 * DIM, D_PAD)
    weights_LL = softmax(q_LD, k_LD, bias_of(bias_KLL, head, WINDOW, L_PAD), region_L, SCALE, PRECISION)
    out_LD = tl.dot(weights_LL.to(v_LD.dtype), v_LD, input_precision=PRECISION)
    put_head(out_TC, places_L, inside_LD, out_LD, head * D, DIM, D_PAD)


@triton.jit(do_not_specialize=["height", "width", "shift", "num_windows"])
def backward_kernel(
    qkv_T3C, bias_KLL, d_out_TC, d_qkv_T3C, d_bias_PKLL, height, width, shift, num_windows,
    DIM: tl.constexpr, HEADS: tl.constexpr, WINDOW: tl.constexpr, SCALE: tl.constexpr, D_PAD: tl.constexpr,
    L_PAD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A head, of every so manieth window: the gradients of q, k and v, and the sum of those of the scores."""
    program, head = tl.program_id(0), tl.program_id(1)
    D: tl.constexpr = DIM // HEADS
    NUM: tl.constexpr = WINDOW * WINDOW
    bias_LL = bias_of(bias_KLL, head, WINDOW, L_PAD)
    d_bias_LL = tl.zeros((L_PAD, L_PAD), tl.float32)
    for window in range(program, num_windows, tl.num_programs(0)):
        places_L, inside_L, region_L = place(window, height, width, shift, WINDOW, L_PAD)
        inside_LD = inside_L[:, None] & (tl.arange(0, D_PAD) < D)[None, :]
        q_LD = head_of(qkv_T3C, places_L, inside_LD, head * D, 3 * DIM, D_PAD)
        k_LD = head_of(qkv_T3C, places_L, inside_LD, DIM + head * D, 3 * DIM, D_PAD)
        v_LD = head_of(qkv_T3C, places_L, inside_LD, 2 * DIM + head * D, 3 * DIM, D_PAD)
        d_LD = head_of(d_out_TC, places_L, inside_LD, head * D, DIM, D_PAD)
        weights_LL = softmax(q_LD, k_LD, bias_LL, region_L, SCALE, PRECISION)
        d_weights_LL = tl.dot(d_LD, tl.trans(v_LD), input_precision=PRECISION)
        d_scores_LL = weights_LL * (d_weights_LL - tl.sum(weights_LL * d_weights_LL, 1)[:, None])
        d_bias_LL += d_scores_LL
        d_v_LD = tl.dot(tl.trans(weights_LL.to(v_LD.dtype)), d_LD, input_precision=PRECISION)
        rounded_LL = d_scores_LL.to(q_LD.dtype)
        d_q_LD = tl.dot(rounded_LL, k_LD, input_precision=PRECISION) * SCALE
        d_k_LD = tl.dot(tl.trans(rounded_LL), q_LD, input_precision=PRECISION) * SCALE
        put_head(d_qkv_T3C, places_L, inside_LD, d_q_LD, head * D, 3 * DIM, D_PAD)
        put_head(d_qkv_T3C, places_L, inside_LD, d_k_LD, DIM + head * D, 3 * DIM, D_PAD)
        put_head(d_qkv_T3C, places_L, inside_LD, d_v_LD, 2 * DIM + head * D, 3 * DIM, D_PAD)
    token = tl.arange(0, L_PAD)
    queries, keys = token[:, None], token[None, :]
    where = d_bias_PKLL + ((program * HEADS + head) * NUM + queries) * NUM + keys
    tl.store(where, d_bias_LL, (queries < NUM) & (keys < NUM))
