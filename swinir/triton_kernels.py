"""A Swin transformer layer as two Triton kernels: window attention, and the MLP, each with its LayerNorm and its skip.

Axes: T tokens of the image in raster order, L tokens of a window (padded to L_PAD), C channels (padded to C_PAD), K heads,
D channels a head (padded to D_PAD). Padding is zeros, so products do not see it. Sums are in float32, products in the type of
the weights. The gain and bias of each LayerNorm lie in the linear layer behind it, the scale of the scores in the queries.
"""

# ruff: noqa: ANN001, ANN201  (tensors are Triton's own)
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def normalized(x, inside, DIM: tl.constexpr, EPS: tl.constexpr):
    """LayerNorm without gain and bias over the last axis, of which DIM are ``inside``."""
    centred = tl.where(inside, x - tl.sum(x, 1)[:, None] / DIM, 0.0)
    return centred * tl.rsqrt(tl.sum(centred * centred, 1)[:, None] / DIM + EPS)


@triton.jit
def attention_kernel(
    x_TC, qkv_K3CD, qkv_bias_K3D, bias_4KLL, proj_KDC, proj_bias_C, height, width, shift,
    DIM: tl.constexpr, HEADS: tl.constexpr, WINDOW: tl.constexpr, EPS: tl.constexpr,
    C_PAD: tl.constexpr, D_PAD: tl.constexpr, L_PAD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """x += proj(attention(norm(x))) for one window, in place: every token is in exactly one.

    ``shift`` moves the grid (Swin paper, figure 4) by index arithmetic. ``bias_4KLL``, queries by keys, is the position bias
    with the masks of interior, right, bottom and corner windows, or, unshifted, the bias alone.
    """
    rows, cols = height // WINDOW, width // WINDOW
    window = tl.program_id(0)
    col, row, image = window % cols, window // cols % rows, window // (cols * rows)
    token, channel, part = tl.arange(0, L_PAD), tl.arange(0, C_PAD), tl.arange(0, D_PAD)
    y = (row * WINDOW + token // WINDOW + shift) % height
    x = (col * WINDOW + token % WINDOW + shift) % width
    inside = (token < WINDOW * WINDOW)[:, None] & (channel < DIM)[None, :]
    x_TC += image.to(tl.int64) * height * width * DIM  # places in 32 bits take half the registers
    places = (y * width + x)[:, None] * DIM + channel[None, :]
    x_LC = normalized(tl.load(x_TC + places, inside, 0.0).to(tl.float32), inside, DIM, EPS).to(qkv_K3CD.dtype.element_ty)
    kind = tl.where(shift > 0, (col == cols - 1).to(tl.int32) + 2 * (row == rows - 1).to(tl.int32), 0)
    sum_LC = tl.zeros((L_PAD, C_PAD), tl.float32)
    for head in range(HEADS):
        weights = qkv_K3CD + head * 3 * C_PAD * D_PAD + channel[:, None] * D_PAD + part[None, :]
        biases = qkv_bias_K3D + head * 3 * D_PAD + part[None, :]
        q_LD = tl.dot(x_LC, tl.load(weights), input_precision=PRECISION) + tl.load(biases)
        k_LD = tl.dot(x_LC, tl.load(weights + C_PAD * D_PAD), input_precision=PRECISION) + tl.load(biases + D_PAD)
        v_LD = tl.dot(x_LC, tl.load(weights + 2 * C_PAD * D_PAD), input_precision=PRECISION) + tl.load(biases + 2 * D_PAD)
        scores_LL = tl.dot(q_LD.to(x_LC.dtype), tl.trans(k_LD.to(x_LC.dtype)), input_precision=PRECISION)
        scores_LL += tl.load(bias_4KLL + ((kind * HEADS + head) * L_PAD + token[:, None]) * L_PAD + token[None, :])
        scores_LL = tl.where((token < WINDOW * WINDOW)[None, :], scores_LL, float("-inf"))
        scores_LL = tl.exp(scores_LL - tl.max(scores_LL, 1)[:, None])
        scores_LL = scores_LL / tl.sum(scores_LL, 1)[:, None]
        out_LD = tl.dot(scores_LL.to(x_LC.dtype), v_LD.to(x_LC.dtype), input_precision=PRECISION)
        proj_DC = tl.load(proj_KDC + (head * D_PAD + part[:, None]) * C_PAD + channel[None, :])
        sum_LC += tl.dot(out_LD.to(x_LC.dtype), proj_DC, input_precision=PRECISION)
    # Loaded again, from the cache (volatile, or the compiler keeps it): it would take a third of the registers.
    after = tl.load(x_TC + places, inside, 0.0, volatile=True).to(tl.float32) + sum_LC + tl.load(proj_bias_C + channel)[None, :]
    tl.store(x_TC + places, after.to(x_TC.dtype.element_ty), inside)


@triton.jit
def mlp_kernel(
    x_TC, fc1_CH, fc1_bias_H, fc2_HC, fc2_bias_C, num_tokens,
    DIM: tl.constexpr, EPS: tl.constexpr, C_PAD: tl.constexpr, H_PAD: tl.constexpr, CHUNK: tl.constexpr,
    BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """x += fc2(gelu(fc1(norm(x)))) for BLOCK tokens, in place, CHUNK of the hidden channels at a time."""
    first = tl.program_id(0) * BLOCK
    token, channel, part = tl.arange(0, BLOCK), tl.arange(0, C_PAD), tl.arange(0, CHUNK)
    inside = (token < num_tokens - first)[:, None] & (channel < DIM)[None, :]
    x_TC += first.to(tl.int64) * DIM
    places = token[:, None] * DIM + channel[None, :]
    x_BC = normalized(tl.load(x_TC + places, inside, 0.0).to(tl.float32), inside, DIM, EPS).to(fc1_CH.dtype.element_ty)
    sum_BC = tl.zeros((BLOCK, C_PAD), tl.float32)
    for start in range(0, H_PAD, CHUNK):
        fc1_CP = tl.load(fc1_CH + channel[:, None] * H_PAD + start + part[None, :])
        hidden_BP = tl.dot(x_BC, fc1_CP, input_precision=PRECISION) + tl.load(fc1_bias_H + start + part)[None, :]
        hidden_BP = 0.5 * hidden_BP * (1 + tl.erf(hidden_BP * 0.7071067811865476))
        fc2_PC = tl.load(fc2_HC + (start + part[:, None]) * C_PAD + channel[None, :])
        sum_BC += tl.dot(hidden_BP.to(x_BC.dtype), fc2_PC, input_precision=PRECISION)
    after = tl.load(x_TC + places, inside, 0.0, volatile=True).to(tl.float32) + sum_BC + tl.load(fc2_bias_C + channel)[None, :]
    tl.store(x_TC + places, after.to(x_TC.dtype.element_ty), inside)
