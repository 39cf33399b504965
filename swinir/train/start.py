"""Where training begins: at the picture repeated, or at the weights of another network, of another scale too."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from swinir.model import SwinIR

BODY = ("conv_first.", "patch_embed.", "layers.", "norm.", "conv_after_body.")  # the head is the rest


def start_as_pass_through(model: SwinIR) -> None:
    """Begin at the image repeated, not at noise: the first convolution carries the pixels, the head writes them out.

    The transformer body starts at nothing and learns the difference. The pass-through is for the direct pixel-shuffle head, and
    for restoration at the same size, which adds the input itself; other heads start as usual.

    The first LayerNorm divides every pixel's features by their spread. Were they the image alone, its contrast would be gone
    for the body; large constants and large filter responses beside it keep the spread even (150 steps from scratch: 35.13 dB
    on Set5 against 34.84 without).
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            nn.init.trunc_normal_(parameter, std=0.02)
        elif name.endswith(".bias") or name.startswith("conv_after_body"):
            nn.init.zeros_(parameter)
    if model.config.upsampler == "":
        nn.init.zeros_(model.conv_last.weight)
    if model.config.upsampler != "pixelshuffledirect":
        return
    chans = model.config.in_chans
    head = model.upsample[0]
    assert isinstance(head, nn.Conv2d)
    with torch.no_grad():
        head.weight.mul_(0.1)
        bias = model.conv_first.bias
        assert bias is not None
        bias[chans:].normal_(std=0.3)
        model.conv_first.weight[chans:].mul_(3)
        for c in range(chans):
            model.conv_first.weight[c].zero_()
            model.conv_first.weight[c, c, 1, 1] = 1
            for shuffled in range(model.config.upscale**2):
                head.weight[c * model.config.upscale**2 + shuffled, c, 1, 1] += 1


def start_at(model: SwinIR, weights: Mapping[str, Tensor]) -> None:
    """Take over what ``weights`` has of ``model``: all, or where the heads differ, as those of two scales do, the body.

    The model keeps the head that it has. A head of direct pixel shuffle whose scale is a multiple takes the filters of the
    smaller one, each for all the pixels that its own becomes.

    Raises ValueError where the bodies differ.
    """
    own = model.state_dict()
    taken = {name: value for name, value in weights.items() if name.startswith(BODY)}
    head = {name: value for name, value in weights.items() if name not in taken}
    kept = {name: value for name, value in own.items() if not name.startswith(BODY)}
    try:
        if {name: value.shape for name, value in head.items()} == {name: value.shape for name, value in kept.items()}:
            kept = head
        elif model.config.upsampler == "pixelshuffledirect" and head.keys() == kept.keys():
            kept = repeated(head, model) or kept
        model.load_state_dict(taken | kept)
    except RuntimeError as error:
        given, wanted = ({name: tuple(value.shape) for name, value in state.items()} for state in (taken | kept, own))
        name = min(name for name in given | wanted if given.get(name) != wanted.get(name))
        how = f"{name} is {given.get(name, 'nothing')} where {wanted.get(name, 'nothing')} belongs"
        raise ValueError(f"the weights to begin at are not of this architecture: {how}") from error


def repeated(head: Mapping[str, Tensor], model: SwinIR) -> dict[str, Tensor]:
    """A head of direct pixel shuffle for the larger scale of ``model``: its output with every pixel repeated; else nothing."""
    chans, scale = model.config.in_chans, model.config.upscale
    filters = len(head["upsample.0.bias"]) // chans
    smaller = next((s for s in range(1, scale) if s * s == filters), 0)
    if not smaller or scale % smaller:
        return {}
    times = scale // smaller
    large: dict[str, Tensor] = {}
    for name, value in head.items():
        by_place = value.view(chans, smaller, smaller, *value.shape[1:])
        large[name] = by_place.repeat_interleave(times, 1).repeat_interleave(times, 2).flatten(0, 2)
    return large
