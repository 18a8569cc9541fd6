"""What a prepared corpus is, for who is about to train on it: columns, splits, a few utterances, and what looks wrong."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raykd.config.data import DataConfig
from raykd.data.columns import (
    DURATION_COLUMNS,
    END_COLUMNS,
    OFFSET_COLUMNS,
    ONSET_COLUMNS,
    RECORDING_COLUMNS,
    SPLIT_COLUMNS,
    START_COLUMNS,
)
from raykd.data.corpus import Corpus, Index, read_utterances
from raykd.data.format import SpeechFormat
from raykd.data.sources import all_parts
from raykd.data.sources.part import Part
from raykd.data.splits import split_warnings
from raykd.data.text import LabelEncoder
from raykd.data.utterances import Origin

_EXAMPLES = 5
_SHORT = 0.1
"""Share of the window below which utterances pay for silence."""
_TEXT = 100


def look_at(corpus: Corpus, config: DataConfig, speech_format: SpeechFormat, needs_text: bool = True) -> list[str]:
    """Lines for the terminal. `needs_text`: whether every row must have a transcript."""
    encoder = LabelEncoder(speech_format.tokenizer, speech_format.tokenizer_revision)
    lines = [f"  source   {line}" for line in dict.fromkeys(map(_columns_of, all_parts(config, needs_text))) if line]
    for name, split in corpus.summary["splits"].items():
        languages = ", ".join(f"{code} {of['utterances']}" for code, of in split["languages"].items())
        lines.append(f"  split    {name}: {split['utterances']} utterances, {split['hours']:.2f} h ({languages})")
    lines += [f"  reject   {reason}: {count} rows" for reason, count in corpus.summary["rejects"].items()]
    lines += [f"  such as  {line}" for line in _examples(corpus, encoder)]
    return lines + [f"  WARNING  {warning}" for warning in warnings_of(corpus, config, speech_format)]


def warnings_of(corpus: Corpus, config: DataConfig, speech_format: SpeechFormat) -> list[str]:
    """What can be seen to be wrong with the data, or to be not what it seems."""
    found = list(corpus.summary.get("warnings", ()))
    guessed = [name for name in ("dev", *config.test_splits) if name in corpus.summary.get("guessed", ())]
    if guessed:
        found.append(
            f"the source names no {' and no '.join(guessed)}: cut from train by the hash of the id (data.dev_share); the same "
            "speakers and sentences may be in both"
        )
    found += split_warnings({name: split["utterances"] for name, split in corpus.summary["splits"].items()}, config)
    if "train" in corpus.splits and config.pack is None:
        mean_s = float(np.mean(corpus.index("train").duration_s))
        if mean_s < _SHORT * speech_format.window_s:
            found.append(
                f"utterances have {mean_s:.1f} s of a window of {speech_format.window_s:g} s; data.pack puts them together, "
                "student.window: clip makes the student hear no more than they have"
            )
    return found


def _columns_of(part: Part) -> str:
    """Which columns a source's file gives what; empty where it has none."""
    inner: Any = part
    while hasattr(inner, "part"):
        inner = inner.part
    origin, file = getattr(inner, "origin", None), getattr(inner, "file", None)
    if not isinstance(origin, Origin) or file is None:
        return ""
    dialect = getattr(inner, "dialect", None)
    columns = getattr(inner, "columns", None) or (dialect.columns if dialect else None) or _keys_of(inner)
    taken = [f"{role} from {column}" for role, column in _roles(origin, columns).items()]
    left = [column for column in columns if column not in origin.known(columns)]
    rest = f"; not used: {', '.join(left[:8])}{' ...' if len(left) > 8 else ''}" if left else ""
    return f"{file.path}: {', '.join(taken) or 'files'}{rest}"


def _keys_of(part: Any) -> Sequence[str]:
    """Of the first rows of a JSON manifest."""
    peek = getattr(part, "first_keys", None)
    return peek() if peek is not None else ()


def _roles(origin: Origin, columns: Sequence[str]) -> Mapping[str, str]:
    roles = {
        "audio": origin.audio_columns,
        "text": origin.text_columns,
        "language": origin.language_columns,
        "split": SPLIT_COLUMNS,
        "id": origin.id_columns,
        "start": (*START_COLUMNS, *ONSET_COLUMNS, *OFFSET_COLUMNS),
        "end": END_COLUMNS,
        "duration": DURATION_COLUMNS,
        "recording": RECORDING_COLUMNS,
    }
    spelled = {origin.name_of(column): column for column in columns}
    named = {ours: theirs for theirs, ours in origin.renamed}
    found = {}
    for role, known in roles.items():
        column = next((named[name] for name in known if name in named), None)
        column = column or next((spelled[name] for name in known if name in spelled), None)
        if column is not None:
            found[role] = column
    return found


def _examples(corpus: Corpus, encoder: LabelEncoder) -> list[str]:
    split = "train" if "train" in corpus.splits else next(iter(corpus.splits))
    index: Index = corpus.index(split)
    positions = np.unique(np.linspace(0, len(index) - 1, min(_EXAMPLES, len(index))).round().astype(int))
    lines = []
    for utterance in read_utterances(corpus.path, index, positions):
        said = encoder.decode(utterance.tokens)
        same = "" if said == utterance.text else f", as tokens {json.dumps(said[:_TEXT], ensure_ascii=False)}"
        text = json.dumps(utterance.text[:_TEXT], ensure_ascii=False)
        lines.append(f"{utterance.id}: {utterance.duration_s:.2f} s, {utterance.language}, {text}{same}")
    return lines
