"""Compiles the Triton kernels for a Hopper GPU, which need not be there, and looks at what comes out: of launches M to N."""

import re
import subprocess
import sys
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from triton.experimental.gluon._runtime import GluonASTSource

from swinir.gpu.blocks import JOINED, pixels_of
from swinir.gpu.direct import direct_kernel
from swinir.gpu.ends import again_kernel, first_kernel, join_kernel, last_kernel
from swinir.gpu.kernels import attention_kernel, mlp_kernel
from swinir.gpu.ordered import DIRECT_LAUNCHES
from swinir.gpu.packing import LAUNCHES
from swinir.gpu.persistent import persistent_kernel

tools = Path(triton.__file__).parent / "backends/nvidia/bin"
types = dict.fromkeys(["x_TC", "out_TC", "qkv_K3CD", "qkv_3CE", "proj_KDC", "proj_EC", "fc1_CH"], "*bf16")
types |= {"bias_4KLL": "*fp16", "bias": "*fp16", "fc2_HC": "*fp16"}
types |= dict.fromkeys(["height", "width", "shift", "num_windows", "num_tokens"], "i32")
shared = {"HEADS": 6, "WINDOW": 8, "EPS": 1e-5, "L_PAD": 64, "CHUNK": 64, "PRECISION": "tf32"}
cases = [(attention_kernel, False), (attention_kernel, True), (mlp_kernel, False)]
narrow = {"DIM": 60, "C_PAD": 64, "C_MORE": 0, "D_PAD": 16, "H_PAD": 128}
wide = {"DIM": 180, "C_PAD": 128, "C_MORE": 64, "D_PAD": 32, "H_PAD": 384}


def said(tool, *arguments):
    return subprocess.run([tools / tool, *arguments], capture_output=True, text=True, check=True).stdout


def unwritten(sass):
    # Uniform registers that are read, in the order of the text, before anything writes them: ptxas 12.8 makes such code.
    written, found = set(), set()
    instruction = r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([\w.]+)\s*(?:U?P[T\d], )?([^,;]*)(.*?);"
    for op, first, rest in re.findall(instruction, sass, re.M):
        result = re.fullmatch(r"UR(\d+)\s*", first)
        for descriptor, number in re.findall(r"(gdesc\[)?\bUR(\d+)", rest if result else first + rest):
            # Behind the descriptor of a first factor, which may not be there, lies that of the second.
            found |= {int(number) + i for i in ((2, 3) if descriptor else (0,))} - written
        if result:
            size = 4 if ".128" in op else 2 if ".64" in op or ".WIDE" in op else 1
            written |= {int(result[1]) + i for i in range(size)}
    return found


def made(kernel, values, types, num_warps, num_stages=1, maxnreg=None, source=ASTSource):
    names = kernel.arg_names
    signature = {name: "constexpr" if name in values else types.get(name, "*fp32") for name in names}
    constants = {(names.index(name),): values[name] for name in names if name in values}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name].startswith("*")}
    options = {"num_warps": num_warps, "num_stages": num_stages, "maxnreg": maxnreg}
    asked = source(kernel, signature, constants, aligned)  # as tensors of PyTorch's are
    made = compile(asked, target=GPUTarget("cuda", 90, 32), options=options)
    assert made.metadata.shared <= 232448, made.metadata.shared  # bytes that a program may have there
    Path("made.cubin").write_bytes(made.asm["cubin"])
    usage = said("cuobjdump", "-res-usage", "made.cubin")
    assert "STACK:0 " in usage, (kernel, values, usage)  # no registers are spilled
    assert not unwritten(said("nvdisasm", "-c", "made.cubin")), (kernel, values)
    return made.asm["ptx"]


first, last = map(int, sys.argv[1:])
for launch in DIRECT_LAUNCHES[first:last]:
    for heads in (4, 6):
        values = {"DIM": 60, "HEADS": heads, "EPS": 1e-5, "D": 16, "H": 128, "CHUNK": 64, "PRECISION": "tf32"}
        values |= {"EDGES": launch.persistent}
        assert "wgmma" in made(direct_kernel, values, types, launch.num_warps, launch.num_stages, launch.max_registers)
    if launch.persistent:
        types |= {"factors_KL": "*bf16"} | dict.fromkeys(["start", "magic", "more"], "i32")
        assert "wgmma" in made(persistent_kernel, {}, types, 4, source=GluonASTSource)

for kernel, whole in cases:
    for launch in LAUNCHES[first:last]:
        for model in (narrow, wide) if not whole else (narrow,):  # the wide one spills then
            values = shared | model | {"WINDOWS": launch.windows, "BLOCK": 64 * launch.windows, "WHOLE": whole}
            assert "wgmma" in made(kernel, values, types, launch.num_warps, launch.num_stages)  # the matrix units of Hopper

for dim, c, more in (60, 64, 0), (180, 128, 64), (240, 256, 0):
    ends = {"BLOCK": pixels_of(32 + c + more), "RANGE": 1.0, "PRECISION": "tf32x3", "S": 3, "P": 32}
    body = {"DIM": dim, "EPS": 1e-5, "C_PAD": c, "C_MORE": more}
    chunk = {"ALL": c + more, "CHUNK": 64}
    types = {"height": "i32", "width": "i32", "num_tokens": "i32"}
    made_of = {
        "first": made(first_kernel, ends | body, types | {"out_TC": "*bf16"}, num_warps=4),
        "again": made(again_kernel, ends | chunk, types | {"y_TC": "*bf16", "out_TC": "*fp16"}, num_warps=4),
    }
    for norm in False, True:
        values = body | {"NORM": norm, "BLOCK": JOINED // c}
        made_of[f"join {norm}"] = made(join_kernel, values, types | {"x_TC": "*bf16", "y_TC": "*bf16"}, num_warps=4)
    for name, ptx in made_of.items():
        assert ptx.count("st.global") == ptx.count("st.global.v4.b32"), name  # 16 bytes at once
        assert ".b16" not in "".join(line for line in ptx.splitlines() if "ld.global" in line), name
    types |= {"x_TC": "*fp16", "weight_9CO": "*fp16"}
    for scale, num, out in (1, 3, 16), (2, 12, 16), (3, 27, 32), (4, 48, 64):
        values = chunk | {"RANGE": 1.0, "PRECISION": "tf32", "SCALE": scale, "NUM": num, "OUT": out}
        values["BLOCK"] = pixels_of(c + more + out)
        assert "wgmma" in made(last_kernel, values, types, num_warps=4)
