"""What lies beside the pixels in a picture file that Pillow has opened."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from PIL import (
    ImageFile,
    JpegImagePlugin,
)

from pipeline.dataset import colours, exif, png, segments
from pipeline.dataset.picture import Metadata


def metadata_of(image: ImageFile.ImageFile, kind: str, data: bytes) -> Metadata:
    info = image.info
    found = Metadata(
        exif=exif.bare(info.get("exif")),
        icc=info.get("icc_profile") or None,
        xmp=info.get("xmp") or None,
        dpi=_dpi(info.get("dpi")),
    )
    if kind == "PNG":
        chunks = list(png.chunks(data))
        first = dict(reversed(chunks))
        texts = [packet for name, content in chunks if name == b"iTXt" and (packet := png.xmp(content)) is not None]
        kept = [one for one in chunks if one[0] in png.KEPT and not (one[0] == b"iTXt" and png.xmp(one[1]) is not None)]
        return replace(
            found,
            exif=first.get(b"eXIf") or None,
            icc=png.profile(first[b"iCCP"]) if b"iCCP" in first else None,
            xmp=texts[0] if texts else None,
            chunks=tuple(kept),
        )
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        # Without a unit in JFIF, Pillow takes the resolution from EXIF, which keeps it anyway, or makes one up.
        dpi = found.dpi if info.get("jfif_unit") else None
        across, down = info["jfif_density"] if info.get("jfif_unit") == 0 else (1, 1)
        return replace(
            found,
            dpi=dpi,
            segments=segments.kept_segments(image.applist),
            comment=info.get("comment") or b"",
            chunks=(png.aspect_chunk(across, down),) if across != down and across and down else (),
        )
    if kind == "TIFF":
        return replace(found, exif=exif.of_tiff(data))
    if kind == "AVIF" and not found.icc and (chunk := colours.chunk_of_avif(data)):
        return replace(found, chunks=(chunk,))
    return found


def upright_xmp(packet: bytes) -> bytes:
    return re.sub(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)[2-8]", rb"\g<1>1", packet)


def webp_chunks(data: bytes, at: int) -> Iterator[bytes]:
    """The types of a WebP file's chunks from a place on (RFC 9649, section 2.3), those in an animation's frames too."""
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        yield kind
        at += 8 + (16 if kind == b"ANMF" else size + size % 2)


def _dpi(value: object) -> tuple[float, float] | None:
    """Dots an inch across and down; None where that is nonsense."""
    try:
        x, y = (float(number) for number in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    # TIFF files without a resolution say 1.
    return (x, y) if 1 < x < 65535 and 1 < y < 65535 else None
