"""See before a long run what it will give: the plan, and a picture of frames before and after."""

from __future__ import annotations

import io
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.config import VideoConfig
from pipeline.report import Listener
from pipeline.storage import open_input, split_url
from pipeline.video.job import Prepared, describe_plan, job_digest, load_model_spec, prepare
from pipeline.video.reader import read_range
from swinir.colour import planes_to_rgb
from swinir.resize import resize
from swinir.upscaler import Upscaler


def plan_only(source: str, destination: str, config: VideoConfig, listener: Listener) -> Prepared:
    """Everything up to the first frame; nothing is written."""
    model = load_model_spec(config)
    return prepare(source, destination, config, model, job_digest(source, config, model), None, listener)


def write_preview(job: Prepared, num_frames: int) -> dict[str, Any]:
    """A PNG beside the destination: ``num_frames`` frames of the video, bicubic on the left and the model on the right."""
    upscaler = Upscaler.from_spec(job.model, job.config.device)
    pairs = []
    decodable = np.flatnonzero(~job.timeline.repeated)
    for index in decodable[np.linspace(0, len(decodable) - 1, num_frames + 2).round().astype(int)[1:-1]]:
        frames = read_range(
            partial(open_input, job.source),
            job.source,
            job.info,
            job.timeline,
            job.plan.source_layout,
            int(index),
            int(index) + 1,
        )
        _, planes = next(frames)
        pairs.append(before_and_after(planes_to_rgb(planes, job.plan.source_layout, smooth_chroma=True), upscaler))
    store, name = split_url(job.destination)
    key = f"{PurePosixPath(name).stem}.preview.png"
    png = io.BytesIO()
    Image.fromarray(np.concatenate(pairs)).save(png, "PNG")
    store.write(key, png.getvalue())
    return describe_plan(job) | {"preview": store.url_of(key)}


def before_and_after(rgb: Tensor, upscaler: Upscaler) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(3, H, W) float RGB -> (H * scale, 2 * W * scale, 3) uint8: bicubic, then the model."""
    with torch.inference_mode():
        after = upscaler.upscale(rgb[None].to(upscaler.device))[0].cpu()
    before = resize(rgb, upscaler.scale)
    both = torch.cat([before, after], dim=2)
    return (both.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
