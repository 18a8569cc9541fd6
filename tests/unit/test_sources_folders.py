"""Sources that are folders: Common Voice and folders of recordings, in their genuine layouts, read without Ray."""

from pathlib import Path

import pytest

from raykd.data.sources.audio_folder import TIMED
from tests.unit.test_sources import audible, by_id, clip, mistake, read, write_jsonl

# --- Common Voice ---

CV_COLUMNS = [
    *("client_id", "path", "sentence_id", "sentence", "sentence_domain", "up_votes", "down_votes"),
    *("age", "gender", "accents", "variant", "locale", "segment"),
]


def common_voice(root: Path) -> Path:
    """An unpacked release as Mozilla ships it: mp3 clips, tab-separated tables whose quotes mean nothing."""
    (root / "clips").mkdir(parents=True)
    sentences = {"train": ['"Dobrý den, řekl.', 'A "pak" odešel.'], "dev": ["Třetí."], "test": ["Čtvrtá."], "other": ["Ne."]}
    number = 0
    for table, texts in sentences.items():
        lines = ["\t".join(CV_COLUMNS)]
        for text in texts:
            name = f"common_voice_cs_{number:08d}.mp3"
            (root / "clips" / name).write_bytes(clip(300, "MP3", rate=32_000))
            lines.append("\t".join(["c" * 128, name, "5" * 64, text, "", "2", "0", "", "", "", "", "cs", ""]))
            number += 1
        (root / f"{table}.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    (root / "validated.tsv").write_text("\t".join(CV_COLUMNS) + "\n")
    (root / "clip_durations.tsv").write_text("clip\tduration[ms]\n")
    return root


def test_common_voice_release(tmp_path: Path) -> None:
    rows = by_id(read(str(common_voice(tmp_path / "cs"))))
    assert [(row["text"], row["split"]) for row in rows.values()] == [
        ('"Dobrý den, řekl.', "train"),
        ('A "pak" odešel.', "train"),
        ("Třetí.", "dev"),
        ("Čtvrtá.", "test"),
    ]
    assert next(iter(rows)) == "common_voice_cs_00000000.mp3"
    assert {row["language"] for row in rows.values()} == {"cs"}
    assert all(audible(row) for row in rows.values())


def test_common_voice_language_overrides_the_locale(tmp_path: Path) -> None:
    source = {"kind": "common_voice", "path": str(common_voice(tmp_path / "cs")), "language": "sk"}
    assert {row["language"] for row in read(source)} == {"sk"}
    assert "data.source.language" in mistake(source | {"language": "xx"})


def test_common_voice_takes_the_rows_with_the_best_votes(tmp_path: Path) -> None:
    """Most up-votes first, then fewest down-votes, then the table's order; other splits stay whole."""
    root = common_voice(tmp_path / "cs")
    lines = (root / "train.tsv").read_text("utf-8").splitlines()
    votes = [(2, 1), (5, 2), (2, 0), (5, 0), (2, 0)]
    made = [lines[0]]
    for number, (up, down) in enumerate(votes):
        fields = lines[1 + number % 2].split("\t")
        fields[CV_COLUMNS.index("path")] = f"clip-{number}.mp3"
        fields[CV_COLUMNS.index("up_votes")], fields[CV_COLUMNS.index("down_votes")] = str(up), str(down)
        (root / "clips" / f"clip-{number}.mp3").write_bytes(clip(300, "MP3", rate=32_000))
        made.append("\t".join(fields))
    (root / "train.tsv").write_text("\n".join(made) + "\n", "utf-8")
    rows = read({"kind": "common_voice", "path": str(root), "train_rows": 3})
    assert [row["id"] for row in rows if row["split"] == "train"] == ["clip-1.mp3", "clip-2.mp3", "clip-3.mp3"]
    assert {row["split"] for row in rows} == {"train", "dev", "test"}
    (root / "train.tsv").write_text("\n".join(made).replace("up_votes", "thumbs") + "\n", "utf-8")
    assert "no numbers in up_votes" in mistake({"kind": "common_voice", "path": str(root), "train_rows": 3})


def test_common_voice_parent_folder_is_explained(tmp_path: Path) -> None:
    common_voice(tmp_path / "cs")
    assert "folder of one locale" in mistake({"kind": "common_voice", "path": str(tmp_path)})


# --- audio folders ---


def test_audio_folder_with_transcripts_beside(tmp_path: Path) -> None:
    for name in ("train/ann/1.wav", "train/ann/2.ogg", "validation/3.flac", "4.mp3", "train/5.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(clip(300, {"ogg": "OGG", "flac": "FLAC", "mp3": "MP3"}.get(name[-3:].strip("."), "WAV")))
        if name != "train/5.wav":
            (tmp_path / name).with_suffix(".txt").write_text(f" text of\n{name}\n")
    (tmp_path / "4.txt").write_bytes(b"caf\xe9")
    rows = by_id(read({"kind": "audio_folder", "path": str(tmp_path), "language": "en"}))
    assert {name: (row["split"], row["problem"]) for name, row in rows.items()} == {
        "4.mp3": (None, "not UTF-8 text"),
        "train/5.wav": ("train", "no transcript"),
        "train/ann/1.wav": ("train", None),
        "train/ann/2.ogg": ("train", None),
        "validation/3.flac": ("dev", None),
    }
    assert rows["train/ann/1.wav"]["text"] == "text of train/ann/1.wav"
    assert all(audible(row) for row in rows.values())
    assert read(str(tmp_path), language="en") == list(rows.values())


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_audio_folder_with_metadata(tmp_path: Path, kind: str) -> None:
    for name in ("train/1.wav", "test/2.wav", "unlisted.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(clip(300))
    listed = [{"file_name": "train/1.wav", "transcription": "one"}, {"file_name": "test/2.wav", "transcription": "two"}]
    if kind == "csv":
        (tmp_path / "metadata.csv").write_text("file_name,transcription\ntrain/1.wav,one\ntest/2.wav,two\n")
    else:
        write_jsonl(tmp_path / "metadata.jsonl", listed)
    rows = read(str(tmp_path), language="en")
    assert [(row["id"], row["text"], row["split"]) for row in rows] == [
        ("train/1.wav", "one", "train"),
        ("test/2.wav", "two", "test"),
    ]
    assert all(audible(row) for row in rows)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 46797 She had your dark suit.\n", ("She had your dark suit.", None)),
        ("0.000000\t1.500000\tShe had", ("She had", None)),
        ("2 3 go", ("2 3 go", None)),
        ("1990 2000 were the years", ("1990 2000 were the years", None)),
        ("1.0\t2.0\tlater", (None, TIMED)),
        ("0.0\t1.0\tfirst\n1.0\t2.0\tsecond\n", (None, TIMED)),
        ("7470 11362 she\n11362 16000 had\n", (None, TIMED)),
    ],
)
def test_times_before_a_transcript_are_not_said(tmp_path: Path, text: str, expected: tuple[str | None, str | None]) -> None:
    (tmp_path / "a.wav").write_bytes(clip(300))
    (tmp_path / "a.txt").write_text(text)
    (row,) = read({"kind": "audio_folder", "path": str(tmp_path)}, language="en")
    assert (row["text"], row["problem"]) == expected


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["a|In 1 sense, or 2|In one sense, or two", "b|b|b"], "In one sense, or two"),
        (["a|hello there my friend|anna", "b|good morning to you|bert"], "hello there my friend"),
        (["a|anna|hello there my friend", "b|bert|good morning to you"], "hello there my friend"),
        (["a|hello there|", "b|good morning|"], "hello there"),
        (["a|hello there|ahoj lidi", "b|good morning|dobré ráno"], None),
    ],
)
def test_the_transcript_of_a_list_without_headings(tmp_path: Path, lines: list[str], text: str | None) -> None:
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    (tmp_path / "a.wav").write_bytes(clip(300))
    if text is None:
        assert "second and third columns" in mistake({"kind": "audio_folder", "path": str(tmp_path)}, language="en")
    else:
        assert read({"kind": "audio_folder", "path": str(tmp_path)}, language="en")[0]["text"] == text


def test_folders_deep_in_an_audio_folder_tell_the_split(tmp_path: Path) -> None:
    for name in ("LibriSpeech/test-clean/84/a.wav", "LibriSpeech/train/test/b.wav", "LibriSpeech/test_train/c.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(clip(300))
        (tmp_path / name).with_suffix(".txt").write_text("a")
    rows = read({"kind": "audio_folder", "path": str(tmp_path)}, language="en")
    assert [(row["split"], row["problem"]) for row in rows] == [("test", None)] + [(None, "unclear split")] * 2


def test_audio_folder_without_audio(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    assert "no audio in" in mistake({"kind": "audio_folder", "path": str(tmp_path)})


# --- WebDataset ---
