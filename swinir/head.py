"""The head of "pixelshuffle" models as the one linear map it is: an eighth of the multiplications, and nothing large in memory.

Between the last activation and the pixels lie only convolutions and pixel shuffles (SwinIR paper, section 3.1, as published
for classical super-resolution). What a pixel adds to the output reaches two pixels far, so all of it is one convolution of
5 x 5 into scale^2 channels for each colour, and a shuffle. Where the image ends, the convolutions on the way see zeros: the
first and the last row and column have kernels of their own.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swinir.model import SwinIR

REACH = 2  # pixels; of one shuffle or of many: half of it, rounded up, and one for the next convolution
SIZE = 2 * REACH + 1
# The first, a middle and the last row or column: where it is in an image of SIZE, what it is in any and what it sees there.
PLACES = (0, REACH, SIZE - 1)
OWN = (slice(0, 1), slice(None), slice(-1, None))
SEEN = (slice(0, SIZE), slice(None), slice(-SIZE, None))
MIDDLE, BORDER = (1, 1), ((0, 1), (1, 0), (1, 2), (2, 1), (0, 0), (0, 2), (2, 0), (2, 2))  # corners after edges


class LinearHead(nn.Module):
    """What ``upsample`` makes of (B, C, H, W), H and W at least 2: (B, colours, H * scale, W * scale), to rounding.

    ``upsample`` must be linear and reach no further than REACH; ``weight`` is its first convolution's, for C and dtype.
    """

    kernels: Tensor  # (3, 3, colours * scale^2, C, SIZE, SIZE), by row and column: first, middle, last
    biases: Tensor  # (3, 3, colours * scale^2)

    def __init__(self, upsample: Callable[[Tensor], Tensor], scale: int, weight: Tensor) -> None:
        super().__init__()
        self.scale = scale
        found = zip(*kernels_of(upsample, scale, weight), strict=True)
        for name, each in zip(("kernels", "biases"), found, strict=True):
            self.register_buffer(name, torch.stack(each).view(3, 3, *each[0].shape), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (REACH,) * 4)
        y = F.conv2d(padded, self.kernels[MIDDLE], self.biases[MIDDLE])
        for row, column in BORDER:
            seen = padded[:, :, SEEN[row], SEEN[column]]
            y[:, :, OWN[row], OWN[column]] = F.conv2d(seen, self.kernels[row, column], self.biases[row, column])
        return F.pixel_shuffle(y, self.scale)


def kernels_of(upsample: Callable[[Tensor], Tensor], scale: int, weight: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """For each of PLACES by row and column the kernel (colours * scale^2, C, SIZE, SIZE) and the bias of the pixel there.

    They are the gradient of the output and, on an image of zeros, the output itself.
    """
    with torch.enable_grad():
        image = torch.zeros((1, weight.shape[1], SIZE, SIZE), dtype=weight.dtype, device=weight.device)
        biases = F.pixel_unshuffle(upsample(image), scale)[0].detach()
        images = image.repeat(len(biases), 1, 1, 1).requires_grad_()  # one for each output
        outputs = F.pixel_unshuffle(upsample(images), scale).diagonal()  # (SIZE, SIZE, colours * scale^2)
        for row, column in itertools.product(PLACES, repeat=2):
            (gradient,) = torch.autograd.grad(outputs[row, column].sum(), images, retain_graph=True)
            # From where the pixel lies to the kernel's middle.
            yield gradient.roll((REACH - row, REACH - column), dims=(2, 3)), biases[:, row, column]


@torch.inference_mode(False)
def with_linear_head(network: SwinIR) -> SwinIR:
    """The same network, parameters shared, with such a head where it is one: for inference, on images of 2 pixels and more."""
    if network.config.upsampler != "pixelshuffle":
        return network
    device = network.conv_last.weight.device
    # On the CPU: a GPU may be set to round what it multiplies.
    steps: list[Any] = list(copy.deepcopy(nn.Sequential(*network.upsample, network.conv_last)).cpu())
    scale, head = 1, steps.pop()
    for conv, shuffle in zip(steps[-2::-2], steps[::-2], strict=True):
        scale *= shuffle.upscale_factor
        head = LinearHead(nn.Sequential(conv, shuffle, head), scale, conv.weight)
    faster = copy.copy(network)
    faster._modules = network._modules | {"upsample": head.to(device), "conv_last": nn.Identity()}
    return faster
