"""Real sentences as speech: what a student that has to spell is trained and tested on, without recordings.

    python benchmarks/spoken_text.py SENTENCES.txt OUT [--language cs] [--most-words 6] [--other MORE.txt ...]

Lines of 2 to `--most-words` words are spoken by eSpeak NG in four voices. OUT/speech.parquet is a manifest for `data.source`
with the splits train, dev, test and test_words; OUT/text/ has all other lines and the `--other` files, for a masked language
model that has not read what is spoken. A sentence of `test_words` has a word that is in that text and not in training speech.
"""

import argparse
import hashlib
import io
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from transformers.models.whisper.english_normalizer import BasicTextNormalizer

from raykd.data.demo.effects import recorded
from raykd.data.demo.held_out import random_of
from raykd.data.demo.speech import Voice, speak
from raykd.data.format import SAMPLE_RATE

VARIANTS = ("", "f2", "m3", "f4")
TENTH = 2**64 // 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sentences", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--language", default="cs")
    parser.add_argument("--most-words", type=int, default=6)
    parser.add_argument("--other", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    lines = dict.fromkeys(options.sentences.read_text().splitlines())
    spoken = [line for line in lines if 2 <= len(line.split()) <= options.most_words]
    (options.out / "text").mkdir(parents=True, exist_ok=True)
    rest = [line for line in lines if line not in set(spoken)]
    (options.out / "text" / "rest.txt").write_text("\n".join(rest) + "\n")
    for path in options.other:
        (options.out / "text" / path.name).write_bytes(path.read_bytes())
    written = words_of(path.read_text() for path in (options.out / "text").iterdir())
    splits = {line: split_of(line) for line in spoken}
    heard = words_of(line for line, split in splits.items() if split == "train")
    for line, split in splits.items():
        if split == "test" and words_of([line]) & (written - heard):
            splits[line] = "test_words"
    with ProcessPoolExecutor() as pool:
        rows = list(pool.map(utterance, splits, splits.values(), [options.language] * len(splits), chunksize=32))
    pq.write_table(pa.Table.from_pylist(rows), options.out / "speech.parquet", row_group_size=256)
    for split in sorted(set(splits.values())):
        texts = [row["text"] for row in rows if row["split"] == split]
        words = words_of(texts)
        print(f"{split}: {len(texts)} utterances, {len(words)} words, {len(words - heard)} of them not in training speech")
    print(f"text: {len(written)} words")


def split_of(line: str) -> str:
    number = int.from_bytes(hashlib.blake2b(line.encode(), digest_size=8).digest())
    return "test" if number < TENTH else "dev" if number < 1.3 * TENTH else "train"


def words_of(texts: Iterable[str]) -> set[str]:
    normalize = BasicTextNormalizer()
    return {word for text in texts for word in normalize(text).split()}


def utterance(text: str, split: str, language: str) -> dict[str, Any]:
    rng = random_of(text)
    rate, pitch = int(rng.integers(155, 176)), int(rng.integers(45, 56))
    voice = Voice(language, str(rng.choice(VARIANTS)), rate, pitch)
    flac = io.BytesIO()
    soundfile.write(flac, recorded(speak(text, voice), rng).clip(-1, 1), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return {"audio": flac.getvalue(), "text": text, "language": language, "split": split}


if __name__ == "__main__":
    main()
