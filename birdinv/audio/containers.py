"""What a container says of itself, against what is on the disk.

libsndfile shortens a truncated WAV, AIFF or Ogg file without a word and fills holes in an Opus
stream with silence. Two cheap looks at the bytes tell.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import IO


def sound_bytes(path: Path) -> tuple[int, int] | None:
    """(declared, present) bytes of the sound chunk of a WAV, RF64 or AIFF file; None for others.

    Where the header declares 0 bytes, `present` counts everything behind it. A declared size of
    0xFFFFFFFF means "written to a pipe, length unknown" and gives None.
    """
    try:
        with open(path, "rb") as file:
            return _sound_chunk(file)
    except (OSError, struct.error):
        return None


def _sound_chunk(file: IO[bytes]) -> tuple[int, int] | None:
    size = os.fstat(file.fileno()).st_size
    form = file.read(12)
    if form[:4] in (b"RIFF", b"RF64") and form[8:12] == b"WAVE":
        order, wanted, extra = "<", b"data", 0
    elif form[:4] == b"RIFX" and form[8:12] == b"WAVE":
        order, wanted, extra = ">", b"data", 0
    elif form[:4] == b"FORM" and form[8:12] in (b"AIFF", b"AIFC"):
        order, wanted, extra = ">", b"SSND", 8  # SSND begins with its offset and block size
    else:
        return None
    position, long_length = 12, None
    while position + 8 <= size:
        file.seek(position)
        name, length = struct.unpack(order + "4sI", file.read(8))
        if name == b"ds64":
            long_length = struct.unpack("<Q", file.read(16)[8:])[0]
        if name == wanted:
            if length == 0xFFFFFFFF:
                if long_length is None:
                    return None
                length = long_length
            declared, present = max(0, length - extra), max(0, size - position - 8 - extra)
            return declared, min(declared, present) if declared else present
        position += 8 + length + (length & 1)
    return None


# The Ogg checksum is CRC-32 with its bits in the other order: with every byte mirrored, zlib's
# (which also starts from and ends with all ones, hence the two complements) gives its mirror image.
_MIRROR = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def _ogg_checksum(page: bytes) -> int:
    mirrored = zlib.crc32(page.translate(_MIRROR), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def ogg_damage(path: Path) -> str:
    """A sentence on the first damage of an Ogg file, or "" when every page is whole.

    Walks the pages (RFC 3533): each must follow the last one directly and match its checksum, and
    the stream must end in a page marked as its last. Bytes behind such a page are nobody's loss.
    """
    with open(path, "rb") as file:
        at, last = 0, False
        while True:
            file.seek(at)
            header = file.read(27)
            if len(header) == 0 and last:
                return ""
            if header[:4] != b"OggS" or len(header) < 27:
                if last:
                    return ""
                where = f"at byte {at} of {path.stat().st_size}"
                kind = "damaged" if len(header) == 27 else "truncated"
                return f"{kind}: the Ogg stream breaks off {where}"
            lacing = file.read(header[26])
            body = file.read(sum(lacing))
            if len(lacing) < header[26] or len(body) < sum(lacing):
                return "truncated: the last Ogg page is not whole"
            page = header[:22] + bytes(4) + header[26:] + lacing + body
            if _ogg_checksum(page) != struct.unpack("<I", header[22:26])[0]:
                return f"damaged: the Ogg page at byte {at} fails its checksum"
            at += 27 + len(lacing) + len(body)
            last = bool(header[5] & 4)
