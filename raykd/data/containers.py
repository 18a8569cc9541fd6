"""What files of audio say of themselves, and whether it is so. libsndfile believes their headers.

A WAV whose header has too small a length is cut off there without a word; an MP3 without a Xing frame has a length that is
guessed from its first frame; an Ogg that was cut off ends like a whole one; of files that were joined end to end only the first
is read. All of it is seen in the bytes, most of it at the file's two ends, so files may be of any size.
"""

import io
import re
import struct
from collections.abc import Iterator
from typing import BinaryIO

WHOLE = 0.95
"""A file that holds less than this share of what its header announces is truncated. Headers of MP3 are a little off."""

_MPEG_KBPS = {
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Kilobits a second of layer III by their number in the header, of MPEG 1, and of MPEG 2 and 2.5."""
_MPEG_HZ = (44_100, 48_000, 32_000)
_JUNK = 0.01
"""Share of its sound that a file may hold behind it without being taken for more of it."""
_JUNK_BYTES = 4096
"""The same for the shortest files: what programs write behind the sound, such as names."""
_UNKNOWN = 1 << 48
"""Lengths from here up are placeholders of a program that did not know."""
_BLOCK_BYTES = 1 << 20
_OGG_PAGE_BYTES = 1 << 16
_NAMES = {
    b"\x1a\x45\xdf\xa3": "WebM or Matroska",
    b"0&\xb2u": "WMA",
    b"#!AMR": "AMR",
    b"\x0bw": "AC-3",
    b"\xff\xf1": "AAC",
    b"\xff\xf9": "AAC",
}
_CHUNKED = {b"RIFF": ("<", (b"data",)), b"RIFX": (">", (b"data",)), b"FORM": (">", (b"SSND", b"BODY"))}
"""Files of chunks (WAV, AIFF, SVX): the order of the bytes in their lengths, and the chunk that holds the sound."""


class _Bytes:
    """The bytes of a file that can be sought in; none of them are kept."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.size = stream.seek(0, io.SEEK_END)

    def at(self, start: int, n: int) -> bytes:
        """As many as there are of the n bytes from there on."""
        self._stream.seek(start)
        return self._stream.read(n)

    def find(self, mark: bytes, start: int) -> int:
        """Where `mark` stands, from `start` on; -1: nowhere."""
        while start < self.size:
            found = self.at(start, _BLOCK_BYTES).find(mark)
            if found >= 0:
                return start + found
            start += _BLOCK_BYTES - len(mark) + 1
        return -1


class _WithHead(io.RawIOBase):
    """A file with other bytes for its first ones."""

    def __init__(self, head: bytes, stream: BinaryIO, rest: int) -> None:
        self._head, self._stream, self._shift, self._at = head, stream, rest - len(head), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = (0, self._at, self._stream.seek(0, io.SEEK_END) - self._shift)[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fewer bytes than were asked for only at the end: libsndfile takes fewer for the end."""
        wanted = memoryview(buffer).nbytes
        data = self._head[self._at : self._at + wanted]
        if len(data) < wanted:
            self._stream.seek(self._at + len(data) + self._shift)
            data += self._stream.read(wanted - len(data))
        memoryview(buffer).cast("B")[: len(data)] = data
        self._at += len(data)
        return len(data)


def container_of(start: bytes) -> str:
    """The name of a kind of file that libsndfile does not read, from its first 16 bytes; empty where it is none of those."""
    if start[4:8] == b"ftyp":
        return "MP4"
    return next((name for mark, name in _NAMES.items() if start.startswith(mark)), "")


def whole(stream: BinaryIO) -> BinaryIO:
    """The file, with a header that tells its length: of one of chunks that holds more sound than it says, and of an MP3 that
    says nothing or too little, a view that does; all else as it is. What cannot be understood is for the decoder to judge.

    Raises:
        ValueError: the bytes are not all that there should be; with the reason.
    """
    encoded = _Bytes(stream)
    start = encoded.at(0, 12)
    if start[:4] == b"OggS":
        _check_ogg_end(encoded)
    if WHOLE * _ends_at(encoded) > encoded.size:
        raise ValueError("truncated audio")
    head, rest = _whole_chunks(encoded) if start[:4] in _CHUNKED else _whole_mpeg(encoded)
    stream.seek(0)
    return _WithHead(head, stream, rest) if head else stream  # type: ignore[return-value]


def goes_on(stream: BinaryIO, kind: str) -> bool:
    """Whether there is more sound behind that which was read, in a file of a `kind` (libsndfile's name, or ours) that was read
    to the end.
    """
    if kind in ("WAV", "WAVEX", "AIFF", "SVX", "MP3"):  # `whole` has seen to it, and to what may stand there
        return False
    behind = stream.tell()
    encoded = _Bytes(stream)
    if kind == "MP4":
        return _second_mp4(encoded)
    if encoded.size - behind > _JUNK_BYTES + _JUNK * behind:
        return True
    return _second_ogg(encoded) if kind == "OGG" else kind == "FLAC" and _second_flac(encoded)


def _second_ogg(encoded: _Bytes) -> bool:
    """Whether a stream begins where others have begun to speak."""
    at, spoken = 0, False
    while (page := encoded.at(at, 27))[:4] == b"OggS" and len(page) == 27:
        first = bool(page[5] & 2)
        if first and spoken:
            return True
        spoken = spoken or not first
        at += 27 + page[26] + sum(encoded.at(at + 27, page[26]))
    return False


def _second_mp4(encoded: _Bytes) -> bool:
    """Whether another file begins behind the boxes of the first."""
    at, files = 0, 0
    while len(box := encoded.at(at, 16)) >= 8:
        files += box[4:8] == b"ftyp"
        size = int.from_bytes(box[:4] if box[:4] != b"\0\0\0\1" else box[8:], "big")
        if size < 8:  # to the end of the file
            break
        at += size
    return files > 1


def _second_flac(encoded: _Bytes) -> bool:
    return any(encoded.find(b"fLaC" + last + b"\0\0\x22", 4) >= 0 for last in (b"\0", b"\x80"))


def _ends_at(encoded: _Bytes) -> int:
    """Where the samples of a WAV of 64 bits (RF64 and BW64, Sony's W64) or of a NIST SPHERE end by its header, whose length
    libsndfile cuts to what is there; 0: it is none, or does not say.
    """
    start = encoded.at(0, 1024)
    if start[:7] == b"NIST_1A":
        told = dict(re.findall(rb"(sample_count|channel_count|sample_n_bytes) -i (\d+)", start))
        header = re.match(rb"NIST_1A\s+(\d+)", start)
        size = int(told.get(b"sample_count", 0)) * int(told.get(b"channel_count", 1)) * int(told.get(b"sample_n_bytes", 2))
        return int(header[1]) + size if header and size < _UNKNOWN else 0
    if start[:4] in (b"RF64", b"BW64") and start[12:16] == b"ds64":
        data = next((at for name, at, _ in _chunks(encoded, "<") if name == b"data"), -1)
        size = int.from_bytes(start[28:36], "little")
    elif start[:4] == b"riff" and start[24:28] == b"wave":
        data = encoded.find(b"data", 40) + 16
        size = max(0, int.from_bytes(encoded.at(data, 8), "little") - 32)
    else:
        return 0
    return 0 if data < 0 or size >= _UNKNOWN else data + 8 + size


def _check_ogg_end(encoded: _Bytes) -> None:
    """The last page must be whole, and say that it is the last."""
    tail = encoded.at(max(0, encoded.size - 2 * _OGG_PAGE_BYTES), 2 * _OGG_PAGE_BYTES)
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]]) or not page[5] & 4:
        raise ValueError("truncated audio")


def _chunks(encoded: _Bytes, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Name, place and length of a file's chunks, up to the first that is none."""
    at = 12
    while at + 8 <= encoded.size:
        name, size = struct.unpack(f"{order}4sI", encoded.at(at, 8))
        if not re.fullmatch(rb"[ -~]{4}", name):
            return
        yield name, at, size
        at += 8 + size + size % 2


def _whole_chunks(encoded: _Bytes) -> tuple[bytes, int]:
    """What stands behind the sound must be chunks; if it is none, it is sound."""
    order, names = _CHUNKED[encoded.at(0, 4)]
    sound, end, cut = None, 12, False
    for name, at, size in _chunks(encoded, order):
        if name in names:
            sound = at
        elif cut := at + 8 + size > encoded.size:
            break
        end = at + 8 + size + size % 2
    if sound is None or encoded.size - end <= _JUNK * (end - sound) or not _any_sound(encoded, end):
        return b"", 0
    if cut:  # a chunk that was cut off, or sound that looks like the name of one
        raise ValueError("truncated audio")
    return encoded.at(0, sound + 4) + struct.pack(f"{order}I", encoded.size - sound - 8), sound + 8


def _any_sound(encoded: _Bytes, start: int) -> bool:
    return any(encoded.at(at, _BLOCK_BYTES).strip(b"\0") for at in range(start, encoded.size, _BLOCK_BYTES))


def _whole_mpeg(encoded: _Bytes) -> tuple[bytes, int]:
    """An MP3 with a first frame that tells how many there are, where it has none or one of fewer (that of the first of several
    files that were joined).
    """
    start = _after_id3(encoded)
    header = encoded.at(start, 4)
    first = _mpeg_frame(header)
    if first is None:
        return b"", 0
    frames = _count_frames(encoded, start)
    content = encoded.at(start, first[0])
    tag = re.search(rb"(?:Xing|Info)(.{4})(.{4})|VBRI.{10}(.{4})", content, re.DOTALL)
    sounding = frames - 1 if tag else frames
    if tag and (tag[3] or tag[1][3] & 1) and sounding <= (1 + _JUNK) * int.from_bytes(tag[3] or tag[2], "big") + 1:
        return b"", 0
    told = _xing_frame(header, sounding)
    if frames < 2 or told is None:
        return b"", 0
    return encoded.at(0, start) + told, start + first[0] if tag else start


def _after_id3(encoded: _Bytes) -> int:
    at = 0
    while (tag := encoded.at(at, 10))[:3] == b"ID3" and len(tag) == 10:
        size = 0
        for byte in tag[6:]:
            size = size << 7 | byte & 0x7F
        at += 10 + size
    return at


def _count_frames(encoded: _Bytes, at: int) -> int:
    """The frames from there on, whatever stands between them.

    Raises:
        ValueError: the last one is not whole.
    """
    sync = encoded.at(at, 2)
    frames = 0
    while at >= 0:
        frame = _mpeg_frame(encoded.at(at, 4))
        if frame is None:
            at = _next_frame(encoded, sync, at)
        elif at + frame[0] > encoded.size:
            raise ValueError("truncated audio")
        else:
            frames, at = frames + 1, at + frame[0]
    return frames


def _next_frame(encoded: _Bytes, sync: bytes, at: int) -> int:
    """Where the sound goes on behind something else (a tag, damage): at the first frame with another or nothing behind it; -1:
    it does not.
    """
    while (at := encoded.find(sync, at)) >= 0:
        frame = _mpeg_frame(encoded.at(at, 4))
        if frame is not None and (at + frame[0] == encoded.size or encoded.at(at + frame[0], 2) == sync):
            return at
        at += 1
    return -1


def _mpeg_frame(header: bytes) -> tuple[int, int] | None:
    """Bytes and samples of the layer III frame that begins with these four bytes; None: none does."""
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
        frame = _mpeg_frame(made)
        if frame is not None and frame[0] >= 4 + side + 12:
            content = made + bytes(side) + b"Xing" + struct.pack(">II", 1, frames)
            return content + bytes(frame[0] - len(content))
    return None
