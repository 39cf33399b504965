"""A model made ready for use: device, precision, tiles and batches; pictures or tensors in, larger ones out."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from swinir.codes import Pictures, as_floats, shape_of, to_codes
from swinir.cpu.blocks import FusedSwinIR
from swinir.device import choose_device, choose_precision, choose_tile, is_out_of_memory, smallest_tile
from swinir.engines import ways
from swinir.ensemble import SelfEnsemble
from swinir.gpu.blocks import TritonSwinIR
from swinir.gpu.graphs import Recorded
from swinir.gpu.transfer import placed
from swinir.model import SwinIR
from swinir.reuse import TileMemory
from swinir.spec import ModelSpec, build_spec, load_spec
from swinir.tiling import OVERLAP, blended_bands, in_one, in_parts, overlap_for

BATCH_PIXELS = 1 << 20
# On the CPU one forward pass at a time in a process. It has all cores anyway, and oneDNN's shared AMX kernels
# (uxlfoundation/oneDNN#5393, pytorch/pytorch#187912) and MKL's first calls race when two threads compute: crashes and hangs.
_CPU_LOCK = threading.Lock()


class Upscaler:
    """One model on one device. Every image is cut the same way whatever it is batched with, so its output depends on it alone.

    ``scale``, ``name`` (with a "+" for a self-ensemble), ``weights_sha256`` ("" without weights), ``in_chans`` (0 takes any
    number), ``device``, ``precision`` ("fp32" or "bf16"), ``engine`` ("pytorch", "compiled blocks" or "triton"), ``tile``
    (input pixels; smaller once memory ran out), ``nonfinite_tiles`` (how many had to be computed again in fp32). ``warn`` is
    called with one line where the work goes on but someone should know. May be called from several threads.
    """

    scale: int
    name: str
    weights_sha256: str
    in_chans: int
    device: torch.device
    precision: str
    engine: str
    tile: int
    nonfinite_tiles: int
    warn: Callable[[str], None]
    _exact: nn.Module  # in fp32
    _network: nn.Module  # as computed with: the same, or in bf16

    def __init__(
        self,
        model: str = "lightweight-x2",
        *,
        weights: str | Path | None = None,
        strength: float | None = None,
        weights_fidelity: str | Path | None = None,
        ensemble: int = 1,
        device: str = "auto",
        precision: str = "auto",
        tile: int | None = None,
    ) -> None:
        """Load a preset, or "auto" with a weights file; see ``load_spec``. Raises ValueError (WeightsError for the weights)."""
        spec = load_spec(
            model, weights, precision, tile, strength=strength, weights_fidelity=weights_fidelity, ensemble=ensemble
        )
        self._open(spec, device, batch=1)

    @classmethod
    def from_spec(cls, spec: ModelSpec, device: str = "auto", *, batch: int = 1) -> Upscaler:
        """Build what a driver shipped. ``batch`` tiles go through the network at once, always exactly that many, or as many as
        have BATCH_PIXELS.
        """
        upscaler = cls.__new__(cls)
        upscaler._open(spec, device, batch)
        return upscaler

    @classmethod
    def from_network(
        cls,
        network: nn.Module,
        *,
        scale: int,
        in_chans: int = 3,
        window: int = 8,
        name: str = "custom",
        weights_sha256: str = "",
        device: str = "auto",
        precision: str = "auto",
        tile: int | None = None,
        batch: int = 1,
    ) -> Upscaler:
        """Wrap any module that maps (N, in_chans, H, W) float32, H and W multiples of ``window``, to ``scale`` times larger."""
        upscaler = cls.__new__(cls)
        upscaler._adopt(network, scale, in_chans, window, OVERLAP, device, precision, tile, batch)
        upscaler.name, upscaler.weights_sha256 = name, weights_sha256
        return upscaler

    def _open(self, spec: ModelSpec, device: str, batch: int) -> None:
        network = build_spec(spec)
        chans, precision = (spec.config.in_chans, spec.precision) if spec.config else (0, "fp32")
        self._adopt(network, spec.scale, chans, spec.window, spec.overlap, device, precision, spec.tile, batch)
        self.name, self.weights_sha256 = spec.name, spec.weights_sha256
        if spec.ensemble != 1:
            self.name += "+"
            alone = self._exact
            self._exact = SelfEnsemble(alone)
            self._network = self._exact if self._network is alone else SelfEnsemble(self._network)

    def _adopt(
        self,
        network: nn.Module,
        scale: int,
        in_chans: int,
        window: int,
        overlap: int,
        device: str,
        precision: str,
        tile: int | None,
        batch: int,
    ) -> None:
        self.device = choose_device(device)
        width = network.config.embed_dim if isinstance(network, SwinIR) else 0
        self.precision = choose_precision(precision, self.device, width) if width else "fp32"
        self.scale, self.in_chans, self._window, self._overlap = scale, in_chans, window, overlap
        self._batch = batch
        self._smallest_tile = smallest_tile(window)
        self.tile = choose_tile(tile, self.device, window, overlap)
        self.nonfinite_tiles = 0
        self.warn = logging.getLogger("swinir").warning
        self._lock = threading.Lock()
        self._exact = self._network = network.to(self.device).eval()
        if isinstance(network, SwinIR):
            with _CPU_LOCK, torch.autocast(self.device.type, enabled=False):
                self._exact, self._network = ways(network, self.device, self.precision)
        engines = {FusedSwinIR: "compiled blocks", Recorded: "triton", TritonSwinIR: "triton"}
        self.engine = engines.get(type(self._network), "pytorch")

    def __call__(self, lr: Pictures) -> Pictures:
        """(H, W, 3), (H, W) or (N, H, W, 3), uint8 or uint16, RGB or grey; the same dtype and layout, ``scale`` times larger.

        Rounded half to even and clamped. Each image's output depends on that image alone. Raises ValueError for another
        dtype or shape, TypeError for what is no array.
        """
        if not isinstance(lr, np.ndarray):
            raise TypeError(f"pictures are NumPy arrays, got {type(lr).__name__}; use np.asarray, or upscale() for tensors")
        if lr.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"pictures are uint8 or uint16, got {lr.dtype}")
        if lr.ndim != 2 and (lr.ndim not in (3, 4) or lr.shape[-1] != 3):
            raise ValueError(f"pictures are (H, W, 3), (H, W) or (N, H, W, 3), got {lr.shape}")
        if not lr.flags.behaved or min(lr.strides) < 0:  # which PyTorch does not take
            lr = lr.copy()
        images = lr[None, None] if lr.ndim == 2 else np.moveaxis(lr if lr.ndim == 4 else lr[None], -1, 1)
        num, chans, height, width = images.shape
        out: Pictures = np.empty((num, height * self.scale, width * self.scale, chans), lr.dtype)
        for start in range(0, num, self._batch):
            part = slice(start, start + self._batch)

            def store(top: int, band: Tensor, part: slice = part) -> None:
                out[part, top : top + band.shape[2]] = to_codes(band, lr.dtype)

            codes = torch.from_numpy(images[part])
            self.stream(placed(codes, len(codes) * height * width * self.scale**2, self.device), store)
        pictures: Any = out[..., 0] if lr.ndim == 2 else out
        result: Pictures = pictures if lr.ndim == 4 else pictures[0]
        return result

    def upscale(self, x: Tensor, memory: TileMemory | None = None) -> Tensor:
        """(N, C, H, W) float32, nominally [0, 1] but clamped neither here nor on the way out -> (N, C, H * scale, W * scale).

        The result is float32 on the device of ``x``, wherever the model is: tiles go to the model and come back one by one.
        A grey model treats the channels of RGB one by one; an RGB model is given grey as three equal channels, and the mean
        of what it makes of them is returned. With a ``memory``, tiles that are as in the call before are not computed again.
        Raises ValueError for another shape or an empty image, MemoryError where even the smallest tile does not fit,
        FloatingPointError where the output is not finite even in fp32.
        """
        num, chans, height, width = shape_of(x)
        shape = (num, chans, height * self.scale, width * self.scale)
        # What a SwinIR gives nothing else holds; another module may give what it got, or keep what it gives.
        whole = (
            memory is None
            and isinstance(self._exact, SwinIR)
            and max(height, width) <= self.tile
            and not (height % self._window or width % self._window)
        )
        # Taken first: where there is no room for it, smaller tiles are no help.
        out = None if whole else x.new_empty(shape, dtype=torch.float32)

        def store(top: int, band: Tensor) -> None:
            nonlocal out
            if whole and band.shape == shape:
                out = band.detach()  # or gradients could not pass through what changes it in place
                return
            out = x.new_empty(shape, dtype=torch.float32) if out is None else out
            out[:, :, top : top + band.shape[2]] = band

        self.stream(x, store, memory)
        assert out is not None
        alone = out.is_contiguous() and out.untyped_storage().nbytes() == out.nbytes
        return out if alone else out.clone(memory_format=torch.contiguous_format)

    @torch.no_grad()
    def stream(self, x: Tensor, store: Callable[[int, Tensor], None], memory: TileMemory | None = None) -> None:
        """``upscale`` for what is too large for one tensor: the same values, handed to ``store`` in bands from the top.

        ``x`` may hold uint8 or uint16 codes too, which become floats tile by tile. ``store`` takes the first row of a band and
        the band (N, C, rows, W * scale), which it must not change, and gets all from the top again where memory ran out on the
        way.
        """
        num, chans, height, width = shape_of(x)
        if self.in_chans not in (0, chans) and not {chans, self.in_chans} <= {1, 3}:
            raise ValueError(f"{self.name} works on {self.in_chans} channels, got {chans}")
        x = x.float() if x.is_floating_point() else x
        separate = chans == 3 and self.in_chans == 1
        if separate:
            x = x.reshape(num * chans, 1, height, width)
        while True:
            tile = self.tile
            try:
                overlap = overlap_for(tile, self._window, self._overlap)
                run = memory.frame(self._run) if memory else self._run
                for top, band in blended_bands(x, tile, overlap, self._window, self.scale, run):
                    store(top, band.reshape(num, chans, *band.shape[2:]) if separate else band)
                return
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            # Outside the handler: the error's traceback would keep the tensors that filled the memory.
            self._halve_tile(min(tile, max(height, width)))

    def _halve_tile(self, failed: int) -> None:
        """Use tiles half the length that ran out of memory. Raises MemoryError where that was the smallest."""
        for module in self._network.modules():
            if isinstance(module, Recorded):
                module.forget()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        with self._lock:
            if failed <= self._smallest_tile:
                raise MemoryError(
                    f"{self.name} on {self.device} runs out of memory even with tiles of {failed} pixels; "
                    "free memory on the device or choose another with --device"
                )
            self.tile = min(self.tile, max(self._smallest_tile, failed // 2 // self._window * self._window))
            self.warn(f"{self.name} on {self.device} ran out of memory with tiles of {failed} pixels; going on at {self.tile}")

    def _run(self, tiles: list[Tensor]) -> list[Tensor]:
        """The outputs of tiles of one shape, in batches of one size whatever there is to do."""
        stack = as_floats(in_one(tiles))
        batches = in_parts(stack, self._together(stack))
        outputs = [self._forward(self._network, batch) for batch in batches]
        # One question to the device for the whole row; a plain baseline may pass on what is not finite. Where a value is not, a
        # sum is not either, which reads the output once instead of five times.
        if self.in_chans:
            for index, total in enumerate(in_one([output.sum().view(1) for output in outputs]).tolist()):
                if not math.isfinite(total):
                    outputs[index] = self._recompute(batches[index], outputs[index])
        return in_parts(in_one(outputs), len(tiles[0]))

    def _together(self, tiles: Tensor) -> int:
        """How many tiles of that shape go through the network at once: large ones keep a device busy by themselves."""
        return max(1, min(self._batch, BATCH_PIXELS // (tiles.shape[-2] * tiles.shape[-1])))

    def _forward(self, network: nn.Module, batch: Tensor) -> Tensor:
        """One batch of tiles through a network, on the device of ``batch`` again."""
        num, chans, kind = *batch.shape[:2], self.device.type
        x = in_one([batch, *(batch[-1:] for _ in range(num, self._together(batch)))]).to(self.device)
        if chans == 1 and self.in_chans == 3:
            x = x.expand(-1, 3, -1, -1)
        if kind == "cuda":
            # For the process, and for a recording where it is made: cuDNN takes TF32, 10 bits of mantissa, unless told not to.
            torch.backends.cudnn.allow_tf32 = network is not self._exact
        lock = _CPU_LOCK if kind == "cpu" else nullcontext()
        # A caller's autocast would round what is to be exact; to turn it off takes its time even where it is off.
        plain = torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
        with lock, plain:
            y: Tensor = network(x)
        if chans == 1 and self.in_chans == 3:
            y = y.mean(dim=1, keepdim=True)
        return y[:num].to(batch.device, torch.float32)

    def _recompute(self, batch: Tensor, damaged: Tensor) -> Tensor:
        output = self._forward(self._exact, batch) if self._exact is not self._network else damaged
        if not bool(output.isfinite().all()):
            raise FloatingPointError(
                f"{self.name} gives values that are not finite, even in fp32; the weights or the input are damaged"
            )
        with self._lock:
            self.nonfinite_tiles += int((~damaged.isfinite().flatten(1).all(dim=1)).sum())
        return output
