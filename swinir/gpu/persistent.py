"""The layer of ``direct.py`` for windows without a mask, on Hopper GPUs: one program a multiprocessor, for all windows.

What bounds one program a window is to read all weights and the position bias anew each time, 131 KB from the second cache. Here
they are read once and stay in shared memory. Four groups of four warps take windows of their own, one after another, and load
the next before they are done with the one at hand.

The position bias comes as factors of the weights of the softmax, 2 to its power, of which the largest for a query is 1, in
bfloat16 as the weights are. Added to the scores it would have to be there before them, in float32, and shared memory has the
most to do.

That takes shared memory and warps by name, so it is written in Gluon, which is Triton's language one level down, and for one
shape: 60 channels in 6 heads, 120 hidden ones, padded as for ``direct.py``. Triton's interpreter does not run Gluon.

Of the columns of a head's values, those with odd numbers from 9 on are 1, times ``SCALE`` of ``ordered.py``: so each
thread has the sums of its rows' softmax, and none has to be asked for. Too small a sum has an infinite reciprocal by the SCALE,
and no number comes out.
"""

# ruff: noqa: ANN001, ANN201  (tensors are Triton's own)
from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere.async_copy import async_copy_global_to_shared as copy
from triton.experimental.gluon.language.nvidia.ampere.async_copy import commit_group, wait_group
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, warpgroup_mma, warpgroup_mma_wait

from swinir.gpu.gelu import ASM

barrier = getattr(gl, "barrier", None) or gl.thread_barrier  # of Triton 3.7, of 3.6
GELU = gl.constexpr(ASM.value)
TIMES = gl.constexpr("{ .reg .b32 x; cvt.rn.bf16x2.f32 x, $2, $1; mul.rn.bf16x2 $0, x, $3; }")
DIM, HEADS, EPS = gl.constexpr(60), gl.constexpr(6), gl.constexpr(1e-5)
REGISTERS = gl.constexpr(128)  # of a thread

MMA_64 = gl.constexpr(gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, 64, 16]))
MMA_32 = gl.constexpr(gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, 32, 16]))
MMA_16 = gl.constexpr(gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, 16, 16]))
A_64 = gl.constexpr(gl.DotOperandLayout(0, MMA_64.value, 2))
A_32 = gl.constexpr(gl.DotOperandLayout(0, MMA_32.value, 2))
A_16 = gl.constexpr(gl.DotOperandLayout(0, MMA_16.value, 2))
LOAD_PAIRS = gl.constexpr(gl.BlockedLayout([1, 1, 4], [1, 8, 4], [1, 4, 1], [2, 1, 0]))
STORE_X = gl.constexpr(gl.BlockedLayout([1, 1, 8], [1, 8, 4], [1, 4, 1], [2, 1, 0]))
LOAD_8 = gl.constexpr(gl.BlockedLayout([8], [32], [4], [0]))
LOAD_64 = gl.constexpr(gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0]))
LOAD_32 = gl.constexpr(gl.BlockedLayout([1, 8], [8, 4], [4, 1], [1, 0]))
SHARED_64 = gl.constexpr(gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2))
SHARED_32 = gl.constexpr(gl.NVMMASharedLayout(swizzle_byte_width=64, element_bitwidth=16, rank=2))
SHARED_16 = gl.constexpr(gl.NVMMASharedLayout(swizzle_byte_width=32, element_bitwidth=16, rank=2))
SHARED_FLAT = gl.constexpr(gl.SwizzledSharedLayout(1, 1, 1, [0]))


@gluon.jit
def as_placed(x, layout: gl.constexpr):
    """In a layout that holds every value in the thread and the register in which it is."""
    return gl.convert_layout(x, layout, assert_trivial=True)


@gluon.jit
def to_columns(x):
    """(L, C) float32, of pairs of bfloat16, which a loop would carry apart."""
    x = gl.join((x << 16).to(gl.float32, bitcast=True), (x & -65536).to(gl.float32, bitcast=True))
    x = gl.reshape(x, [2, 2, 4, 8, 4, 2, 2, 2])  # q, r, w, i, j, f, e, d
    return as_placed(gl.reshape(gl.permute(x, [2, 1, 3, 0, 5, 6, 4, 7]), [64, 64]), MMA_64)


@gluon.jit
def to_memory(x):
    x = gl.reshape(x, [4, 2, 8, 2, 2, 2, 4, 2])  # w, r, i, q, f, e, j, d
    return as_placed(gl.reshape(gl.permute(x, [3, 1, 0, 2, 6, 4, 5, 7]), [2, 64, 32]), STORE_X)


@gluon.jit
def kept_factors(shared):
    x = gl.reshape(shared.load(LOAD_8), [4, 4, 8, 4, 2, 2, 2])  # q, w, i, j, e, r, d
    return as_placed(gl.reshape(gl.permute(x, [1, 5, 2, 0, 4, 3, 6]), [64, 64]), MMA_64)


@gluon.jit
def normalized(x, one_C):
    mean_L = gl.sum(x, 1) * (1.0 / DIM)
    variance_L = gl.sum(x * x, 1) * (1.0 / DIM) - mean_L * mean_L
    factor_L = gl.rsqrt(gl.maximum(variance_L, 0.0) + EPS)
    y = x * factor_L[:, None] - (mean_L * factor_L)[:, None]
    y = gl.where(one_C[None, :], 1.0, y)
    # As PTX, or LLVM would choose behind the conversion, value by value.
    return gl.inline_asm_elementwise("cvt.rn.bf16x2.f32 $0, $2, $1;", "=r,f,f", [y], dtype=gl.bfloat16, is_pure=True, pack=2)


@gluon.jit
def in_two(x):
    """(L, 2 D) to its left and its right half."""
    return gl.split(gl.permute(gl.reshape(x, [64, 2, 16]), [0, 2, 1]))


@gluon.jit
def over_sums(out):
    """(L, D) over what its thread finds in an odd column of the right half."""
    left, right = gl.split(gl.permute(gl.reshape(out, [64, 2, 4, 2]), [0, 2, 1, 3]))
    _, total = gl.split(right)
    factor = gl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [total], dtype=gl.float32, is_pure=True, pack=1)
    x = gl.join(left * factor[:, :, None], right * factor[:, :, None])
    return as_placed(gl.reshape(gl.permute(x, [0, 2, 1, 3]), [64, 16]), MMA_16).to(gl.bfloat16)


@gluon.jit
def one_head(q, k_shared, v_shared, factors_shared):
    zero = gl.zeros([64, 64], gl.float32, layout=MMA_64)
    scores = warpgroup_mma(as_placed(q, A_64), k_shared.permute([1, 0]), zero, use_acc=False)
    weights = gl.inline_asm_elementwise(
        TIMES, "=r,f,f,r", [gl.exp2(scores), kept_factors(factors_shared)], dtype=gl.bfloat16, is_pure=True, pack=2
    )
    zero = gl.zeros([64, 16], gl.float32, layout=MMA_16)
    return over_sums(warpgroup_mma(as_placed(weights, A_16), v_shared, zero, use_acc=False))


@gluon.jit
def add_heads(y, x, pair, qkv_shared, proj_shared, factors_shared, k0_shared, k1_shared, v0_shared, v1_shared):
    """To y what two heads give, of x, which is normalized."""
    zero = gl.zeros([64, 32], gl.float32, layout=MMA_32)
    # In three products, or their sums do not fit into the registers beside the rest.
    q = warpgroup_mma(x, qkv_shared.index(pair * 3), zero, use_acc=False, is_async=True)
    k = warpgroup_mma(x, qkv_shared.index(pair * 3 + 1), zero, use_acc=False, is_async=True)
    v = warpgroup_mma(x, qkv_shared.index(pair * 3 + 2), zero, use_acc=False, is_async=True)
    q, k, v = warpgroup_mma_wait(0, deps=[q, k, v])
    k0, k1 = in_two(k.to(gl.bfloat16))
    v0, v1 = in_two(v.to(gl.bfloat16))
    k0_shared.store(k0)
    k1_shared.store(k1)
    v0_shared.store(v0)
    v1_shared.store(v1)
    fence_async_shared()
    barrier()  # every warp's fence comes before any warp's product
    q0, q1 = in_two(q.to(gl.bfloat16))
    out0 = one_head(q0, k0_shared, v0_shared, factors_shared.index(pair * 2))
    out1 = one_head(q1, k1_shared, v1_shared, factors_shared.index(pair * 2 + 1))
    out = gl.reshape(gl.permute(gl.join(out0, out1), [0, 2, 1]), [64, 32])
    return warpgroup_mma(as_placed(out, A_64), proj_shared.index(pair), y)


@gluon.jit
def add_hidden(y, z, fc1_shared, fc2_shared):
    """To y what a half of the hidden channels gives, of z, which is normalized."""
    hidden = warpgroup_mma(z, fc1_shared, gl.zeros([64, 64], gl.float32, layout=MMA_64), use_acc=False)
    hidden = gl.inline_asm_elementwise(GELU, "=r,f,f", [hidden], dtype=gl.float16, is_pure=True, pack=2)
    return warpgroup_mma(as_placed(hidden, A_64), fc2_shared, y)


@gluon.jit
def place(window, magic, more):
    """Of its first token. ``magic`` is 2^32 over the windows of a row, rounded up; ``more`` is how much further off, in tokens,
    the next row begins than 8 times as many.
    """
    row = gl.inline_asm_elementwise("mul.hi.u32 $0, $1, $2;", "=r,r,r", [window, magic], dtype=gl.int32, is_pure=True, pack=1)
    return window * 8 + row * more


@gluon.jit
def places(width, layout: gl.constexpr, NUM: gl.constexpr):
    """(2, L, NUM): where the halves of a window's tokens lie from its first on, in values of which a token has 2 NUM."""
    half = gl.arange(0, 2, layout=gl.SliceLayout(1, gl.SliceLayout(2, layout)))
    token = gl.arange(0, 64, layout=gl.SliceLayout(0, gl.SliceLayout(2, layout)))
    value = gl.arange(0, NUM, layout=gl.SliceLayout(0, gl.SliceLayout(1, layout)))
    first = (token // 8 * width + token % 8) * (2 * NUM)
    return half[:, None, None] * NUM + first[None, :, None] + value[None, None, :]


@gluon.jit
def windows(group: gl.constexpr, walk, kept, own):
    """What one group of warps does."""
    x_TC, out_TC, width, magic, more, num_windows = walk
    qkv_shared, proj_shared, fc1_shared, fc2_shared, factors_shared = kept
    k0_shared, k1_shared, v0_shared, v1_shared = own
    column = gl.arange(0, 64, layout=gl.SliceLayout(0, MMA_64))
    channel = column // 32 * 32 + column % 8 // 2 * 8 + column // 16 % 2 * 4 + column // 8 % 2 * 2 + column % 2
    x_pairs = x_TC.to(gl.pointer_type(gl.int32), bitcast=True)
    loads, stores = places(width, LOAD_PAIRS, 16), places(width, STORE_X, 32)
    step, last = gl.num_programs(0) * 4, num_windows - 1
    first = gl.program_id(0) * 4 + group
    raw = gl.load(x_pairs + (place(gl.minimum(first, last), magic, more) * 32 + loads))
    for window in range(first, num_windows, step):
        y = to_columns(raw)
        x = as_placed(normalized(y, channel >= DIM), A_32)
        for pair in range(0, HEADS // 2):
            y = add_heads(y, x, pair, qkv_shared, proj_shared, factors_shared, k0_shared, k1_shared, v0_shared, v1_shared)
        raw = gl.load(x_pairs + (place(gl.minimum(window + step, last), magic, more) * 32 + loads))
        z = as_placed(normalized(y, channel >= DIM), A_64)
        for half in range(0, 2):
            y = add_hidden(y, z, fc1_shared.index(half), fc2_shared.index(half))
        gl.store(out_TC + (place(window, magic, more) * 64 + stores), to_memory(y.to(gl.bfloat16)))


@gluon.jit
def keys_and_values():
    """A group's own: of one allocation for all, the compiler waits for each before it goes on with another."""
    k0_shared = gl.allocate_shared_memory(gl.bfloat16, [64, 16], SHARED_16)
    k1_shared = gl.allocate_shared_memory(gl.bfloat16, [64, 16], SHARED_16)
    v0_shared = gl.allocate_shared_memory(gl.bfloat16, [64, 16], SHARED_16)
    v1_shared = gl.allocate_shared_memory(gl.bfloat16, [64, 16], SHARED_16)
    return k0_shared, k1_shared, v0_shared, v1_shared


@gluon.jit(do_not_specialize=["width", "start", "magic", "more", "num_windows"])
def persistent_kernel(x_TC, out_TC, qkv_3CE, factors_KL, proj_EC, fc1_CH, fc2_HC, width, start, magic, more, num_windows):
    """``num_windows`` of 8 by 8 from token ``start`` on, none of which wraps around; in place too.

    ``magic`` and ``more`` are as in ``place``. ``factors_KL`` holds (6, L * L) values, in the order in which threads load them.
    """
    x_TC += start * 64
    out_TC += start * 64
    factors_shared = gl.allocate_shared_memory(gl.bfloat16, [HEADS, 4096], SHARED_FLAT)
    place_L = gl.arange(0, 4096, layout=LOAD_8)
    for head in gl.static_range(HEADS):
        copy(factors_shared.index(head), factors_KL + head * 4096 + place_L)
    row = gl.arange(0, 64, layout=gl.SliceLayout(1, LOAD_64))[:, None]
    column = gl.arange(0, 64, layout=gl.SliceLayout(0, LOAD_64))[None, :]
    fc1_shared = gl.allocate_shared_memory(gl.bfloat16, [2, 64, 64], SHARED_64)
    fc2_shared = gl.allocate_shared_memory(gl.float16, [2, 64, 64], SHARED_64)
    for half in gl.static_range(2):
        copy(fc1_shared.index(half), fc1_CH + row * 128 + half * 64 + column)
        copy(fc2_shared.index(half), fc2_HC + (half * 64 + row) * 64 + column)
    row = gl.arange(0, 32, layout=gl.SliceLayout(1, LOAD_64))[:, None]
    proj_shared = gl.allocate_shared_memory(gl.bfloat16, [3, 32, 64], SHARED_64)
    for pair in gl.static_range(3):
        copy(proj_shared.index(pair), proj_EC + (pair * 32 + row) * 64 + column)
    row = gl.arange(0, 64, layout=gl.SliceLayout(1, LOAD_32))[:, None]
    column = gl.arange(0, 32, layout=gl.SliceLayout(0, LOAD_32))[None, :]
    qkv_shared = gl.allocate_shared_memory(gl.bfloat16, [9, 64, 32], SHARED_32)
    for pair in gl.static_range(3):
        for which in gl.static_range(3):
            copy(qkv_shared.index(pair * 3 + which), qkv_3CE + which * 64 * 96 + row * 96 + pair * 32 + column)
    commit_group()
    a, b, c, d = keys_and_values(), keys_and_values(), keys_and_values(), keys_and_values()
    wait_group(0)
    fence_async_shared()
    barrier()
    walk = x_TC, out_TC, width, magic, more, num_windows
    kept = qkv_shared, proj_shared, fc1_shared, fc2_shared, factors_shared
    gl.warp_specialize(
        [
            (windows, (0, walk, kept, a)), (windows, (1, walk, kept, b)),
            (windows, (2, walk, kept, c)), (windows, (3, walk, kept, d)),
        ],
        [4, 4, 4], [REGISTERS, REGISTERS, REGISTERS],
    )  # fmt: skip
