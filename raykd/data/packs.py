"""Which utterances are put together to one window, and how their mels and labels become one. Pure functions.

distil-large-v3 and Whisper's own training hear 30 s at a time: neighbours of one recording, one after the other, with the times
of the parts in the labels of some windows and what was said before in front of others. Ours: what a draw decides follows from
the pack alone, so that every epoch, worker and cache has the same; a part takes a whole number of Whisper's time steps.

Shapes: M mel channels, F frames, P utterances of a split.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raykd.config.data import PackConfig
from raykd.data.corpus import Index, Utterance
from raykd.data.format import SAMPLE_RATE
from raykd.data.mel import DYNAMIC_RANGE, HOP
from raykd.data.text import LabelEncoder

STEP_FRAMES = 2
"""Frames of Whisper's time step, 20 ms."""
_TIMES = 2
"""Timestamps of a part: begin and end."""


@dataclass(frozen=True)
class Room:
    """What a pack can hold."""

    frames: int
    tokens: int
    """Of the whole sequence; a prompt takes what the labels leave."""
    prompt: int
    """Of what was said before at most, with the token that begins it."""


@dataclass
class Pack:
    """Utterances that are heard one after the other, as positions in the index."""

    positions: list[int]
    before: list[int] = field(default_factory=list)
    """What precedes the first of them in its recording, the nearest last."""


def plan_packs(index: Index, room: Room, prefix_tokens: int) -> list[Pack]:
    """Packs of all utterances, each in one pack.

    Utterances of one language and recording (a recording, a speaker or a folder) follow each other by their time in it, else by
    id, and fill pack after pack. What is left of each recording at its end is then put together with other remains of its
    language.
    """
    frames_P, tokens_P = part_frames(index.duration_s), index.n_tokens - prefix_tokens
    recordings = ["" if one is None else one for one in index.recordings]
    starts = np.nan_to_num(index.start_s.astype(np.float64), nan=-1.0)

    def whole(position: int) -> tuple[str, str]:
        return index.languages[position], recordings[position]

    def fits(positions: Sequence[int]) -> bool:
        tokens = prefix_tokens + 1 + int(tokens_P[positions].sum()) + _TIMES * len(positions)
        return int(frames_P[positions].sum()) <= room.frames and tokens <= room.tokens

    in_order = sorted(range(len(index)), key=lambda at: (*whole(at), starts[at], index.ids[at]))
    full: list[Pack] = []
    remains: dict[str, list[Pack]] = {}
    for (language, recording), members in groupby(in_order, key=whole):
        *done, rest = _filled([[one] for one in members], fits)
        packs = [Pack(positions) for positions in (*done, rest)]
        if recording:
            _look_back(packs, room.prompt)
        full += packs[:-1]
        remains.setdefault(language, []).append(packs[-1])
    for of_language in remains.values():
        before = {pack.positions[0]: pack.before for pack in of_language}
        together = _filled([pack.positions for pack in of_language], fits)
        full += [Pack(positions, before[positions[0]]) for positions in together]
    return full


def _filled(pieces: Sequence[list[int]], fits: Any) -> list[list[int]]:
    """The pieces in their order, as many together as fit."""
    found: list[list[int]] = []
    for piece in pieces:
        if found and fits([*found[-1], *piece]):
            found[-1] += piece
        else:
            found.append(list(piece))
    return found


def _look_back(packs: Sequence[Pack], most: int) -> None:
    """Tell each pack of a recording what was said before it, as far as a prompt reaches."""
    said: list[int] = []
    for pack in packs:
        pack.before = said
        said = [*said, *pack.positions][-most:]


def part_frames(duration_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Frames that a part takes: those that its samples reach, up to the next time step."""
    samples = np.rint(np.asarray(duration_s) * SAMPLE_RATE).astype(np.int64)
    frames = -(-samples // HOP)
    return frames + frames % STEP_FRAMES


def pack_id(ids: Sequence[str]) -> str:
    """Name of the pack of some utterances; of one alone its own."""
    if len(ids) == 1:
        return ids[0]
    return f"pack-{hashlib.blake2b(repr(list(ids)).encode(), digest_size=8).hexdigest()}"


def reads_before(name: str, config: PackConfig) -> bool:
    """Whether a pack has what was said before it as its prompt."""
    return _draw(name, "previous text") < config.previous_text


def joined(
    parts: Sequence[Utterance], before: Sequence[Utterance], room: Room, encoder: LabelEncoder, config: PackConfig
) -> Utterance:
    """One utterance out of several of one language, with what was said before as its prompt."""
    name, language = pack_id([part.id for part in parts]), parts[0].language
    prefix = len(encoder.prefix(language))
    frames = part_frames(np.array([part.duration_s for part in parts]))
    with_times = _draw(name, "timestamps") < config.timestamps
    body = _body(parts, frames, prefix, encoder.timestamp_id if with_times else None)
    main = [*encoder.prefix(language, with_times), *body, encoder.eot_id]
    said = [token for utterance in before for token in _text_tokens(utterance, prefix)]
    space = min(room.prompt, room.tokens - len(main)) - 1
    prompt = [encoder.previous_id, *said[-space:]] if said and space > 0 else []
    return Utterance(
        id=name,
        language=language,
        text=encoder.between_texts(language).join(part.text for part in parts),
        duration_s=sum(part.duration_s for part in parts),
        mel=joined_mel([part.mel for part in parts], frames, room.frames),
        tokens=[*prompt, *main],
        n_prompt=len(prompt),
    )


def _text_tokens(utterance: Utterance, prefix: int) -> list[int]:
    return utterance.tokens[prefix:-1]


def _body(parts: Sequence[Utterance], frames: NDArray[np.int64], prefix: int, timestamp_id: int | None) -> Iterator[int]:
    """Text tokens; with `timestamp_id` (that of 0.00) each part between the times of its begin and its end."""
    time = 0
    for part, length in zip(parts, frames, strict=True):
        if timestamp_id is not None:
            yield timestamp_id + time
        yield from _text_tokens(part, prefix)
        time += int(length) // STEP_FRAMES
        if timestamp_id is not None:
            yield timestamp_id + time


def joined_mel(mels: Sequence[NDArray[np.float16]], frames: NDArray[np.int64], most: int) -> NDArray[np.float16]:
    """mel_MF of parts one after the other, as Whisper's extractor has it for their samples one after the other.

    Exact to float16 but for two frames at each border, which reach over it: the extractor cuts everything at a distance from
    the loudest value, and the loudest of all parts is that of the pack.
    """
    cut = [_cut(mel_MF, int(length)) for mel_MF, length in zip(mels[:-1], frames[:-1], strict=True)]
    whole_MF = np.concatenate([*cut, mels[-1]], axis=1)[:, :most]
    return np.maximum(whole_MF, whole_MF.max() - np.float16(DYNAMIC_RANGE))


def _cut(mel_MF: NDArray[np.float16], frames: int) -> NDArray[np.float16]:
    """So many frames; what is missing holds the quietest value."""
    missing = frames - mel_MF.shape[1]
    if missing <= 0:
        return mel_MF[:, :frames]
    return np.pad(mel_MF, ((0, 0), (0, missing)), constant_values=mel_MF.max() - np.float16(DYNAMIC_RANGE))


def _draw(name: str, what: str) -> float:
    """A number from 0 to 1 that follows from the pack."""
    digest = hashlib.blake2b(f"{what}\0{name}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") / 2**56
