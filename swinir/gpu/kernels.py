"""A Swin transformer layer as Triton kernels: window attention, and the MLP, each with its LayerNorm and its skip; or in one.

Axes: T tokens of the image in raster order, L tokens of the WINDOWS windows that one program takes (L_PAD of each), C channels,
K heads, D channels a head (padded to D_PAD), H hidden channels (padded to H_PAD). Matrix units take powers of two, so channels
are held in two parts, C_PAD and C_MORE, which may be 0: 180 as 128 + 64. In memory too, where a token then begins on whole 16
bytes. Padding is zeros, but in the factors of products the channels behind the last are 1: the rows of the weights that
the first two meet hold the bias, as what it is rounded and the rest of it. Behind the last of a head's values is one that is 1
too, which sums up the weights of the softmax. Sums are in float32, products in the type of the weights. The gain and bias of
each LayerNorm lie in the linear layer behind it, the scale of the scores and the change to 2 as base of the softmax in the
queries and the position bias. All that is to save instructions: compiled for Hopper, it is they that bound these kernels.
"""

# ruff: noqa: ANN001, ANN201  (tensors are Triton's own)
from __future__ import annotations

import triton
import triton.language as tl

from swinir.gpu.gelu import gelu


@triton.jit
def read(x_TC, places_L, inside_L, FIRST: tl.constexpr, NUM: tl.constexpr):
    """(L, NUM) float32. Volatile, or the compiler keeps what is read twice, in a third of the registers."""
    channel = FIRST + tl.arange(0, NUM)
    return tl.load(x_TC + places_L[:, None] + channel[None, :], inside_L[:, None], 0.0, volatile=True).to(tl.float32)


@triton.jit
def read_all(x_TC, places_L, inside_L, C_PAD: tl.constexpr, C_MORE: tl.constexpr):
    """Both parts of the channels; without a second, the first twice."""
    x_LC = read(x_TC, places_L, inside_L, 0, C_PAD)
    return x_LC, read(x_TC, places_L, inside_L, C_PAD, C_MORE) if C_MORE else x_LC


@triton.jit
def write(x_TC, places_L, inside_L, values, FIRST: tl.constexpr, NUM: tl.constexpr):
    channel = FIRST + tl.arange(0, NUM)
    tl.store(x_TC + places_L[:, None] + channel[None, :], values.to(x_TC.dtype.element_ty), inside_L[:, None])


@triton.jit
def write_all(x_TC, places_L, inside_L, x_LC, more_LC, C_PAD: tl.constexpr, C_MORE: tl.constexpr):
    write(x_TC, places_L, inside_L, x_LC, 0, C_PAD)
    if C_MORE:
        write(x_TC, places_L, inside_L, more_LC, C_PAD, C_MORE)


@triton.jit
def centred(x, mean_L, FIRST: tl.constexpr, NUM: tl.constexpr, DIM: tl.constexpr):
    return tl.where((FIRST + tl.arange(0, NUM) < DIM)[None, :], x - mean_L[:, None], 0.0)


@triton.jit
def with_ones(x, FIRST: tl.constexpr, NUM: tl.constexpr, DIM: tl.constexpr):
    return tl.where((FIRST + tl.arange(0, NUM) >= DIM)[None, :], 1.0, x)


@triton.jit
def standard(x, more, DIM: tl.constexpr, EPS: tl.constexpr, C_PAD: tl.constexpr, C_MORE: tl.constexpr):
    """LayerNorm without gain and bias, zeros behind."""
    mean_L = (tl.sum(x, 1) + (tl.sum(more, 1) if C_MORE else 0.0)) / DIM
    x = centred(x, mean_L, 0, C_PAD, DIM)
    more = centred(more, mean_L, C_PAD, C_MORE, DIM) if C_MORE else x
    squares_L = tl.sum(x * x, 1) + (tl.sum(more * more, 1) if C_MORE else 0.0)
    factor_L = tl.rsqrt(squares_L / DIM + EPS)[:, None]
    x *= factor_L
    return x, more * factor_L if C_MORE else x


@triton.jit
def normalized(x, more, DTYPE, DIM: tl.constexpr, EPS: tl.constexpr, C_PAD: tl.constexpr, C_MORE: tl.constexpr):
    """LayerNorm without gain and bias, and the ones; for bfloat16, to which a large mean costs more anyway, in one pass."""
    if DTYPE.is_fp32():
        x, more = standard(x, more, DIM, EPS, C_PAD, C_MORE)
    else:
        mean_L = (tl.sum(x, 1) + (tl.sum(more, 1) if C_MORE else 0.0)) / DIM
        squares_L = tl.sum(x * x, 1) + (tl.sum(more * more, 1) if C_MORE else 0.0)
        factor_L = tl.rsqrt(tl.maximum(squares_L / DIM - mean_L * mean_L, 0.0) + EPS)
        less_L, factor_L = (mean_L * factor_L)[:, None], factor_L[:, None]
        x = x * factor_L - less_L
        more = more * factor_L - less_L if C_MORE else x
    x = with_ones(x, 0, C_PAD, DIM).to(DTYPE)
    return x, with_ones(more, C_PAD, C_MORE, DIM).to(DTYPE) if C_MORE else x


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


@triton.jit
def zeros(L: tl.constexpr, C_PAD: tl.constexpr, C_MORE: tl.constexpr):
    x = tl.zeros((L, C_PAD), tl.float32)
    return x, tl.zeros((L, C_MORE), tl.float32) if C_MORE else x


@triton.jit
def add_product(
    x, more, y, weights, DEPTH: tl.constexpr, C_PAD: tl.constexpr, C_MORE: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    """To (L, C), in its parts, (L, DEPTH) times weights (DEPTH, C)."""
    weights += tl.arange(0, DEPTH)[:, None] * (C_PAD + C_MORE)
    x = tl.dot(y, tl.load(weights + tl.arange(0, C_PAD)[None, :]), x, input_precision=PRECISION)
    if C_MORE:
        weights_more = tl.load(weights + C_PAD + tl.arange(0, C_MORE)[None, :])
        more = tl.dot(y, weights_more, more, input_precision=PRECISION)
    else:
        more = x
    return x, more


@triton.jit
def add_all(x, more, y, more_y, bias_C, C_PAD: tl.constexpr, C_MORE: tl.constexpr):
    x += y + tl.load(bias_C + tl.arange(0, C_PAD))[None, :]
    return x, more + more_y + tl.load(bias_C + C_PAD + tl.arange(0, C_MORE))[None, :] if C_MORE else x


@triton.jit
def attention(
    x_LC, more_LC, place, token, kind, qkv_K3CD, bias_4KLL, proj_KDC,
    DIM: tl.constexpr, HEADS: tl.constexpr, C_PAD: tl.constexpr, C_MORE: tl.constexpr, D_PAD: tl.constexpr,
    L_PAD: tl.constexpr, WINDOWS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Window attention and its projection, of what is normalized; without the bias of the projection.

    The softmax does without the largest score: float32 holds 2 to the 127th. Where that is too little for some network, or a
    row has nothing but tiny weights, what comes out is no number, and is computed again in another way.
    """
    ALL: tl.constexpr = C_PAD + C_MORE
    DTYPE = x_LC.dtype
    bias = bias_4KLL + (kind * HEADS * L_PAD + token)[:, None] * L_PAD + token[None, :]
    together = (place // L_PAD)[:, None] == (place // L_PAD)[None, :]
    sum_LC, sum_more_LC = zeros(WINDOWS * L_PAD, C_PAD, C_MORE)
    for head in range(HEADS):
        qkv_CD = qkv_K3CD + head * 3 * ALL * D_PAD
        q_LD = product(x_LC, more_LC, qkv_CD, D_PAD, D_PAD, C_PAD, C_MORE, PRECISION).to(DTYPE)
        k_LD = product(x_LC, more_LC, qkv_CD + ALL * D_PAD, D_PAD, D_PAD, C_PAD, C_MORE, PRECISION).to(DTYPE)
        v_LD = product(x_LC, more_LC, qkv_CD + 2 * ALL * D_PAD, D_PAD, D_PAD, C_PAD, C_MORE, PRECISION).to(DTYPE)
        scores_LL = tl.dot(q_LD, tl.trans(k_LD), input_precision=PRECISION) + tl.load(bias + head * L_PAD * L_PAD)
        if WINDOWS > 1:
            scores_LL = tl.where(together, scores_LL, float("-inf"))
        out_LD = tl.dot(tl.exp2(scores_LL).to(DTYPE), v_LD, input_precision=PRECISION)
        total_L = tl.sum(tl.where(tl.arange(0, D_PAD) == DIM // HEADS, out_LD, 0.0), 1)
        total_L = tl.where(total_L > 1e-30, total_L, float("nan"))
        out_LD = (out_LD * (1 / total_L)[:, None]).to(DTYPE)
        proj_DC = proj_KDC + head * D_PAD * ALL
        sum_LC, sum_more_LC = add_product(sum_LC, sum_more_LC, out_LD, proj_DC, D_PAD, C_PAD, C_MORE, PRECISION)
    return sum_LC, sum_more_LC


@triton.jit
def mlp(
    x_LC, more_LC, fc1_CH, fc2_HC, L: tl.constexpr, C_PAD: tl.constexpr, C_MORE: tl.constexpr, H_PAD: tl.constexpr,
    CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """fc2(gelu(fc1)) of what is normalized, CHUNK of the hidden channels at a time; without the bias of fc2."""
    sum_LC, sum_more_LC = zeros(L, C_PAD, C_MORE)
    for start in range(0, H_PAD, CHUNK):
        hidden_LP = product(x_LC, more_LC, fc1_CH + start, H_PAD, CHUNK, C_PAD, C_MORE, PRECISION)
        hidden_LP = gelu(hidden_LP, PRECISION == "ieee")
        fc2_PC = fc2_HC + start * (C_PAD + C_MORE)
        sum_LC, sum_more_LC = add_product(sum_LC, sum_more_LC, hidden_LP, fc2_PC, CHUNK, C_PAD, C_MORE, PRECISION)
    return sum_LC, sum_more_LC


@triton.jit(do_not_specialize=["height", "width", "shift", "num_windows"])  # or every size of picture is compiled anew
def attention_kernel(
    x_TC, out_TC, qkv_K3CD, bias_4KLL, proj_KDC, proj_bias_C, fc1_CH, fc2_HC, fc2_bias_C, height, width, shift, num_windows,
    DIM: tl.constexpr, HEADS: tl.constexpr, WINDOW: tl.constexpr, EPS: tl.constexpr, C_PAD: tl.constexpr, C_MORE: tl.constexpr,
    D_PAD: tl.constexpr, L_PAD: tl.constexpr, WINDOWS: tl.constexpr, PRECISION: tl.constexpr, H_PAD: tl.constexpr,
    CHUNK: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """out = x + proj(attention(norm(x))) for the windows of a program, one or two; in place too: every token is in exactly one.

    ``shift`` moves the grid (Swin paper, figure 4) by index arithmetic. ``bias_4KLL``, queries by keys, is the position bias
    with the masks of interior, right, bottom and corner windows, or, unshifted, the bias alone. If WHOLE, what ``mlp_kernel``
    does as well.
    """
    ALL: tl.constexpr = C_PAD + C_MORE
    DTYPE = qkv_K3CD.dtype.element_ty
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
    kind = tl.where(shift > 0, (col == cols - 1).to(tl.int32) + 2 * (row == rows - 1).to(tl.int32), 0)
    x_LC, more_LC = read_all(x_TC, places_L, inside_L, C_PAD, C_MORE)
    x_LC, more_LC = normalized(x_LC, more_LC, DTYPE, DIM, EPS, C_PAD, C_MORE)
    y_LC, more_y_LC = attention(
        x_LC, more_LC, place, token, kind, qkv_K3CD, bias_4KLL, proj_KDC,
        DIM, HEADS, C_PAD, C_MORE, D_PAD, L_PAD, WINDOWS, PRECISION,
    )  # fmt: skip
    x_LC, more_LC = read_all(x_TC, places_L, inside_L, C_PAD, C_MORE)
    x_LC, more_LC = add_all(x_LC, more_LC, y_LC, more_y_LC, proj_bias_C, C_PAD, C_MORE)
    if WHOLE:
        z_LC, more_z_LC = normalized(x_LC, more_LC, DTYPE, DIM, EPS, C_PAD, C_MORE)
        y_LC, more_y_LC = mlp(z_LC, more_z_LC, fc1_CH, fc2_HC, WINDOWS * L_PAD, C_PAD, C_MORE, H_PAD, CHUNK, PRECISION)
        x_LC, more_LC = add_all(x_LC, more_LC, y_LC, more_y_LC, fc2_bias_C, C_PAD, C_MORE)
    write_all(out_TC, places_L, inside_L, x_LC, more_LC, C_PAD, C_MORE)


@triton.jit(do_not_specialize=["num_tokens"])
def mlp_kernel(
    x_TC, fc1_CH, fc2_HC, fc2_bias_C, num_tokens,
    DIM: tl.constexpr, EPS: tl.constexpr, C_PAD: tl.constexpr, C_MORE: tl.constexpr, H_PAD: tl.constexpr, CHUNK: tl.constexpr,
    BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """x += fc2(gelu(fc1(norm(x)))) for BLOCK tokens, in place."""
    token = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    places_L, inside_L = token * (C_PAD + C_MORE), token < num_tokens
    x_LC, more_LC = read_all(x_TC, places_L, inside_L, C_PAD, C_MORE)
    z_LC, more_z_LC = normalized(x_LC, more_LC, fc1_CH.dtype.element_ty, DIM, EPS, C_PAD, C_MORE)
    y_LC, more_y_LC = mlp(z_LC, more_z_LC, fc1_CH, fc2_HC, BLOCK, C_PAD, C_MORE, H_PAD, CHUNK, PRECISION)
    x_LC, more_LC = read_all(x_TC, places_L, inside_L, C_PAD, C_MORE)
    x_LC, more_LC = add_all(x_LC, more_LC, y_LC, more_y_LC, fc2_bias_C, C_PAD, C_MORE)
    write_all(x_TC, places_L, inside_L, x_LC, more_LC, C_PAD, C_MORE)
