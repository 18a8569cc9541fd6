"""Demo corpora: sentences of the grammars, spoken and recorded, as Parquet shards with utterance columns.

An utterance is a pure function of its id, whatever the hours, the shards and the machines. A sentence belongs to one split
(`demo.held_out.pool`); sentences come back, spoken otherwise, once all of a split have been used. test_ood has kinds and
voices of its own, and a room with noise; test_words has the words that were held out.
"""

import hashlib
import io
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import soundfile

from raykd.config.data import DemoSource
from raykd.data import utterances
from raykd.data.demo.effects import in_room, recorded, with_noise
from raykd.data.demo.grammar import KINDS, UNSEEN_KINDS
from raykd.data.demo.held_out import TEST_WORDS, pool, random_of
from raykd.data.demo.languages import GRAMMARS
from raykd.data.demo.speech import UNSEEN_VARIANTS, VARIANTS, Voice, speak
from raykd.data.format import SAMPLE_RATE
from raykd.errors import UserError
from raykd.storage import exists, join, list_dir, read_bytes, write_bytes, write_text

SPLITS = ("train", "dev", "test", "test_ood")
_COLUMNS = ("id", "audio", "path", "text", "language", "duration_s", "split")
SCHEMA = pa.schema([*(utterances.SCHEMA.field(name) for name in _COLUMNS), ("kind", pa.string()), ("voice", pa.string())])
_COMMIT_MARK = "demo.json"
_SHARD_S = 300.0
_SCORED_SHARE = 0.05
_LEAST_SCORED_S, _LEAST_SCORED_S_PER_LANGUAGE, _MOST_SCORED_S_PER_LANGUAGE = 250.0, 60.0, 600.0


@dataclass(frozen=True)
class Shard:
    """One Parquet file: utterances of a split until they last `seconds`."""

    split: str
    number: int
    of: int
    seconds: float

    @property
    def name(self) -> str:
        """File name, such as `train-00003-of-00012.parquet`."""
        return f"{self.split}-{self.number:05d}-of-{self.of:05d}.parquet"


def ensure_demo_corpus(source: DemoSource, cache_dir: str) -> str:
    """The cached folder of the corpus's Parquet shards, written if it is not complete.

    Raises:
        UserError: as `write_demo_corpus`.
    """
    folder = demo_corpus_dir(source, cache_dir)
    write_demo_corpus(source, folder)
    return folder


def demo_corpus_dir(source: DemoSource, cache_dir: str) -> str:
    """Where `ensure_demo_corpus` keeps a corpus: a folder named by its settings and by the code that makes it."""
    key = hashlib.sha256(json.dumps(_settings(source), sort_keys=True).encode()).hexdigest()[:16]
    return join(cache_dir, "demo", key)


def write_demo_corpus(source: DemoSource, out: str) -> dict[str, dict[str, float]]:
    """Write the corpus into a folder, on Ray's workers when Ray is initialised; a complete corpus of these settings is kept.

    Returns:
        split -> {"utterances", "hours"}.

    Raises:
        UserError: unknown language or kind; `out` holds something else or cannot be written.
    """
    check_source(source)
    settings, mark = _settings(source), join(out, _COMMIT_MARK)
    if exists(mark):
        written = json.loads(read_bytes(mark))
        if written["settings"] != settings:
            raise UserError(f"{out}: holds demo speech with other settings; remove the folder or give another one")
        return written["splits"]
    shards = plan_shards(source)
    splits = {split: {"utterances": 0.0, "hours": 0.0} for split in splits_of(source)}
    try:
        strange = {name for name in list_dir(out) if name.endswith(".parquet")} - {shard.name for shard in shards}
        if strange:
            raise UserError(f"{out}: holds {min(strange)}, which is not of this corpus; remove it or give another folder")
        for shard, table in zip(shards, _tables(source, shards), strict=True):
            buffer = io.BytesIO()
            pq.write_table(table, buffer, compression="none")
            write_bytes(join(out, shard.name), buffer.getvalue())
            splits[shard.split]["utterances"] += len(table)
            splits[shard.split]["hours"] += sum(table["duration_s"].to_pylist()) / 3600
        write_text(mark, json.dumps({"settings": settings, "splits": splits}, indent=2))
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error}); give a folder you can write to") from None
    return splits


def splits_of(source: DemoSource) -> tuple[str, ...]:
    """The splits of a corpus."""
    return (*SPLITS, TEST_WORDS) if source.held_out_words else SPLITS


def check_source(source: DemoSource) -> None:
    """Refuse languages and kinds that there are not, and a share of held-out words that leaves a split empty.

    Raises:
        UserError: names what is wrong and what to choose instead.
    """
    for key, given, known in (("languages", source.languages, tuple(GRAMMARS)), ("kinds", source.kinds, KINDS)):
        unknown = [name for name in given if name not in known]
        if unknown:
            raise UserError(f"data.source.{key}: demo speech has no {', '.join(unknown)}; choose from {', '.join(known)}")
    if not source.held_out_words:
        return
    key, kinds = f"data.source.held_out_words: {source.held_out_words:g}", source.kinds or KINDS
    for language in source.languages:
        for kind in kinds:
            if not all(len(_pool(source, split, language, kind)) for split in ("train", "dev", "test")):
                raise UserError(f"{key} leaves too few {language} sentences of kind {kind}; hold out a smaller share")
        if not any(len(_pool(source, TEST_WORDS, language, kind)) for kind in kinds):
            raise UserError(f"{key} holds out no {language} word of the kinds {', '.join(kinds)}; hold out a larger share")


def plan_shards(source: DemoSource) -> list[Shard]:
    """The shards of a corpus: `hours` of train, and a twentieth of that for each other split, but neither few nor many."""
    n_languages = len(set(source.languages))
    train_s = 3600 * source.hours
    scored_s = max(_SCORED_SHARE * train_s, _LEAST_SCORED_S, n_languages * _LEAST_SCORED_S_PER_LANGUAGE)
    scored_s = min(scored_s, n_languages * _MOST_SCORED_S_PER_LANGUAGE, train_s)
    shards = []
    for split in splits_of(source):
        seconds = train_s if split == "train" else scored_s
        of = math.ceil(seconds / _SHARD_S)
        shards += [Shard(split, number, of, seconds / of) for number in range(of)]
    return shards


def shard_table(source: DemoSource, shard: Shard) -> pa.Table:
    """The utterances of a shard, with `SCHEMA`: a pure function of its arguments."""
    rows: list[dict[str, Any]] = []
    seconds = 0.0
    for language, kind, item in _items(source, shard):
        if seconds >= shard.seconds:
            break
        rows.append(make_utterance(source.seed, shard.split, language, kind, item, source.held_out_words))
        seconds += rows[-1]["duration_s"]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def make_utterance(seed: int, split: str, language: str, kind: str, item: int, held_out: float = 0.0) -> dict[str, Any]:
    """One spoken sentence as a row of `SCHEMA`; `item` counts the utterances of a language and kind within the split."""
    series = f"demo{seed}" + (f"-without-{held_out:g}" if held_out else "")
    identity = f"{series}-{language}-{split}-{kind}-{item:06d}"
    rng = random_of(identity)
    unseen = split == "test_ood"
    sentences = pool(seed, split, language, kind, held_out)
    text = GRAMMARS[language].sentence(kind, int(sentences[item % len(sentences)]))
    voice = Voice(
        language=language,
        variant=str(rng.choice(UNSEEN_VARIANTS if unseen else VARIANTS)),
        rate=int(rng.integers(140, 191)),
        pitch=int(rng.integers(35, 66)),
        pitch_range=int(rng.integers(35, 66)),
    )
    samples_S = recorded(speak(text, voice), rng)
    if unseen:
        samples_S = with_noise(in_room(samples_S, rng), rng)
    flac = io.BytesIO()
    soundfile.write(flac, np.clip(samples_S, -1, 1), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return {
        "id": identity,
        "audio": flac.getvalue(),
        "path": None,
        "text": text,
        "language": language,
        "duration_s": len(samples_S) / SAMPLE_RATE,
        "split": split,
        "kind": kind,
        "voice": voice.name,
    }


def _items(source: DemoSource, shard: Shard) -> Iterator[tuple[str, str, int]]:
    """Language, kind and item number of a shard's utterances, without end: all pairs in turn, no number in two shards.

    Each shard starts at another pair, so that the pairs come out even although shards end within a turn.
    """
    kinds = UNSEEN_KINDS if shard.split == "test_ood" else source.kinds or KINDS
    pairs = [(language, kind) for kind in dict.fromkeys(kinds) for language in dict.fromkeys(source.languages)]
    if shard.split == TEST_WORDS:  # not every kind has a held-out word
        pairs = [(language, kind) for language, kind in pairs if len(_pool(source, TEST_WORDS, language, kind))]
    start = shard.number * len(pairs) // shard.of
    for turn in itertools.count():
        for language, kind in pairs[start:] + pairs[:start]:
            yield language, kind, shard.number + shard.of * turn


def _pool(source: DemoSource, split: str, language: str, kind: str) -> np.ndarray:
    return pool(source.seed, split, language, kind, source.held_out_words)


def _tables(source: DemoSource, shards: list[Shard]) -> Iterator[pa.Table]:
    """The tables of the shards, in order; with Ray a few of them at a time are made ahead."""
    if not ray.is_initialized():
        yield from (shard_table(source, shard) for shard in shards)
        return
    task = ray.remote(scheduling_strategy="DEFAULT")(shard_table)  # also inside of a Ray Tune trial, whose bundles have no room
    ahead = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    futures = [task.remote(source, shard) for shard in shards[:ahead]]
    for number in range(len(shards)):
        table = ray.get(futures.pop(0))
        if number + ahead < len(shards):
            futures.append(task.remote(source, shards[number + ahead]))
        yield table


def _settings(source: DemoSource) -> dict[str, Any]:
    """Everything that a corpus depends on: what was asked for, the code here, and the packages that spell and speak."""
    folder = Path(__file__).parent
    code = hashlib.sha256()
    for file in sorted(folder.glob("**/*.py")):
        code.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    packages = {name: version(name) for name in ("espeakng-loader", "num2words")}
    return {"source": source.model_dump(mode="json"), "code": code.hexdigest(), "packages": packages}
