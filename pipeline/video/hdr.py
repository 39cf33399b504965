"""HDR10 metadata: how the mastering display and the light level travel from a source's frames into an encoder's settings.

SMPTE ST 2086 and CTA-861.3. HEVC and H.264 count chromaticities in 1/50000 and luminance in 1/10000 cd/m2; AV1 in 1/65536,
1/256 for the brightest and 1/16384 for the darkest.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

# Side data of frames that cannot be carried over; what encoders note of themselves is not worth a word.
LOST = {
    "DYNAMIC_HDR_PLUS": "HDR10+ metadata",
    "DYNAMIC_HDR_VIVID": "HDR Vivid metadata",
    "DOVI_METADATA": "Dolby Vision metadata",
    "DOVI_RPU_BUFFER": "Dolby Vision metadata",
    "AMBIENT_VIEWING_ENVIRONMENT": "the ambient viewing environment",
    "ICC_PROFILE": "the ICC profile",
    "A53_CC": "closed captions inside the video (CEA-608/708)",
    "STEREO3D": "the stereo 3D layout",
    "SPHERICAL": "the spherical projection",
    "S12M_TIMECODE": "the timecode inside the video",
    "GOP_TIMECODE": "the timecode inside the video",
    "PANSCAN": "the pan and scan window",
    "AFD": "the active format description",
}

# The units of each codec: chromaticities, brightest, darkest.
UNITS = {"libx264": (50000, 10000, 10000), "libx265": (50000, 10000, 10000), "libsvtav1": (65536, 256, 16384)}


def mastering_display(side_data: Iterable[Any]) -> tuple[str, ...]:
    """Red x and y, green, blue, white, the darkest and the brightest luminance, as "num/den"; empty where not stated."""
    for data in side_data:
        if data.type.name == "MASTERING_DISPLAY_METADATA":
            # libavutil/mastering_display_metadata.h: ten rationals, then whether colours and luminances are there.
            numbers = struct.unpack("=22i", bytes(data)[:88])
            if numbers[20] and numbers[21]:
                return tuple(f"{numbers[i]}/{numbers[i + 1]}" for i in range(0, 20, 2))
    return ()


def content_light(side_data: Iterable[Any]) -> tuple[int, ...]:
    """The brightest pixel's and the brightest frame's mean light level in cd/m2; empty where they are not stated."""
    for data in side_data:
        if data.type.name == "CONTENT_LIGHT_LEVEL":
            return struct.unpack("=2I", bytes(data)[:8])
    return ()


def losses(side_data: Iterable[str], codec: str, mastering: tuple[str, ...], light: tuple[int, ...]) -> list[str]:
    """What of the source's metadata the result will not have, one line each."""
    lost = [f"{what} cannot be carried over" for what in sorted({LOST[name] for name in side_data if name in LOST})]
    if codec not in UNITS and (mastering or light):
        lost.append(f"{codec} cannot carry HDR10 mastering display and light level; libx264, libx265 and libsvtav1 do")
    elif mastering and any(Fraction(a) != b for a, b in zip(mastering, _rounded(codec, mastering), strict=True)):
        lost.append(f"the mastering display is rounded to {codec}'s units")
    return lost


def encoder_params(codec: str, mastering: tuple[str, ...], light: tuple[int, ...]) -> str:
    """Entries for x264-params, x265-params or svtav1-params that state both, ":name=value" each; empty for other codecs."""
    names = {
        "libx264": ("mastering-display", "cll"),
        "libx265": ("master-display", "max-cll"),
        "libsvtav1": ("mastering-display", "content-light"),
    }
    if codec not in names:
        return ""
    entries = ""
    if mastering:
        values = _rounded(codec, mastering)
        if codec == "libsvtav1":
            written = [f"{float(value):.9f}" for value in values]
        else:
            units = [UNITS[codec][0]] * 8 + [UNITS[codec][2], UNITS[codec][1]]
            written = [str(int(value * unit)) for value, unit in zip(values, units, strict=True)]
        rx, ry, gx, gy, bx, by, wx, wy, darkest, brightest = written
        entries += f":{names[codec][0]}=G({gx},{gy})B({bx},{by})R({rx},{ry})WP({wx},{wy})L({brightest},{darkest})"
    if light:
        entries += f":{names[codec][1]}={light[0]},{light[1]}"
    return entries


def _rounded(codec: str, mastering: tuple[str, ...]) -> list[Fraction]:
    """The nearest values that the codec can hold."""
    colour, brightest, darkest = UNITS[codec]
    units = [colour] * 8 + [darkest, brightest]
    return [Fraction(round(Fraction(value) * unit), unit) for value, unit in zip(mastering, units, strict=True)]
