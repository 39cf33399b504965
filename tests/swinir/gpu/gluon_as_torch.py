"""Runs the text of a Gluon kernel with PyTorch in the place of Gluon, which nothing interprets: what it computes, not how."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch

from swinir.gpu.gelu import ASM, P0, P1, P2, P3, P4


class Pointer:
    def __init__(self, tensor, place=0):
        self.flat, self.place = tensor.view(-1), place

    def __add__(self, more):
        return Pointer(self.flat, self.place + more)

    def to(self, dtype, bitcast):
        assert bitcast
        factor = self.flat.element_size() / dtype.itemsize
        return Pointer(self.flat.view(dtype), int(self.place * factor))

    def load(self):
        return self.flat[self.place.long()]

    def store(self, values):
        self.flat[self.place.long()] = values


class Shared:
    """Shared memory: holds what no one wrote as no numbers."""

    def __init__(self, tensor):
        self.tensor = tensor

    def index(self, index):
        return Shared(self.tensor[index])

    def permute(self, order):
        return Shared(self.tensor.permute(order))

    def load(self, _layout):
        return self.tensor.clone()

    def store(self, values):
        assert (values.shape, values.dtype) == (self.tensor.shape, self.tensor.dtype)
        self.tensor.copy_(values)


def product(a, b, sums, *, use_acc=True, is_async=False):
    assert a.dtype == b.tensor.dtype
    made = a.float() @ b.tensor.float()
    assert made.shape == sums.shape
    return made + sums if use_acc else made


def gelu(x):
    """As the PTX of ``gelu.py`` steps, each rounded to float16."""
    x = x.half()
    u = x * x
    p = torch.full_like(u, P4)
    for factor in (P3, P2, P1, P0):
        p = (p.float() * u.float() + torch.tensor(factor).half().float()).half()
    return (p.float() * x.float() + 0.5).clamp(0, 1).half() * x


def inline(asm, _constraints, values, *, dtype, is_pure, pack):
    if asm.startswith("mul.hi.u32"):
        return values[0] * values[1] >> 32
    if asm.startswith("rcp.approx.ftz"):
        return torch.where(values[0] < 2.0**-126, torch.inf, 1 / values[0])
    if asm.startswith("cvt.rn.bf16x2"):
        return values[0].bfloat16()
    if "mul.rn.bf16x2" in asm:
        return values[0].bfloat16() * values[1]
    assert asm == ASM.value
    return gelu(values[0])


def exp2(x):
    """Without numbers below those that float32 holds to all digits, as a GPU's."""
    made = torch.exp2(x)
    return torch.where(made < 2.0**-126, 0.0, made)


def layout(*_shape, **_more):
    return SimpleNamespace(value=None)


def language(num_programs):
    return SimpleNamespace(
        float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16, int32=torch.int32,
        constexpr=lambda value: value, pointer_type=lambda dtype: dtype, static_range=range, barrier=lambda: None,
        NVMMADistributedLayout=layout, DotOperandLayout=layout, BlockedLayout=layout, SliceLayout=layout,
        NVMMASharedLayout=layout, SwizzledSharedLayout=layout,
        allocate_shared_memory=lambda dtype, shape, _layout: Shared(torch.full(shape, torch.nan, dtype=dtype)),
        program_id=lambda _axis: 0, num_programs=lambda _axis: num_programs,
        arange=lambda start, stop, layout: torch.arange(start, stop), load=Pointer.load, store=Pointer.store,
        reshape=torch.reshape, permute=torch.permute, split=lambda x: x.unbind(-1), join=lambda a, b: torch.stack([a, b], -1),
        convert_layout=lambda x, _layout, assert_trivial=False: x, sum=torch.sum, rsqrt=torch.rsqrt, exp2=exp2,
        maximum=lambda x, least: x.clamp(min=least), minimum=min, where=torch.where,
        zeros=lambda shape, dtype, layout: torch.zeros(shape, dtype=dtype), inline_asm_elementwise=inline,
        warp_specialize=lambda parts, _warps, _registers: [run(*arguments) for run, arguments in parts],
    )  # fmt: skip


def as_torch(monkeypatch, path, num_programs):
    """The names of the module at ``path``, its functions for tensors, in programs that are asked for by ``gl.program_id``."""
    gl = language(num_programs)
    ampere = {
        "async_copy_global_to_shared": lambda shared, pointer: shared.store(pointer.load()),
        "commit_group": lambda: None,
        "wait_group": lambda _left: None,
    }
    hopper = {
        "fence_async_shared": lambda: None,
        "warpgroup_mma": product,
        "warpgroup_mma_wait": lambda _left, deps: deps,
    }
    modules = {
        "triton.experimental": {"gluon": SimpleNamespace(jit=jit)},
        "triton.experimental.gluon": {"language": gl},
        "triton.experimental.gluon.language.nvidia.ampere.async_copy": ampere,
        "triton.experimental.gluon.language.nvidia.hopper": hopper,
    }
    text = Path(path).read_text().replace(".to(gl.float32, bitcast=True)", ".view(gl.float32)")
    names = {"__name__": "as_torch"}
    with monkeypatch.context() as patch:
        for name, members in modules.items():
            module = ModuleType(name)
            vars(module).update(members)
            patch.setitem(sys.modules, name, module)
        exec(compile(text, str(path), "exec"), names)
    return SimpleNamespace(**names)


def jit(function=None, **_options):
    return function or jit


class Kernel:
    """Launched as a kernel is: ``kernel[grid](*arguments)``."""

    def __init__(self, module, function):
        self._module, self._function = module, function

    def __getitem__(self, grid):
        def run(*arguments, num_warps):
            assert num_warps == 4
            for program in range(grid[0]):
                self._module.gl.program_id = lambda _axis, program=program: program
                self._function(*(Pointer(each) if isinstance(each, torch.Tensor) else each for each in arguments))

        return run
