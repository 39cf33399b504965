"""What packets say of their own damage: gaps in a transport stream, other containers' marks, the checksums of FFV1."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import av
import numpy as np
from av.stream import Stream

TS_PACKET_BYTES = (188, 192, 204)  # plain, with a time before each, with a checksum behind
TS_SYNC = b"\x47"  # the first byte of each
TABLES = (0x00, 0x11)  # of programs and of services (ISO 13818-1; EN 300 468), with which a recording begins
PES_HEADER_BYTES = 6  # of a packet, before what its length counts
READ_BYTES = 1 << 20
MOST_BETWEEN_TABLES = 1 << 14  # transport packets; tables come several times a second
FOOTER_BYTES = 8  # of a slice with a checksum: 24 bits of size, 8 of status, 32 that make the CRC of the whole slice 0
BITS_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1)[:, 0]


class PacketCheck:
    """For the packets of one stream of ``source``, in order."""

    def __init__(self, stream: Stream, source: str | BinaryIO) -> None:
        self._stream, self._source = stream, source
        self._is_ffv1 = stream.codec_context is not None and stream.codec_context.name == "ffv1"
        self._is_ts = stream.container.format.name == "mpegts"
        self._has_checksums = False  # as far as is known

    def damage(self, packet: av.Packet[Any]) -> str:
        """What is wrong with it, as what follows "the packet", or ""."""
        if packet.is_corrupt and not (self._is_ts and self._is_whole(packet)):
            return "is incomplete, as its container says"
        if self._is_ffv1 and packet.size and not self._slices_hold(bytes(packet)):
            return "fails its checksum"
        return ""

    def _is_whole(self, packet: av.Packet[Any]) -> bool:
        """FFmpeg marks the last packet before a place where recordings or segments are joined, too."""
        if packet.pos is None:
            return False
        with opened(self._source) as file:
            return is_whole(file, packet.pos, self._stream.id)

    def _slices_hold(self, data: bytes) -> bool:
        """FFmpeg's decoder says in its log alone that a checksum fails, and goes on."""
        slices = slices_of(data)
        if slices is None:
            return not self._has_checksums
        self._has_checksums = True
        return not any(map(crc, slices))


@contextmanager
def opened(source: str | BinaryIO) -> Iterator[BinaryIO]:
    """A file to seek in; one that is read by others too stands where it stood afterwards."""
    if isinstance(source, str):
        with open(source, "rb") as file:
            yield file
        return
    at = source.tell()
    try:
        yield source
    finally:
        source.seek(at)


def is_whole(file: BinaryIO, start: int, pid: int) -> bool:
    """Whether no transport packet is missing in the packet of a stream that begins at a byte of the file, nor in the next.

    FFmpeg marks the one or the other. A packet may state its length. Else the counters tell (ISO 13818-1, section 2.4.3.3):
    they go on from one to the next, and may repeat. Where those of the tables begin anew between two packets, another recording
    begins, or another segment of a stream for the web (RFC 8216, section 3.2).
    """
    num_begun = stated = size = 0
    before: int | None = None
    begins_anew, tables = False, last_tables(file, start)
    for packet in transport_packets(file, start):
        found = pid_of(packet)
        if found in TABLES:
            last = tables.get(found)
            begins_anew = begins_anew or last is None or packet[3] & 0x0F not in (last, (last + 1) % 16)
            tables[found] = packet[3] & 0x0F
        if found != pid or not packet[3] & 0x10:  # another stream's, or without payload
            continue
        begins, counter = bool(packet[1] & 0x40), packet[3] & 0x0F
        goes_on = before is None or counter in (before, (before + 1) % 16)
        if packet[1] & 0x80 or not (goes_on or (begins and begins_anew)):
            return False
        payload = packet[5 + packet[4] :] if packet[3] & 0x20 else packet[4:]
        if begins:
            if stated and size != stated:
                return False
            num_begun += 1
            if num_begun > 2:
                return True
            stated, size = int.from_bytes(payload[4:6]), -PES_HEADER_BYTES
        size += len(payload) if counter != before else 0
        before, begins_anew = counter, False
    return True


def last_tables(file: BinaryIO, start: int) -> dict[int, int]:
    """The counters of the last tables before a byte at which a transport packet begins."""
    step = next(n for n in TS_PACKET_BYTES if n == TS_PACKET_BYTES[-1] or in_step(file, start, n))
    first = start - min(start // step, MOST_BETWEEN_TABLES) * step
    counters: dict[int, int] = {}
    for number, packet in enumerate(transport_packets(file, first)):
        if first + number * step >= start:
            break
        if pid_of(packet) in TABLES:
            counters[pid_of(packet)] = packet[3] & 0x0F
    return counters


def in_step(file: BinaryIO, start: int, step: int) -> bool:
    file.seek(max(0, start - step))
    return file.read(1) == TS_SYNC


def pid_of(packet: bytes) -> int:
    return (packet[1] & 0x1F) << 8 | packet[2]


def transport_packets(file: BinaryIO, start: int) -> Iterator[bytes]:
    """The 188 bytes of each from ``start`` on, as long as they keep step."""
    file.seek(start)
    data = file.read(READ_BYTES)
    at = next((at for at in (0, 4) if data[at : at + 1] == TS_SYNC), len(data))
    step = next((n for n in TS_PACKET_BYTES if data[at + n : at + n + 1] == TS_SYNC), TS_PACKET_BYTES[0])
    while data[at : at + 1] == TS_SYNC:
        if len(packet := data[at : at + TS_PACKET_BYTES[0]]) < TS_PACKET_BYTES[0]:
            return
        yield packet
        at += step
        if at + step > len(data):
            data, at = data[at:] + file.read(READ_BYTES), 0


def slices_of(data: bytes) -> list[bytes] | None:
    """The slices of an FFV1 frame, the last first, where each ends with its size and a checksum (RFC 9043, section 4.9)."""
    slices, end = [], len(data)
    while end:
        start = end - FOOTER_BYTES - int.from_bytes(data[max(0, end - FOOTER_BYTES) : max(0, end - FOOTER_BYTES + 3)])
        if start < 0:
            return None
        slices.append(data[start:end])
        end = start
    return slices


def crc(data: bytes) -> int:
    """CRC-32 with the polynomial 0x04C11DB7, the highest bit first, from 0 and not inverted (RFC 9043, section 4.9.3)."""
    # zlib's has the lowest bit first and inverts at both ends.
    return zlib.crc32(BITS_REVERSED[np.frombuffer(data, np.uint8)].data, 0xFFFFFFFF) ^ 0xFFFFFFFF
