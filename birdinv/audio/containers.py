"""What a container says of itself, against what is on the disk.

libsndfile shortens a truncated WAV, AIFF or Ogg file without a word, believes a header that was
never brought up to date and fills holes in an Opus stream with silence. Two cheap looks at the
bytes tell.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import IO, NamedTuple

# A recorder writes a dozen; the walk ends also where a file is nothing but chunks.
MAX_CHUNKS = 1024


SEVENS = (21, 14, 7, 0)
TAGS = (b"TAG", b"APETAGEX", b"LYRICS")  # what may follow the sound of an MP3


class _Layout(NamedTuple):
    """How the chunks of a container follow each other."""

    first: int  # where the first one begins
    header: struct.Struct  # name and length
    align: int  # a chunk's length is rounded up to a multiple
    sound: bytes  # the name, by its first four bytes, of the chunk that holds the samples
    extra: int = 0  # bytes of that chunk in front of the samples
    own: int = 0  # bytes of its own header that a length includes


_LAYOUTS = {
    b"RIFF": _Layout(12, struct.Struct("<4sI"), 2, b"data"),
    b"RF64": _Layout(12, struct.Struct("<4sI"), 2, b"data"),
    b"RIFX": _Layout(12, struct.Struct(">4sI"), 2, b"data"),
    b"FORM": _Layout(12, struct.Struct(">4sI"), 2, b"SSND", extra=8),
    b"riff": _Layout(40, struct.Struct("<16sQ"), 8, b"data", own=24),  # W64
    b"caff": _Layout(8, struct.Struct(">4sQ"), 1, b"data", extra=4),
}


def sound_bytes(path: Path) -> tuple[int, int] | None:
    """(declared, present) bytes of sound in a WAV, RF64, W64, AIFF, CAF or AU file; else None.

    `present` is less than declared in a truncated file, and more where what follows the declared
    samples is neither a chunk nor padding: samples of a recorder that did not close its file. A
    declared size of all ones means "written to a pipe, length unknown" and gives None.
    """
    try:
        with open(path, "rb") as file:
            return _sound_bytes(file)
    except (OSError, struct.error):
        return None


def _sound_bytes(file: IO[bytes]) -> tuple[int, int] | None:
    size = os.fstat(file.fileno()).st_size
    form = file.read(12)
    if form[:4] in (b".snd", b"dns."):  # AU: one header, then samples
        start, declared = struct.unpack((">" if form[0] == ord(".") else "<") + "II", form[4:])
        return None if declared == 0xFFFFFFFF else (declared, min(declared, max(0, size - start)))
    layout = _LAYOUTS.get(form[:4])
    if layout is None:
        return None
    position, long_length = layout.first, None
    for _ in range(MAX_CHUNKS):
        if position >= size:  # by a length that may be past any file
            return None
        file.seek(position)
        name, length = layout.header.unpack(file.read(layout.header.size))
        start = position + layout.header.size
        if name == b"ds64":
            long_length = struct.unpack("<Q", file.read(16)[8:])[0]
        sound = name[:4] == layout.sound
        if sound and length == (1 << 8 * (layout.header.size - len(name))) - 1:
            if long_length is None:
                return None
            length = long_length
        length -= layout.own
        if length < 0:
            return None
        end = start + length
        position = end + -length % layout.align
        if sound:
            declared, there = max(0, length - layout.extra), max(0, size - start - layout.extra)
            # Not every writer pads a chunk of odd length.
            more = end < size and not any(
                _is_other(file, at, size, layout, zeros=declared > 0) for at in (position, end)
            )
            return declared, there if more else min(declared, there)
    return None


def mpeg_surplus(path: Path) -> int:
    """Bytes of an MP3 behind those that the Xing or Info frame at its start accounts for, or 0.

    A decoder stops where that frame says, also when a second recording was appended. Tags (titles,
    a picture) and zeros may follow.
    """
    try:
        with open(path, "rb") as file:
            return _mpeg_surplus(file)
    except (OSError, struct.error, IndexError):
        return 0


def _mpeg_surplus(file: IO[bytes]) -> int:
    size, start = os.fstat(file.fileno()).st_size, 0
    head = file.read(10)
    if head[:3] == b"ID3" and len(head) == 10:  # a tag, its size in four times seven bits
        start = 10 + sum((b & 127) << s for b, s in zip(head[6:], SEVENS, strict=True))
    file.seek(start)
    frame = file.read(256)
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    if at < 0 or not frame[at + 7] & 2:
        return 0
    (sound,) = struct.unpack_from(">I", frame, at + 8 + 4 * (frame[at + 7] & 1))
    file.seek(start + sound)
    behind = file.read(1024)
    if len(behind) < 1024 or behind.startswith(TAGS) or not behind.strip(b"\0"):
        return 0
    return int(size - start - sound)


def _is_other(file: IO[bytes], at: int, size: int, layout: _Layout, *, zeros: bool) -> bool:
    """Whether what begins at byte `at` is no sound: a chunk, a short rest or, if given, zeros."""
    file.seek(at)
    behind = file.read(1024)
    if len(behind) < 1024 or (zeros and not behind.strip(b"\0")):
        return True
    name, length = layout.header.unpack(behind[: layout.header.size])
    named: bool = name[:4].isascii() and name[:4].decode().isprintable()
    return named and at + int(length) <= size


# The Ogg checksum is CRC-32 with its bits in the other order: with every byte mirrored, zlib's
# (which also starts from and ends with all ones, hence the two complements) gives its mirror image.
_MIRROR = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def _ogg_checksum(page: bytes) -> int:
    mirrored = zlib.crc32(page.translate(_MIRROR), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def ogg_damage(path: Path) -> str:
    """A sentence on the first damage of an Ogg file, or "" when every page is whole.

    Walks the pages (RFC 3533): each must follow the last one directly and match its checksum, and
    the stream must end in a page marked as its last. Bytes behind such a page are nobody's loss,
    unless they are another stream: libsndfile reads only the first.
    """
    try:
        with open(path, "rb") as file:
            return _first_damage(file)
    except OSError as error:
        return f"cannot be opened a second time: {error.strerror or error}"


def _first_damage(file: IO[bytes]) -> str:
    size = os.fstat(file.fileno()).st_size
    at, last = 0, False
    while True:
        file.seek(at)
        header = file.read(27)
        if len(header) == 0 and last:
            return ""
        if header[:4] != b"OggS" or len(header) < 27:
            if last:
                return ""
            where = f"at byte {at} of {size}"
            kind = "damaged" if len(header) == 27 else "truncated"
            return f"{kind}: the Ogg stream breaks off {where}"
        if last and header[5] & 2:
            return f"a second Ogg stream begins at byte {at}: only the first was read"
        lacing = file.read(header[26])
        body = file.read(sum(lacing))
        if len(lacing) < header[26] or len(body) < sum(lacing):
            return "truncated: the last Ogg page is not whole"
        page = header[:22] + bytes(4) + header[26:] + lacing + body
        if _ogg_checksum(page) != struct.unpack("<I", header[22:26])[0]:
            return f"damaged: the Ogg page at byte {at} fails its checksum"
        at += 27 + len(lacing) + len(body)
        last = bool(header[5] & 4)
