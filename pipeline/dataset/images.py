"""Picture files into pixels, upright and with all that belongs to them, whatever the file holds.

Palettes become RGB, or RGBA where a colour is transparent; CMYK becomes sRGB by its profile, or by
Pillow's rule without one, and has no profile then; one bit becomes eight. What is stored with 16 bits keeps them. Floating
point, Lab and whole numbers of 32 bits are refused. Of a JPEG that holds several pictures (MPO, gain maps) only the first is
read.
"""

from __future__ import annotations

import io
import re
from dataclasses import replace

import av
import numpy as np
from PIL import (
    Image,
    ImageCms,
    ImageFile,
    TiffImagePlugin,
)

from pipeline.dataset import animation, deep, exif, png
from pipeline.dataset.formats import READERS, format_of, our_limits
from pipeline.dataset.metadata import metadata_of, upright_xmp, webp_chunks
from pipeline.dataset.picture import Limits, Picture, PictureError, Pixels, Status

NOT_FOR_PILLOW = ("unknown pixel mode", "unknown data organization", "support not installed", "Unsupported BMP")
BAND_SAMPLES = 16 << 20
REDUCED, DNG_VERSION = 0x00FE, 0xC612  # tags: NewSubfileType, of which bit 0 is a reduced picture (TIFF 6.0); DNG 1.7


def read_picture(data: bytes, limits: Limits) -> Picture:
    """Decode a file. Raises PictureError, whatever it holds, and nothing else."""
    kind = format_of(data)
    try:
        with our_limits(), READERS[kind](io.BytesIO(data)) as image:
            check_header(image, kind, data, limits)
            picture = _read(image, kind, data)
            if limits.animated == "each" and getattr(image, "is_animated", False):
                turn = exif.orientation(exif.bare(image.info.get("exif")))
                return animation.with_frames(
                    picture, image, lambda frame: turned(_pixels(frame, kind, data), turn), limits.max_pixels
                )
            return picture
    except PictureError:
        raise
    except MemoryError as error:
        raise PictureError("too_large", f"there is no memory for this {kind} picture") from error
    except Exception as error:  # damaged files make Pillow raise nearly everything that Python has
        if any(words in str(error) for words in NOT_FOR_PILLOW):
            raise PictureError("unsupported", f"Pillow does not read this {kind} picture: {_one_line(error)}") from error
        raise PictureError("decode_error", f"damaged {kind} picture: {_one_line(error)}") from error


def check_header(image: Image.Image, kind: str, data: bytes, limits: Limits) -> None:
    """Raises PictureError where the header alone says that a picture is not wanted, or would not be read whole."""
    width, height = image.size
    if width < 1 or height < 1:
        raise PictureError("decode_error", f"damaged picture: it says that it has {width}x{height} pixels")
    if width * height > limits.max_pixels:
        raise PictureError("too_large", f"{width}x{height} is more than {limits.max_pixels} pixels; raise the limit to read it")
    if limits.min_side is not None and min(width, height) >= limits.min_side:
        raise PictureError("skipped", f"{width}x{height} has no side under {limits.min_side} pixels")
    if limits.skip_pixels is not None and width * height > limits.skip_pixels:
        raise PictureError("skipped", f"{width}x{height} is more than {limits.skip_pixels} pixels")
    if kind == "AVIF" and (found := re.search(rb"av1C..(.)", data[:8192], re.DOTALL)) and found[1][0] & 0x40:
        raise PictureError("unsupported", "AVIF of more than 8 bits, which Pillow cuts; convert it to PNG of 16 bits first")
    if isinstance(image, TiffImagePlugin.TiffImageFile) and is_preview(image):
        raise PictureError("unsupported", "camera raw, or a TIFF of which the first picture is a preview; develop or unpack it")
    if getattr(image, "is_animated", False) and (
        limits.animated == "refuse" or (limits.animated == "each" and kind not in animation.KINDS)
    ):
        raise PictureError("unsupported", "several pictures in one file; --animated first takes the first of each")


def is_preview(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether the first picture of a TIFF only stands for another: a reduced one, or that of a raw file."""
    kind = image.tag_v2.get(REDUCED, 0)
    return DNG_VERSION in image.tag_v2 or (isinstance(kind, int) and bool(kind & 1))


def _read(image: ImageFile.ImageFile, kind: str, data: bytes) -> Picture:
    tiff_turn = image.tag_v2.get(exif.ORIENTATION, 1) if isinstance(image, TiffImagePlugin.TiffImageFile) else None
    image.load()
    metadata = metadata_of(image, kind, data)
    turn = exif.orientation(metadata.exif) if tiff_turn is None else tiff_turn
    if is_deep(image, kind, data):
        pixels = turned(_deep_pixels(image, kind, data, turn), turn)
    else:
        pixels = _pixels(image, kind, data)
        # Pillow turns TIFF pictures by itself.
        pixels = pixels if kind == "TIFF" else turned(pixels, turn)
    return Picture(
        np.ascontiguousarray(pixels),
        kind,
        replace(
            metadata,
            exif=exif.upright(metadata.exif, turn) if metadata.exif else None,
            xmp=upright_xmp(metadata.xmp) if metadata.xmp and turn != 1 else metadata.xmp,
            icc=None if image.mode == "CMYK" else metadata.icc,
            dpi=metadata.dpi[::-1] if metadata.dpi and turn >= 5 else metadata.dpi,
            chunks=png.lying(metadata.chunks) if turn >= 5 else metadata.chunks,
        ),
        lossless=kind == "WEBP" and b"VP8 " not in set(webp_chunks(data, 12)),
    )


def _pixels(image: Image.Image, kind: str, data: bytes) -> Pixels:
    """What Pillow has decoded, without loss but for CMYK."""
    mode = image.mode
    if kind == "PNG" and mode == "L" and "transparency" in image.info and data[24] in (2, 4):
        # Pillow spreads samples of 2 and 4 bits over eight, but not the one that is transparent.
        return _hiding(_samples(image), image.info["transparency"] * (255 // (2 ** data[24] - 1)))
    if mode.startswith("I;16"):
        return _grey16(image)
    if mode in ("1", "L", "LA", "La"):
        mode = "LA" if image.has_transparency_data else "L"
    elif mode in ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX"):
        mode = "RGBA" if image.has_transparency_data else "RGB"
    elif mode == "CMYK":
        return np.array(_from_cmyk(image))
    elif mode == "YCbCr":
        mode = "RGB"
    else:
        names = {"F": "of floating point", "I": "of 32 bits", "LAB": "in Lab"}
        raise PictureError("unsupported", f"samples {names.get(mode, mode)} are not read; convert the picture to 16 bits first")
    return _samples(image if image.mode == mode else image.convert(mode))


def _samples(image: Image.Image) -> Pixels:
    """(H, W, C) uint8. Band by band, since Pillow hands over two copies of what is asked for at once."""
    width, height = image.size
    out = np.empty((height, width, len(image.getbands())), np.uint8)
    rows = max(1, BAND_SAMPLES // (width * out.shape[2]))
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        part = image if rows >= height else image.crop((0, top, width, bottom))
        out[top:bottom] = np.asarray(part).reshape(bottom - top, width, -1)
    return out


def _grey16(image: Image.Image) -> Pixels:
    samples: Pixels = np.array(image).astype(np.uint16)[..., None]
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        if image.tag_v2.get(0x0102) == (12,):
            samples = samples << 4 | samples >> 8
        if image.tag_v2.get(0x0106) == 0:  # white is zero, which Pillow heeds for fewer bits only
            samples = 65535 - samples
    transparent = image.info.get("transparency")
    return samples if transparent is None else _hiding(samples, transparent)


def _hiding(grey: Pixels, transparent: int) -> Pixels:
    """(H, W, 1) with alpha, which is 0 where a sample is the one that is transparent."""
    return np.concatenate([grey, np.where(grey == transparent, 0, np.iinfo(grey.dtype).max).astype(grey.dtype)], axis=2)


def _from_cmyk(image: Image.Image) -> Image.Image:
    """By the picture's own profile to sRGB, relative to white; by Pillow's rule where that is none for CMYK."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info.get("icc_profile") or b""))
        converted = ImageCms.profileToProfile(
            image,
            profile,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return image.convert("RGB")
    return converted or image.convert("RGB")


def is_deep(image: Image.Image, kind: str, data: bytes) -> bool:
    """Whether Pillow cuts the samples to eight bits."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return image.mode in ("RGB", "RGBA") and 16 in image.tag_v2.get(0x0102, ())
    # The depth and the type of colour in IHDR; grey comes whole.
    return kind == "PNG" and data[24] == 16 and data[25] != 0


def _deep_pixels(image: Image.Image, kind: str, data: bytes, turn: int) -> Pixels:
    """All 16 bits of a picture that Pillow has decoded to eight; not turned. The two must agree where both have bits."""
    width, height = image.size
    if not deep.fits(width, height):
        raise PictureError("too_large", f"{width}x{height} is more than FFmpeg decodes with 16 bits")
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(0x0152, (0,))[0] == 1:
        raise PictureError("unsupported", "16 bits premultiplied with alpha are not read; store alpha unassociated")
    try:
        pixels = deep.decode(data, kind.lower())
    except (av.FFmpegError, ValueError) as error:
        status: Status = "decode_error" if kind == "PNG" else "unsupported"
        raise PictureError(status, f"FFmpeg does not decode this {kind} of 16 bits: {_one_line(error)}") from error
    if kind == "TIFF":
        # FFmpeg passes over damage in TIFF files, which libtiff does not.
        pixels = pixels[..., : len(image.getbands())]
        if not np.array_equal(turned(pixels, turn) >> 8, np.asarray(image)):
            raise PictureError("unsupported", "FFmpeg and libtiff differ on the samples of this TIFF of 16 bits")
    return pixels


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """(H, W, C) as it is to be shown, for an orientation of the Exif standard; a view."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
