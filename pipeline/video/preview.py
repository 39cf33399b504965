"""See before a long run what it will give: the plan, and a picture of frames before and after."""

from __future__ import annotations

import io
import time
from datetime import timedelta
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from pipeline.config import VideoConfig
from pipeline.errors import ConfigError
from pipeline.preflight import load_model_spec, pick_device, refuse_device
from pipeline.report import Listener
from pipeline.storage import normal_url
from pipeline.video.destination import check_places, config_for, destination_of, format_of, refuse_foreign, work_of
from pipeline.video.job import refuse_damage
from pipeline.video.numbering import is_sequence
from pipeline.video.plan import EncodeSpec
from pipeline.video.prepare import Prepared, describe_plan, hold_streams, job_digest, prepare
from pipeline.video.reader import read_range
from pipeline.video.sequence import open_input
from pipeline.video.turn import turn_of, turned
from swinir.colour import planes_to_rgb
from swinir.resize import resample, resize
from swinir.upscaler import Upscaler

SOFTWARE = "swinir video --preview"
SIGNED = PngInfo()
SIGNED.add_text("Software", SOFTWARE)


def plan_only(source: str, destination: str, config: VideoConfig, listener: Listener) -> Prepared:
    """Everything up to the first frame; nothing is written. Raises ConfigError and MediaError as ``upscale_video`` does."""
    check_places(source, destination)
    refuse_device(config)
    target = destination_of(destination)
    config = config_for(config, format_of(destination), destination)
    held = hold_streams(source, destination, config)
    model = load_model_spec(config)
    refuse_foreign(target, work_of(target), config.overwrite)
    job = prepare(source, destination, config, held, model, job_digest(source, config, model), None, listener)
    refuse_damage(job)
    return job


def write_preview(job: Prepared, num_frames: int) -> dict[str, Any]:
    """A PNG beside the destination: ``num_frames`` frames of the video, bicubic on the left and the model on the right.

    They are made on this machine, whatever ``address`` says: ConfigError where it has not the device. How long all would take
    is reckoned from the fastest; decoding and encoding go on beside that.
    """
    destination = destination_of(job.destination)
    if is_sequence(job.source) and normal_url(job.source) == normal_url(destination.store.url):
        raise ConfigError(f"{job.destination}: its preview would lie among the images of the source; name another folder")
    key = f"{PurePosixPath(destination.name).stem}.preview.png"
    if not job.config.overwrite and destination.store.exists(key) and not is_preview(destination.store.read(key)):
        raise ConfigError(f"{destination.store.url_of(key)} is no preview of this program; move it, or pass --overwrite")
    upscaler = Upscaler.from_spec(job.model, str(pick_device(job.config.device)))
    pairs, seconds = [], []
    decodable = np.flatnonzero(~job.pictures.repeated)
    for index in decodable[np.linspace(0, len(decodable) - 1, num_frames + 2).round().astype(int)[1:-1]]:
        frames = read_range(
            partial(open_input, job.source, job.config.rate),
            job.source,
            job.info,
            job.timeline,
            job.plan.source_layout,
            int(index),
            int(index) + 1,
            job.plan.deinterlace,
        )
        _, planes = next(frames)
        rgb, started = planes_to_rgb(planes, job.plan.source_layout), time.monotonic()
        with torch.inference_mode():
            upscaled = upscaler.upscale(rgb[None].to(upscaler.device))[0].cpu()
        seconds.append(time.monotonic() - started)
        pairs.append(before_and_after(rgb, upscaled, upscaler.scale, job.plan.encode))
    png = io.BytesIO()
    Image.fromarray(np.concatenate(pairs)).save(png, "PNG", pnginfo=SIGNED)
    destination.store.write(key, png.getvalue())
    whole = timedelta(seconds=round(min(seconds) * len(job.pictures)))
    needed = f"about {whole} on this machine's {upscaler.device.type}, {min(seconds):.2g} s a frame"
    return describe_plan(job) | {"time_needed": needed, "preview": destination.store.url_of(key)}


def is_preview(data: bytes) -> bool:
    """Whether ``write_preview`` made this file, by what it wrote into it."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.info.get("Software") == SOFTWARE
    except OSError:
        return False


def before_and_after(rgb: Tensor, upscaled: Tensor, scale: int, encode: EncodeSpec) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(3, H, W) float RGB -> uint8 pictures side by side, as the result will be shown: bicubic, then the model."""
    stored = [turned(picture, encode.turn) for picture in (resize(rgb, scale), upscaled)]
    shown = turn_of(encode.display_matrix)
    both = torch.cat([turned(resample(picture, encode.height, encode.width), shown) for picture in stored], dim=2)
    return (both.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
