"""What files of audio say of themselves, and whether it is so. libsndfile believes their headers.

A WAV whose header has too small a length is cut off there without a word; an MP3 without a Xing frame has a length that is
guessed from its first frame; an Ogg that was cut off ends like a whole one. All of it is seen in the bytes.
"""

import re
import struct

_MPEG_KBPS = {
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Kilobits a second of layer III by their number in the header, of MPEG 1, and of MPEG 2 and 2.5."""
_MPEG_HZ = (44_100, 48_000, 32_000)
_JUNK = 0.01
"""Share of its data that a WAV may hold behind it without being taken for more of it."""
_UNKNOWN = 1 << 48
"""Lengths from here up are placeholders of a program that did not know."""
_NAMES = {
    b"\x1a\x45\xdf\xa3": "WebM or Matroska",
    b"0&\xb2u": "WMA",
    b"#!AMR": "AMR",
    b"\x0bw": "AC-3",
    b"\xff\xf1": "AAC",
    b"\xff\xf9": "AAC",
}


def container_of(start: bytes) -> str:
    """The name of a kind of file that libsndfile does not read, from its first 16 bytes; empty where it is none of those."""
    if start[4:8] == b"ftyp":
        return "MP4"
    return next((name for mark, name in _NAMES.items() if start.startswith(mark)), "")


def check_container(encoded: bytes) -> None:
    """Raises a ValueError with the reason when the bytes are not all that there should be."""
    if encoded[:4] == b"OggS":
        _check_ogg(encoded)
    if _ends_at(encoded) > len(encoded):
        raise ValueError("truncated audio")
    start = _after_id3(encoded)
    if _mpeg_frame(encoded, start) is not None:
        _, at = _mpeg_frames(encoded, start)
        if _mpeg_frame(encoded, at) is not None:
            raise ValueError("truncated audio")


def _ends_at(encoded: bytes) -> int:
    """Where the samples of a WAV of 64 bits (RF64 and BW64, Sony's W64) end by its header, whose length libsndfile cuts to what
    is there; 0: it is none, or does not say.
    """
    if encoded[:4] in (b"RF64", b"BW64") and encoded[12:16] == b"ds64":
        data = encoded.find(b"data", 16)
        (size,) = struct.unpack("<Q", encoded[28:36].ljust(8, b"\0"))
    elif encoded[:4] == b"riff" and encoded[24:28] == b"wave":
        data = encoded.find(b"data", 40) + 16
        (size,) = struct.unpack("<Q", encoded[data : data + 8].ljust(8, b"\0"))
        size = max(0, size - 32)
    else:
        return 0
    return 0 if data < 0 or size >= _UNKNOWN else data + 8 + size


def _check_ogg(encoded: bytes) -> None:
    """The last page must be whole, and say that it is the last."""
    at = encoded.rfind(b"OggS")
    if at + 27 > len(encoded):
        raise ValueError("truncated audio")
    segments = encoded[at + 26]
    table = encoded[at + 27 : at + 27 + segments]
    if len(table) < segments or at + 27 + segments + sum(table) > len(encoded) or not encoded[at + 5] & 4:
        raise ValueError("truncated audio")


def with_length(encoded: bytes) -> bytes:
    """Audio whose header tells its length: of a WAV that holds more data than it says, and of an MP3 that says nothing, a copy
    that does; all else as it is. What cannot be understood is for the decoder to judge.
    """
    if encoded[:4] in (b"RIFF", b"RIFX") and encoded[8:12] == b"WAVE":
        return _whole_wav(encoded)
    start = _after_id3(encoded)
    first = _mpeg_frame(encoded, start)
    if first is None or any(mark in encoded[start : start + first[0]] for mark in (b"Xing", b"Info", b"VBRI")):
        return encoded
    frames, _ = _mpeg_frames(encoded, start)
    told = _xing_frame(encoded[start : start + 4], frames)
    return encoded if frames < 2 or told is None else encoded[:start] + told + encoded[start:]


def _whole_wav(encoded: bytes) -> bytes:
    """What stands behind the data of a WAV must be chunks; if it is none, it is data."""
    order = "<" if encoded[:4] == b"RIFF" else ">"
    at, data = 12, None
    while at + 8 <= len(encoded):
        name, (size,) = encoded[at : at + 4], struct.unpack(f"{order}I", encoded[at + 4 : at + 8])
        if not re.fullmatch(rb"[ -~]{4}", name):
            break
        if name == b"data":
            data = at
        at += 8 + size + size % 2
    left = encoded[at:]
    if data is None or not left.strip(b"\0") or len(left) <= _JUNK * (at - data):
        return encoded
    size = len(encoded) - data - 8
    return encoded[: data + 4] + struct.pack(f"{order}I", size) + encoded[data + 8 :]


def _after_id3(encoded: bytes) -> int:
    at = 0
    while encoded[at : at + 3] == b"ID3" and len(encoded) > at + 10:
        size = 0
        for byte in encoded[at + 6 : at + 10]:
            size = size << 7 | byte & 0x7F
        at += 10 + size
    return at


def _mpeg_frames(encoded: bytes, at: int) -> tuple[int, int]:
    """The whole frames from there on, one after the other, and where they end."""
    frames = 0
    while (frame := _mpeg_frame(encoded, at)) is not None and at + frame[0] <= len(encoded):
        frames, at = frames + 1, at + frame[0]
    return frames, at


def _mpeg_frame(encoded: bytes, at: int) -> tuple[int, int] | None:
    """Bytes and samples of the layer III frame that begins there; None: none does."""
    header = encoded[at : at + 4]
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:  # sync, layer III
        return None
    version, rate, hz = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or rate in (0, 15) or hz == 3:
        return None
    kbps = _MPEG_KBPS[1 if version == 3 else 2][rate]
    sample_rate = _MPEG_HZ[hz] // {3: 1, 2: 2, 0: 4}[version]
    samples = 1152 if version == 3 else 576
    return samples // 8 * kbps * 1000 // sample_rate + (header[2] >> 1 & 1), samples


def _xing_frame(header: bytes, frames: int) -> bytes | None:
    """A frame with the given one's version, rate and channels and a count of frames."""
    version, mono = header[1] >> 3 & 3, header[3] >> 6 == 3
    side = (17 if mono else 32) if version == 3 else (9 if mono else 17)
    for rate in range(1, 15):  # the smallest that holds it
        made = bytes((header[0], header[1] | 1, header[2] & 0x0C | rate << 4, header[3]))  # no checksum, no padding
        frame = _mpeg_frame(made, 0)
        if frame is not None and frame[0] >= 4 + side + 12:
            content = made + bytes(side) + b"Xing" + struct.pack(">II", 1, frames)
            return content + bytes(frame[0] - len(content))
    return None
