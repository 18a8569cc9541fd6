"""WebDataset tars as sources."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

from tests.unit.test_sources import by_id, clip, read


def write_tar(path: Path, members: Mapping[str, bytes], mode: str = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def test_webdataset_members_with_one_stem_are_an_utterance(tmp_path: Path) -> None:
    flac, wav, about = (
        clip(300, "FLAC"),
        clip(400),
        json.dumps({"text": "json text", "lang": "pl", "split": "test", "path": "/x"}),
    )
    write_tar(tmp_path / "train-000.tar", {"000.flac": flac, "000.txt": b"first\n", "001.json": about.encode(), "001.wav": wav})
    write_tar(
        tmp_path / "dev-000.tar.gz", {"a/000.json": about.encode(), "a/000.txt": b"text wins", "a/000.flac": flac}, "w:gz"
    )
    rows = by_id(read(str(tmp_path), language="cs"))
    assert {name: (row["text"], row["language"], row["split"], row["audio"], row["problem"]) for name, row in rows.items()} == {
        "dev-000/a/000": ("text wins", "pl", "test", flac, None),
        "train-000/000": ("first", "cs", "train", flac, None),
        "train-000/001": ("json text", "pl", "test", wav, None),
    }


def test_webdataset_folders_in_a_tar_tell_the_split(tmp_path: Path) -> None:
    members = {f"corpus/{split}/a.{kind}": b"x" for split in ("train", "test-clean", "other") for kind in ("wav", "txt")}
    for name in ("corpus.tar", "train.tar"):
        write_tar(tmp_path / name, members)
    found = {row["id"]: (row["split"], row["problem"]) for row in read(str(tmp_path), language="cs")}
    assert found == {
        "corpus/corpus/train/a": ("train", None),
        "corpus/corpus/test-clean/a": ("test", None),
        "corpus/corpus/other/a": (None, None),
        "train/corpus/train/a": ("train", None),
        "train/corpus/test-clean/a": (None, "unclear split"),
        "train/corpus/other/a": ("train", None),
    }


def test_webdataset_bad_members(tmp_path: Path) -> None:
    members = {
        "0.flac": b"",
        "0.txt": b"a",
        "1.wav": b"x",
        "2.txt": b"c",
        "3.wav": b"x",
        "3.json": b"{",
        "4.wav": b"x",
        "4.txt": b"\xe9",
    }
    write_tar(tmp_path / "a.tar", members)
    problems = {row["id"]: row["problem"] for row in read(str(tmp_path / "a.tar"), language="en")}
    told = ["no audio", "no transcript", "no audio", "not valid JSON", "not UTF-8 text"]
    assert problems == {f"a/{number}": problem for number, problem in enumerate(told)}


def test_a_tar_that_breaks_off_ends_with_a_problem(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {f"{number}.{kind}": b"x" * 3_000 for number in range(9) for kind in ("txt", "wav")})
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:30_000])
    rows = read(str(tmp_path / "a.tar"), language="en")
    assert 2 <= len(rows) <= 5
    assert [row["problem"] for row in rows[:2]] == [None, None]
    assert rows[-1]["problem"] == "unreadable rest of a tar"
    (tmp_path / "a.tar").write_bytes(b"no tar" * 1_000)
    assert [row["problem"] for row in read(str(tmp_path / "a.tar"))] == ["unreadable rest of a tar"]


def test_webdataset_text_that_comes_after_a_json_without_any_is_waited_for(tmp_path: Path) -> None:
    """A tar made with `tar --sort`, by kind of member."""
    about, said = json.dumps({"speaker": "a"}).encode(), json.dumps({"Text": "in the json"}).encode()
    members = {
        **{f"{n}.flac": clip(300, "FLAC") for n in range(3)},
        **{"0.json": about, "1.json": about, "2.json": said},
        **{"0.txt": b"first", "1.txt": b"second"},
    }
    write_tar(tmp_path / "train.tar", members)
    rows = by_id(read(str(tmp_path), language="cs"))
    assert {name: (row["text"], row["problem"]) for name, row in rows.items()} == {
        "train/0": ("first", None),
        "train/1": ("second", None),
        "train/2": ("in the json", None),
    }
