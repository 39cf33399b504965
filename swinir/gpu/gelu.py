"""GELU for the Triton kernels: exact, or two values an instruction in float16."""

# ruff: noqa: ANN001, ANN201  (tensors are Triton's own)
from __future__ import annotations

import struct

import torch
import triton
import triton.language as tl

# Of u = x * x: Phi(x) is about 0.5 + x * (the polynomial), cut off at 0 and 1. Searched for with each step rounded to float16.
P4, P3, P2, P1, P0 = 1.0550e-05, -4.1342e-04, 6.6910e-03, -5.9784e-02, 3.9453e-01
C4, C3, C2, C1, C0 = tl.constexpr(P4), tl.constexpr(P3), tl.constexpr(P2), tl.constexpr(P1), tl.constexpr(P0)
PLAIN = tl.constexpr(triton.knobs.runtime.interpret or torch.version.hip is not None)  # where nothing runs PTX


def twice(value: float) -> str:
    """As PTX writes a pair of float16."""
    return "0x" + struct.pack(">e", value).hex() * 2


STEPS = "".join(f"mov.b32 c, {twice(value)}; fma.rn.f16x2 p, p, u, c;\n" for value in (P3, P2, P1, P0))
ASM = tl.constexpr(f"""{{
.reg .b32 x, u, p, c;
cvt.rn.f16x2.f32 x, $2, $1;
mul.rn.f16x2 u, x, x;
mov.b32 p, {twice(P4)};
{STEPS}mov.b32 c, {twice(0.5)};
fma.rn.sat.f16x2 p, p, x, c;
mul.rn.f16x2 $0, p, x;
}}""")


@triton.jit
def gelu(x, EXACT: tl.constexpr):
    """x * Phi(x) of float32: in float32 if EXACT, else in float16, to 3e-3, and on average to less than bfloat16 costs."""
    if EXACT:
        return 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))
    if PLAIN:
        u = x * x
        p = (((C4 * u + C3) * u + C2) * u + C1) * u + C0
        return (tl.minimum(tl.maximum(p * x + 0.5, 0.0), 1.0) * x).to(tl.float16)
    return tl.inline_asm_elementwise(ASM, "=r,f,f", [x], dtype=tl.float16, is_pure=True, pack=2)
