"""Real text as speech: what a student that has to spell is trained and tested on, without recordings.

    python benchmarks/spoken_text.py SENTENCES.txt OUT [--other MORE.txt ...] [--words 2] [--variants f5 ...] [--train 1500]

The sentences are cut into pieces of `--words` words, which eSpeak NG speaks in the voices of `--variants`. OUT/speech.parquet
is a manifest for `data.source` with the splits train, dev, test and test_words; OUT/text/ has the `--other` texts, for a masked
language model; OUT/words.txt has the words of both, for `evaluation.vocabulary`. A piece of `test_words` has a word of the
other texts that is not in training speech. All text is as Whisper's basic normaliser leaves it: small letters, no punctuation.
"""

import argparse
import hashlib
import io
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from raykd.data.demo.effects import recorded
from raykd.data.demo.held_out import random_of
from raykd.data.demo.speech import Voice, speak
from raykd.data.format import SAMPLE_RATE
from raykd.evaluation.normalize import normalizer_for

SHARES = {"test": 0.03, "dev": 0.01}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sentences", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--language", default="cs")
    parser.add_argument("--words", type=int, default=2)
    parser.add_argument(
        "--variants", nargs="*", default=["", "f2", "m3", "f4"], help="eSpeak's voices, '' for the language's own"
    )
    parser.add_argument("--train", type=int, help="most utterances of training speech")
    parser.add_argument("--other", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    (options.out / "text").mkdir(parents=True, exist_ok=True)
    written: set[str] = set()
    for path in options.other:
        lines = normalized(path, options.language)
        (options.out / "text" / path.name).write_text("".join(f"{line}\n" for line in lines))
        written |= words_of(lines)
    splits = {piece: split_of(piece) for piece in pieces(normalized(options.sentences, options.language), options.words)}
    if options.train is not None:
        beyond = set([piece for piece in splits if splits[piece] == "train"][options.train :])
        splits = {piece: split for piece, split in splits.items() if piece not in beyond}
    heard = words_of(piece for piece, split in splits.items() if split == "train")
    for piece, split in splits.items():
        if split == "test" and words_of([piece]) & (written - heard):
            splits[piece] = "test_words"
    (options.out / "words.txt").write_text("".join(f"{word}\n" for word in sorted(written | words_of(splits))))
    with ProcessPoolExecutor() as pool:
        speaking = partial(utterance, language=options.language, variants=options.variants)
        rows = list(pool.map(speaking, splits, splits.values(), chunksize=64))
    pq.write_table(pa.Table.from_pylist(rows), options.out / "speech.parquet", row_group_size=256)
    print(f"text: {len(written)} words")
    for split in sorted(set(splits.values())):
        texts = [row["text"] for row in rows if row["split"] == split]
        unheard = words_of(texts) - heard
        print(f"{split}: {len(texts)} utterances, {len(words_of(texts))} words, {len(unheard)} of them not in training speech")


def normalized(path: Path, language: str) -> list[str]:
    _, normalize = normalizer_for("auto", language)
    return [normalize(line) for line in path.read_text().splitlines()]


def pieces(lines: Iterable[str], size: int) -> Iterable[str]:
    """Each line's words in pieces of `size`; what is left over is not used."""
    for words in map(str.split, lines):
        for start in range(0, len(words) - size + 1, size):
            yield " ".join(words[start : start + size])


def words_of(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in text.split()}


def split_of(piece: str) -> str:
    number = int.from_bytes(hashlib.blake2b(piece.encode(), digest_size=8).digest()) / 2**64
    return "test" if number < SHARES["test"] else "dev" if number < sum(SHARES.values()) else "train"


def utterance(text: str, split: str, language: str, variants: Sequence[str]) -> dict[str, Any]:
    rng = random_of(text)
    rate, pitch = int(rng.integers(155, 176)), int(rng.integers(45, 56))
    voice = Voice(language, str(rng.choice(variants)), rate, pitch)
    flac = io.BytesIO()
    soundfile.write(flac, recorded(speak(text, voice), rng).clip(-1, 1), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return {"audio": flac.getvalue(), "text": text, "language": language, "split": split}


if __name__ == "__main__":
    main()
