"""Awkward files, tables, names and configs by the hundred, each with a known truth: right, refused well, or wrong.

    python benchmarks/torture.py [--seed 0] [--cases 400] [--only audio tables splits labels configs]

Each case is drawn at random from its family. *Right*: what raykd reads is the truth. *Refused*: one of raykd's own errors, or a
reject with its reason. *Wrong*: anything else, read without a word and not the truth, a traceback, or no answer in 20 s; it is
printed. Families:

- audio: a known sound in a container, rate, width and number of channels, then damaged (cut off, headers that lie, NaN, scaled,
  turned round, bytes behind the end). Cut or emptied files must be refused: what is left is not what was said.
- tables: known sentences in CSV, TSV or JSONL as programs write them (separators, quotes, encodings, line ends, `sep=`, gzip).
- splits: names a person gives to splits.
- labels: transcripts with what was not spoken in them.
- configs: a shipped config with one value changed at random; accepted or refused in lines that name a key or a file.
"""

import argparse
import codecs
import contextlib
import copy
import csv
import gzip
import io
import json
import math
import random
import signal
import struct
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from raykd.config import load_config
from raykd.config.data import DataConfig
from raykd.config.yaml_text import from_yaml
from raykd.data.audio import AudioError, decode_audio
from raykd.data.markers import without_markers
from raykd.data.rejects import RejectedError
from raykd.data.sources import all_parts
from raykd.data.split_names import split_name
from raykd.errors import UserError
from raykd.preflight import check_run

RIGHT, REFUSED = "right", "refused"
_ANSWER_WITHIN_S = 20
Case = tuple[str, Callable[[], str]]
"""What it is, and a function that says `RIGHT`, `REFUSED` or what is wrong."""


class TooSlowError(BaseException):
    """No `Exception`: code that catches everything must not take it for a bad row."""


# --------------------------------------------------------------------------------------------------------------- audio

CONTAINERS = (
    ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "PCM_U8"), ("WAV", "FLOAT"), ("WAV", "ULAW"), ("WAVEX", "PCM_16"),
    ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16"), ("AU", "PCM_16"),
    ("CAF", "PCM_16"), ("RF64", "PCM_16"), ("W64", "PCM_16"),
)  # fmt: skip
"""As libsndfile writes them."""
MUST_REFUSE = {"cut", "nothing", "silence", "nan", "not audio"}
CAN_BE_HEARD = {"none", "size", "tail", "scale", "phase", "offset"}
DAMAGES = ("none", *sorted(MUST_REFUSE | CAN_BE_HEARD))


def audio_case(rng: random.Random) -> Case:
    """A sound of 1 to 3 s in some container, perhaps damaged."""
    container, subtype = rng.choice(CONTAINERS)
    rate = rng.choice((48_000, 16_000, 24_000)) if subtype == "OPUS" else rng.choice((8_000, 16_000, 22_050, 44_100, 48_000))
    damage = rng.choice(DAMAGES)
    channels, seconds, seed = rng.choice((1, 1, 2, 4)), rng.uniform(1, 3), rng.randrange(1 << 30)
    if damage == "phase":
        channels = 2
    if damage in {"nan", "scale"}:
        container, subtype = rng.choice((("WAV", "FLOAT"), ("AIFF", "FLOAT"), ("CAF", "DOUBLE")))
    if damage == "size":
        container = "WAV"
        subtype = "PCM_16"
    if container == "MP3":
        channels = min(2, channels)
    name = f"{container}/{subtype} {rate} Hz x{channels}, {damage}"

    def look() -> str:
        local = random.Random(seed)
        sound_S = _sound(rate, seconds, local)
        encoded = _damaged(_encoded(sound_S, rate, container, subtype, channels, damage, local), damage, local)
        try:
            heard_S = decode_audio(encoded)
        except AudioError:
            return "refused what can be heard" if damage in CAN_BE_HEARD else REFUSED
        if damage in MUST_REFUSE:
            return f"taken: {len(heard_S) / 16_000:.2f} s of {seconds:.2f} s"
        return _compared(heard_S, sound_S, rate)

    return name, look


def _sound(rate: int, seconds: float, rng: random.Random) -> np.ndarray:
    """Tones that come and go, below 3 kHz, so that every rate and codec carries them."""
    times_S = np.arange(int(seconds * rate)) / rate
    tones = [(rng.uniform(150, 1500), rng.uniform(0.5, 3), rng.uniform(0, 6)) for _ in range(3)]
    waves = [np.sin(2 * np.pi * pitch * times_S) * np.sin(2 * np.pi * beat * times_S + at) for pitch, beat, at in tones]
    return 0.2 * np.sum(waves, axis=0)


def _encoded(
    sound_S: np.ndarray, rate: int, container: str, subtype: str, channels: int, damage: str, rng: random.Random
) -> bytes:
    samples_SC = np.repeat(sound_S[:, None], channels, axis=1)
    if damage == "phase":
        samples_SC[:, 1] *= -1
    elif damage == "offset":
        samples_SC += 0.2
    elif damage == "silence":
        samples_SC[:] = 0
    elif damage == "scale":
        samples_SC *= rng.choice((2.0**15, 2.0**31))
    elif damage == "nan":
        samples_SC[rng.randrange(len(samples_SC))] = rng.choice((math.nan, math.inf))
    if damage == "nothing":
        samples_SC = samples_SC[:0]
    sink = io.BytesIO()
    soundfile.write(sink, samples_SC, rate, format=container, subtype=subtype)
    return sink.getvalue()


def _damaged(encoded: bytes, damage: str, rng: random.Random) -> bytes:
    if damage == "cut":
        return encoded[: int(len(encoded) * rng.uniform(0.2, 0.8))]
    if damage == "tail":
        return encoded + bytes(rng.randrange(256) for _ in range(rng.choice((1, 7, 128))))
    if damage == "not audio":
        return rng.choice((b"", b"\0" * 5000, b"<!DOCTYPE html><p>404</p>", encoded[100:] if len(encoded) > 200 else b"x"))
    if damage == "size":
        at = encoded.index(b"data") + 4
        real = len(encoded) - at - 4
        lie = rng.choice((0, 0xFFFFFFFF, 0x7FFFFFFF, real // 2, real // 3 * 2))
        return encoded[:at] + struct.pack("<I", lie) + encoded[at + 4 :]
    return encoded


def _compared(heard_S: np.ndarray, sound_S: np.ndarray, rate: int) -> str:
    seconds, wanted = len(heard_S) / 16_000, len(sound_S) / rate
    if abs(seconds - wanted) > 0.08:
        return f"{seconds:.2f} s heard of {wanted:.2f} s"
    truth_S = np.interp(np.arange(len(heard_S)) / 16_000, np.arange(len(sound_S)) / rate, sound_S)
    heard_S = heard_S - heard_S.mean()
    delays = range(-64, 1200, 8)  # codecs delay; 50 ms at either end are left out
    scores = [abs(np.corrcoef(np.roll(truth_S, delay)[800:-800], heard_S[800:-800])[0, 1]) for delay in delays]
    return RIGHT if max(scores) > 0.9 else f"another sound (correlation {max(scores):.2f})"


# -------------------------------------------------------------------------------------------------------------- tables

SENTENCES = (
    "seven boats lie still",
    'she said "go" now',
    "well, then",
    "it's l'été",
    "tab\there",
    "žluťoučký kůň",
    "semi;colon",
    "pipe|s",
    '"quoted"',
    "а літо",
    "one\u2028two",
    "100 % sure",
    "a\\b",
    "'single'",
    'ends with quote"',
    "=SUM(1)",
    "NULL",
    "nan",
    "true",
    "3.10",
    "007",
    "مرحبا",
    "你好",
    "é" * 40,
)
WITH_BOM = "utf-16-le with its mark"
HEADERS = (("audio", "text"), ("Audio", "Text"), ("PATH", "SENTENCE"), ("file_name", "transcription"), ("text", "audio"))


def table_case(rng: random.Random) -> Case:
    """Some sentences in a table of some kind, and what comes back."""
    kind = rng.choice(("csv", "tsv", "jsonl"))
    encoding = rng.choice(("utf-8", "utf-8-sig", "utf-16", WITH_BOM))
    ends, packed = rng.choice(("\n", "\r\n", "\r")), rng.random() < 0.25
    separator = "\t" if kind == "tsv" else rng.choice((",", ";", "|"))
    header = rng.choice(HEADERS)
    announced = kind == "csv" and rng.random() < 0.2
    extra = rng.random() < 0.4
    chosen = rng.sample(SENTENCES, k=rng.randint(2, 6))
    if kind == "jsonl":
        header = (header[0].lower(), header[1].lower())
        ends = "\n" if ends == "\r" else ends
        encoding = rng.choice(("utf-8", "utf-8-sig"))
    said = f"{' gz' if packed else ''}{' sep=' if announced else ''}"
    name = f"{kind} {separator!r} {encoding} {ends!r}{said}, {header}, {chosen}"

    def look() -> str:
        columns = [*header, "note"] if extra else list(header)
        rows = [
            {**{column: _cell(column, number, text) for column in header}, "note": "x,y;z"}
            for number, text in enumerate(chosen)
        ]
        if kind == "jsonl":
            written = "".join(json.dumps(row, ensure_ascii=False) + ends for row in rows)
        else:
            written = (f"sep={separator}{ends}" if announced else "") + _csv(columns, rows, separator, ends)
        data = codecs.BOM_UTF16_LE + written.encode("utf-16-le") if encoding == WITH_BOM else written.encode(encoding)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"rows.{kind}{'.gz' if packed else ''}")
            path.write_bytes(gzip.compress(data) if packed else data)
            config = DataConfig.model_validate({"source": str(path), "language": "en"})
            read = [row for part in all_parts(config) for row in part.rows()]
        problems = [row["problem"] for row in read]
        if len(read) != len(chosen) or any(
            not problem and _plain(row["text"]) != _plain(text)
            for row, text, problem in zip(read, chosen, problems, strict=True)
        ):
            return f"{[row['text'] for row in read]}"
        return REFUSED if any(problems) else RIGHT

    return name, look


def _plain(text: str | None) -> str:
    return " ".join((text or "").split())


def _cell(column: str, number: int, text: str) -> str:
    return text if column.lower() in {"text", "sentence", "transcription"} else f"{number}.wav"


def _csv(columns: list[str], rows: list[dict[str, str]], separator: str, ends: str) -> str:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, columns, delimiter=separator, lineterminator=ends, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue()


# ------------------------------------------------------------------------------------------------------ splits, labels

WORDS = {
    "train": ("train", "training", "trn"),
    "dev": ("dev", "valid", "validation", "val", "development"),
    "test": ("test", "eval", "evaluation", "tst", "holdout"),
}


def split_case(rng: random.Random) -> Case:
    """The name of a split with something around it."""
    split = rng.choice(sorted(WORDS))
    word = rng.choice(WORDS[split])
    word = rng.choice((word, word.upper(), word.capitalize()))
    before = rng.choice(("", "", "my_", "cv-", "clean.", "2024 ", "en_"))
    after = rng.choice(("", "", "_clean", "-other", ".clean", "2", "_100h", " set", "_v2", "-00000-of-00003"))
    other = rng.choice(sorted(set(WORDS) - {split}))
    both = rng.random() < 0.15
    name = f"{before}{word}{after}" + (f"_{rng.choice(WORDS[other])}" if both else "")

    def look() -> str:
        found = split_name(name)
        if both:
            return REFUSED if found is None else f"taken for {found}"
        return RIGHT if found == split else f"taken for {found}"

    return f"split {name!r}", look


MARKS = ("[noise]", "(laughter)", "<unk>", "<|0.00|>", "<|en|>", "[ music ]", "<NOISE>", "(inaudible)", "[laugh]", "<sil>")
POINTS = {"<COMMA>": ",", "<PERIOD>": ".", "<QUESTIONMARK>": "?", "<EXCLAMATIONPOINT>": "!"}


def label_case(rng: random.Random) -> Case:
    """Words with marks between them, of which only the words were said."""
    words = rng.sample(("seven", "boats", "lie", "still", "the", "lamp", "is", "on"), k=rng.randint(2, 5))
    cells: list[str] = []
    for word in words:
        if rng.random() < 0.4:
            cells.append(rng.choice(MARKS))
        cells.append(word)
        if rng.random() < 0.2:
            cells.append(rng.choice(sorted(POINTS)))
    text = " ".join(cells)

    def look() -> str:
        try:
            left = without_markers(text)
        except RejectedError:
            return REFUSED
        said = " ".join(left.translate({ord(point): None for point in POINTS.values()}).split())
        return RIGHT if said == " ".join(words) else f"{left!r}"

    return f"label {text!r}", look


# ------------------------------------------------------------------------------------------------------------- configs

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1e39, math.inf, math.nan, 2**64, 10**30, "", " ", "x" * 300, "a\0b", "\x1b[2J", "[z-a]",
    "../..", "/", "/dev/null", [], {}, [[]], [None], {"a": 1}, {"kind": "x"}, "demo", "hf:", "s3://", "http://u:p@h", "ß",
    "é" * 50, -0.0, 1e-45, "1e5", "~", "null", [1, 2, 3], {"start": 1}, {"kind": "linear", "start": 1, "end": -1}, 1 <<
    63, "cs", "xx", ["cs", "cs"], "teacher.yaml", "configs/quickstart.yaml", 3.5, [1, "a"], {"": 1}, {None: 1},
)  # fmt: skip
CONFIGS = Path(__file__).parents[1] / "configs"
OTHERS = ("compare_", "sweep_", "mlm")
RUN_CONFIGS = sorted(path for path in CONFIGS.glob("*.yaml") if not any(word in path.name for word in OTHERS))


def config_case(rng: random.Random) -> Case:
    """A shipped config of a run with one place changed."""
    path = rng.choice(RUN_CONFIGS)
    tree = from_yaml(path.read_text(encoding="utf-8"), str(path))
    places = list(_places(tree))
    place, change, value = rng.choice(places), rng.random(), copy.deepcopy(rng.choice(VALUES))
    holder: Any = tree
    for step in place[:-1]:
        holder = holder[step]
    if change < 0.1:
        del holder[place[-1]]
    elif change < 0.2 and isinstance(holder, dict):
        holder[f"{place[-1]}x"] = 1
    else:
        holder[place[-1]] = value
    name = f"{path.name}: {'.'.join(map(str, place))} = {value!r}" + (" (gone)" if change < 0.1 else "")

    def look() -> str:
        import yaml

        with tempfile.TemporaryDirectory() as folder:
            tree["output_dir"] = f"{folder}/runs"
            if isinstance(tree.get("data"), dict):
                tree["data"].setdefault("cache_dir", f"{folder}/cache")
            mutated = CONFIGS / f".torture-{place[-1]!s:.20}.yaml".replace("/", "_")  # beside the configs that it names
            mutated.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
            try:
                check_run(load_config(str(mutated)), resume=False)
            except UserError as error:
                return REFUSED if all(":" in line or ";" in line for line in str(error).splitlines()) else f"says only {error}"
            finally:
                mutated.unlink()
        return RIGHT

    return name, look


def _places(tree: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*above, key)
        yield from _places(value, (*above, key))


FAMILIES: dict[str, Callable[[random.Random], Case]] = {
    "audio": audio_case,
    "tables": table_case,
    "splits": split_case,
    "labels": label_case,
    "configs": config_case,
}


def verdict_of(look: Callable[[], str]) -> str:
    """What comes of a case: its own word, or that it broke."""
    signal.alarm(_ANSWER_WITHIN_S)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return look()
    except UserError:
        return REFUSED
    except TooSlowError:
        return f"no answer in {_ANSWER_WITHIN_S} s"
    except Exception as error:
        return f"traceback: {''.join(traceback.format_exception_only(error)).strip()[:200]}"
    finally:
        signal.alarm(0)


def _too_slow(*_: object) -> None:
    raise TooSlowError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=400, help="of each family (default 400)")
    parser.add_argument("--only", nargs="+", choices=sorted(FAMILIES), default=sorted(FAMILIES))
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, _too_slow)
    console = Console(width=150)
    table = Table(box=MARKDOWN)
    for heading in ("family", "cases", "right", "refused", "wrong"):
        table.add_column(heading, justify="left" if heading == "family" else "right")
    wrong = 0
    for family in options.only:
        rng = random.Random(f"{family}-{options.seed}")
        counts: Counter[str] = Counter()
        for _ in range(options.cases):
            name, look = FAMILIES[family](rng)
            verdict = verdict_of(look)
            counts[verdict if verdict in {RIGHT, REFUSED} else "wrong"] += 1
            if verdict not in {RIGHT, REFUSED}:
                console.print(f"WRONG  {name}: {verdict}", markup=False, highlight=False, soft_wrap=True)
        wrong += counts["wrong"]
        table.add_row(family, *(str(number) for number in (options.cases, counts[RIGHT], counts[REFUSED], counts["wrong"])))
    console.print(table)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
