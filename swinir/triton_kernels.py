"""A Swin transformer layer as two Triton kernels: window attention, and the MLP, each with its LayerNorm and its skip.

Axes: T tokens of the image in raster order, L tokens of the WINDOWS windows that one program takes (L_PAD of each), C channels,
K heads, D channels a head (padded to D_PAD), H hidden channels (padded to H_PAD). Matrix units take powers of two, so channels
are held in two parts, C_PAD and C_MORE, which may be 0: 180 as 128 + 64. In memory too, where a token then begins on whole 16
bytes. Padding is zeros, but in the factors of products the ONES channels behind the last are 1: the rows of the weights that
they meet hold the bias, as what it is rounded and the rest of it. Behind the last of a head's values is one that is 1 too,
which sums up the weights of the softmax. Sums are in float32, products in the type of the weights. The gain and bias of each
LayerNorm lie in the linear layer behind it, the scale of the scores and the change to 2 as base of the softmax in the queries
and the position bias. All that is to save instructions: compiled for Hopper, it is they that bound these kernels.
"""

# ruff: noqa: ANN001, ANN201  (tensors are Triton's own)
from __future__ import annotations

import triton
import triton.language as tl

ONES = tl.constexpr(2)
END = tl.constexpr(4.5)


@triton.jit
def gelu(x, EXACT: tl.constexpr):
    """x * Phi(x); where not EXACT by a polynomial, to 3e-5, far under the error of bfloat16 and at half of what erf costs."""
    if EXACT:
        return 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))
    near = tl.minimum(tl.maximum(x, -END), END)
    u = near * near * (2 / (END * END)) - 1.0
    p = 0.0033536829 * u - 0.0093285305
    p = p * u + 0.012208534
    p = p * u - 0.016744054
    p = p * u + 0.027629398
    p = p * u - 0.040555764
    p = p * u + 0.054818569
    p = p * u - 0.07717196
    p = p * u + 0.15690211
    return x * (near * p + 0.5)


@triton.jit
def read(x_TC, places_L, inside_L, channel):
    """(L, channels) float32. Volatile, or the compiler keeps what is read twice, in a third of the registers."""
    return tl.load(x_TC + places_L[:, None] + channel[None, :], inside_L[:, None], 0.0, volatile=True).to(tl.float32)


@triton.jit
def add(x_TC, places_L, inside_L, channel, more, bias_C):
    """To the channels of the tokens at those places; those that are padding get 0."""
    after = read(x_TC, places_L, inside_L, channel) + more + tl.load(bias_C + channel)[None, :]
    tl.store(x_TC + places_L[:, None] + channel[None, :], after.to(x_TC.dtype.element_ty), inside_L[:, None])


@triton.jit
def with_ones(x, channel, DIM: tl.constexpr):
    return tl.where(((channel >= DIM) & (channel < DIM + ONES))[None, :], 1.0, x)


@triton.jit
def normalized(
    x_TC, places_L, inside_L, DTYPE, DIM: tl.constexpr, EPS: tl.constexpr, C_PAD: tl.constexpr, C_MORE: tl.constexpr
):  # fmt: skip
    """LayerNorm without gain and bias, as (L, C_PAD) and (L, C_MORE); without the latter, the former twice."""
    channel = tl.arange(0, C_PAD)
    x = read(x_TC, places_L, inside_L, channel)
    total = tl.sum(x, 1)
    if C_MORE:
        channel_more = C_PAD + tl.arange(0, C_MORE)
        more = read(x_TC, places_L, inside_L, channel_more)
        total += tl.sum(more, 1)
    x = tl.where((channel < DIM)[None, :], x - total[:, None] / DIM, 0.0)
    squares = tl.sum(x * x, 1)
    if C_MORE:
        more = tl.where((channel_more < DIM)[None, :], more - total[:, None] / DIM, 0.0)
        squares += tl.sum(more * more, 1)
    factor = tl.rsqrt(squares / DIM + EPS)[:, None]
    x = with_ones(x * factor, channel, DIM).to(DTYPE)
    more = with_ones(more * factor, channel_more, DIM).to(DTYPE) if C_MORE else x
    return x, more


@triton.jit
def product(
    x, more, weights, stride, N: tl.constexpr, C_PAD: tl.constexpr, C_MORE: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    """The parts of a (L, C) times N columns of weights (C, stride): (L, N) float32."""
    row, column = tl.arange(0, C_PAD)[:, None], tl.arange(0, N)[None, :]
    y = tl.dot(x, tl.load(weights + row * stride + column), input_precision=PRECISION)
    if C_MORE:
        row_more = C_PAD + tl.arange(0, C_MORE)[:, None]
        y = tl.dot(more, tl.load(weights + row_more * stride + column), y, input_precision=PRECISION)
    return y


@triton.jit(do_not_specialize=["height", "width", "shift", "num_windows"])  # or every size of picture is compiled anew
def attention_kernel(
    x_TC, qkv_K3CD, bias_4KLL, proj_KDC, proj_bias_C, height, width, shift, num_windows,
    DIM: tl.constexpr, HEADS: tl.constexpr, WINDOW: tl.constexpr, EPS: tl.constexpr, C_PAD: tl.constexpr, C_MORE: tl.constexpr,
    D_PAD: tl.constexpr, L_PAD: tl.constexpr, WINDOWS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """x += proj(attention(norm(x))) for the windows of a program, one or two, in place: every token is in exactly one.

    ``shift`` moves the grid (Swin paper, figure 4) by index arithmetic. ``bias_4KLL``, queries by keys, is the position bias
    with the masks of interior, right, bottom and corner windows, or, unshifted, the bias alone.
    """
    DTYPE = qkv_K3CD.dtype.element_ty
    ALL: tl.constexpr = C_PAD + C_MORE
    rows, cols = height // WINDOW, width // WINDOW
    place = tl.arange(0, WINDOWS * L_PAD)
    token = place % L_PAD
    window = tl.program_id(0) * WINDOWS
    if WINDOWS > 1:
        window += place // L_PAD
    col, row, image = window % cols, window // cols % rows, window // (cols * rows)
    y, x = row * WINDOW + token // WINDOW + shift, col * WINDOW + token % WINDOW + shift
    y, x = tl.where(y < height, y, y - height), tl.where(x < width, x, x - width)
    places_L = ((image * height + y) * width + x) * ALL
    inside_L = (token < WINDOW * WINDOW) & (window < num_windows)
    x_LC, more_LC = normalized(x_TC, places_L, inside_L, DTYPE, DIM, EPS, C_PAD, C_MORE)
    kind = tl.where(shift > 0, (col == cols - 1).to(tl.int32) + 2 * (row == rows - 1).to(tl.int32), 0)
    bias = bias_4KLL + (kind * HEADS * L_PAD + token)[:, None] * L_PAD + token[None, :]
    together = (place // L_PAD)[:, None] == (place // L_PAD)[None, :]
    part = tl.arange(0, D_PAD)
    sum_LC = tl.zeros((WINDOWS * L_PAD, C_PAD), tl.float32)
    if C_MORE:
        sum_more_LC = tl.zeros((WINDOWS * L_PAD, C_MORE), tl.float32)
    for head in range(HEADS):
        qkv_CD = qkv_K3CD + head * 3 * ALL * D_PAD
        q_LD = product(x_LC, more_LC, qkv_CD, D_PAD, D_PAD, C_PAD, C_MORE, PRECISION).to(DTYPE)
        k_LD = product(x_LC, more_LC, qkv_CD + ALL * D_PAD, D_PAD, D_PAD, C_PAD, C_MORE, PRECISION).to(DTYPE)
        v_LD = product(x_LC, more_LC, qkv_CD + 2 * ALL * D_PAD, D_PAD, D_PAD, C_PAD, C_MORE, PRECISION).to(DTYPE)
        scores_LL = tl.dot(q_LD, tl.trans(k_LD), input_precision=PRECISION) + tl.load(bias + head * L_PAD * L_PAD)
        if WINDOWS > 1:
            scores_LL = tl.where(together, scores_LL, float("-inf"))
        scores_LL = tl.exp2(scores_LL - tl.max(scores_LL, 1)[:, None])
        out_LD = tl.dot(scores_LL.to(DTYPE), v_LD, input_precision=PRECISION)
        total_L = tl.sum(tl.where(part == DIM // HEADS, out_LD, 0.0), 1)
        out_LD = (out_LD * (1 / total_L)[:, None]).to(DTYPE)
        proj_DC = proj_KDC + (head * D_PAD + part[:, None]) * ALL
        sum_LC = tl.dot(out_LD, tl.load(proj_DC + tl.arange(0, C_PAD)[None, :]), sum_LC, input_precision=PRECISION)
        if C_MORE:
            proj_more_DC = tl.load(proj_DC + C_PAD + tl.arange(0, C_MORE)[None, :])
            sum_more_LC = tl.dot(out_LD, proj_more_DC, sum_more_LC, input_precision=PRECISION)
    add(x_TC, places_L, inside_L, tl.arange(0, C_PAD), sum_LC, proj_bias_C)
    if C_MORE:
        add(x_TC, places_L, inside_L, C_PAD + tl.arange(0, C_MORE), sum_more_LC, proj_bias_C)


@triton.jit(do_not_specialize=["num_tokens"])
def mlp_kernel(
    x_TC, fc1_CH, fc2_HC, fc2_bias_C, num_tokens,
    DIM: tl.constexpr, EPS: tl.constexpr, C_PAD: tl.constexpr, C_MORE: tl.constexpr, H_PAD: tl.constexpr, CHUNK: tl.constexpr,
    BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """x += fc2(gelu(fc1(norm(x)))) for BLOCK tokens, in place, CHUNK of the hidden channels at a time."""
    DTYPE = fc1_CH.dtype.element_ty
    ALL: tl.constexpr = C_PAD + C_MORE
    token = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    places_B, inside_B = token * ALL, token < num_tokens
    x_BC, more_BC = normalized(x_TC, places_B, inside_B, DTYPE, DIM, EPS, C_PAD, C_MORE)
    sum_BC = tl.zeros((BLOCK, C_PAD), tl.float32)
    if C_MORE:
        sum_more_BC = tl.zeros((BLOCK, C_MORE), tl.float32)
    for start in range(0, H_PAD, CHUNK):
        hidden_BP = product(x_BC, more_BC, fc1_CH + start, H_PAD, CHUNK, C_PAD, C_MORE, PRECISION)
        hidden_BP = gelu(hidden_BP, PRECISION == "ieee").to(DTYPE)
        fc2_PC = fc2_HC + (start + tl.arange(0, CHUNK)[:, None]) * ALL
        sum_BC = tl.dot(hidden_BP, tl.load(fc2_PC + tl.arange(0, C_PAD)[None, :]), sum_BC, input_precision=PRECISION)
        if C_MORE:
            fc2_more_PC = tl.load(fc2_PC + C_PAD + tl.arange(0, C_MORE)[None, :])
            sum_more_BC = tl.dot(hidden_BP, fc2_more_PC, sum_more_BC, input_precision=PRECISION)
    add(x_TC, places_B, inside_B, tl.arange(0, C_PAD), sum_BC, fc2_bias_C)
    if C_MORE:
        add(x_TC, places_B, inside_B, C_PAD + tl.arange(0, C_MORE), sum_more_BC, fc2_bias_C)
