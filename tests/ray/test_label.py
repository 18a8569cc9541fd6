"""`raykd.label` as a user runs it: transcripts and caches, killed and gone on with, and trained on."""

import contextlib
import json
import re
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import torch

from raykd.config import Config, dump_yaml
from raykd.config.data import DataConfig
from raykd.data.batches import collate
from raykd.data.corpus import open_corpus, read_utterances
from raykd.data.format import SpeechFormat
from raykd.data.labels import open_labels
from raykd.data.pack_corpus import PACKS_FILE
from raykd.data.prepare import prepare_corpus
from raykd.data.text import LabelEncoder
from raykd.errors import UserError
from raykd.evaluation.decode import encode, transcribe
from raykd.models.whisper import load_processor, load_whisper, save_whisper
from raykd.tracking.history import read_history
from tests.jobs import job_maker
from tests.ray.commands import run_here, start
from tests.training.workers import train_in_processes

STEPS = 4


@pytest.fixture(scope="module")
def teacher(lively_dir: Path) -> Path:
    """It is sure of what it says, whatever that is."""
    return lively_dir


@pytest.fixture(scope="module")
def folder(manifest: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the config of a run, `config.yaml`."""
    made = tmp_path_factory.mktemp("label")
    config = Config.model_validate(
        {
            "data": {"source": str(manifest), "cache_dir": str(made / "cache")},
            "teacher": {"model": str(teacher), "dtype": "float32"},
            "student": {"decoder_layers": 1},
            "objective": {"recipe": "kd", "temperature": 2.0},
            "output_dir": str(made / "runs"),
            "train": {"precision": "float32", "steps": STEPS, "batch_size": 8, "lr": 1e-3, "eps": 1e-6, "eval_every": STEPS},
            "evaluation": {"max_new_tokens": 8, "speed_utterances": 2, "speed_batch_sizes": [1]},
            "label": {"max_new_tokens": 12, "batch_size": 4},
            "cache": {"batch_size": 4, "k": 40_000},
            "tracking": {"mlflow": False},
            "cluster": {"num_workers": 1},
        }
    )
    (made / "config.yaml").write_text(dump_yaml(config))
    return made


def label(folder: Path, *arguments: str) -> str:
    return run_here("label", folder / "config.yaml", *arguments, folder=folder)


@pytest.fixture(scope="module")
def labelled(folder: Path, ray_local: None) -> tuple[Path, str]:
    """Labels by a command that was killed and given again, and what it said then."""
    out = folder / "labels"
    process = start("label", folder / "config.yaml", "--out", str(out), "label.batch_size=1", folder=folder)
    while not (out / "parts").exists() or len(list((out / "parts").glob("*.parquet"))) < 3:
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.02)
    _kill_all(process.pid)
    process.wait()
    assert 3 <= len(list((out / "parts").glob("*.parquet"))) < 22
    assert not (out / "labels.json").exists()
    return out, label(folder, "--out", str(out))


@pytest.fixture(scope="module")
def caches(folder: Path, ray_local: None) -> Path:
    """Both kinds of the teacher's kept answers, where a run looks for them."""
    label(folder, "--cache", "both")
    (path,) = (folder / "cache" / "teacher_caches").iterdir()
    return path


def test_a_killed_labelling_goes_on_and_has_every_id_once(
    labelled: tuple[Path, str], folder: Path, teacher: Path, manifest: Path
) -> None:
    out, said = labelled
    labels = open_labels(str(out))
    assert labels is not None
    rows = labels.table().to_pylist()
    expected = Counter(json.loads(line)["audio"].removesuffix(".flac") for line in manifest.read_text().splitlines())
    assert Counter(Path(row["id"]).stem for row in rows) == expected
    assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
    assert {row["split"] for row in rows if row["text"] is not None} == {"train"}
    assert "labelling" in said
    assert re.search(r"language.*utterances.*kept.*hours kept.*WER.*>5%.*>10%.*>20%", said)
    assert re.search(r"(cs|all) .* 22 .* 100%", said), said
    assert str(out) in said

    model = load_whisper(str(teacher)).eval()
    _is_what_the_teacher_says(rows, model, folder)
    before = {file: file.stat().st_mtime_ns for file in out.iterdir() if file.suffix == ".parquet"}
    label(folder, "--out", str(out))
    assert {file: file.stat().st_mtime_ns for file in before} == before, "finished labels are not made again"
    with pytest.raises(UserError, match=r"was made with other settings: max_new_tokens 12 \(now 11\)"):
        label(folder, "--out", str(out), "label.max_new_tokens=11")


def _kill_all(pid: int) -> None:
    """The whole machine is lost: Ray's own processes would end a little after their driver."""
    driver = psutil.Process(pid)
    for one in (driver, *driver.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()


def _is_what_the_teacher_says(rows: list[dict[str, Any]], model: Any, folder: Path) -> None:
    (path,) = (folder / "cache" / "corpora").iterdir()
    corpus = open_corpus(str(path))
    assert corpus is not None
    index = corpus.index("train")
    encoder = LabelEncoder(model.config._name_or_path)
    texts = {row["id"]: row["text"] for row in rows}
    for utterance in read_utterances(corpus.path, index, range(len(index))):
        batch = collate([utterance], 500, encoder.pad_id)
        (text,) = transcribe(model, encoder, encode(model, batch.mel_BMF), [utterance.language], 12)
        assert texts[utterance.id] == text


def test_labels_are_a_source_beside_gold(
    labelled: tuple[Path, str], folder: Path, manifest: Path, tiny_format: SpeechFormat
) -> None:
    out, _ = labelled
    source = [
        {"kind": "labels", "path": str(out), "filter": {"max_wer": None}},
        str(manifest),
    ]
    config = DataConfig.model_validate({"source": source, "cache_dir": str(folder / "cache"), "max_reject_share": 0.9})
    corpus = prepare_corpus(config, tiny_format)
    labels = open_labels(str(out))
    assert labels is not None
    taught = {row["id"]: row["text"] for row in labels.table().to_pylist() if row["text"]}
    texts = dict(zip(corpus.index("train").ids, corpus.index("train").texts, strict=True))
    ours = {name: text for name, text in texts.items() if not name.startswith("2:")}
    assert ours
    assert ours == {name: " ".join(taught[name].split()) for name in ours}
    assert sum(name.startswith("2:") for name in texts) == 22
    only = DataConfig.model_validate({"source": str(out), "cache_dir": str(folder / "cache")})
    assert "train" not in prepare_corpus(only, tiny_format).splits, "this teacher is never right, and dev and test are gold"


def test_unlabelled_speech_is_labelled(folder: Path, manifest: Path, ray_local: None, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    bare = tmp_path / "bare.jsonl"
    lines = [{"audio": str(manifest.parent / row["audio"]), "language": "cs", "split": row["split"]} for row in rows]
    bare.write_text("".join(json.dumps(line) + "\n" for line in lines))
    label(folder, "--out", str(tmp_path / "out"), f"data.source={bare}", "label.timestamps=true")
    labels = open_labels(str(tmp_path / "out"))
    assert labels is not None
    found = labels.table().to_pylist()
    assert len(found) == len(rows)
    assert all(row["gold"] is None and row["wer"] is None and row["segments"] for row in found)
    source = {
        "kind": "labels",
        "path": str(tmp_path / "out"),
        "filter": {"min_avg_log_prob": None, "max_compression_ratio": None},
    }
    config = DataConfig.model_validate({"source": source, "cache_dir": str(folder / "cache"), "max_reject_share": 0.9})
    corpus = prepare_corpus(config, SpeechFormat(80, 500, 64, str(labels.made["teacher"])))
    assert set(corpus.splits) == {"train", "dev", "test"}


def test_a_student_learns_the_same_from_caches_as_from_its_teacher(
    folder: Path, teacher: Path, ray_local: None, tmp_path: Path
) -> None:
    cache, pack = tmp_path / "cache", "data.pack={timestamps: 0.5, previous_text: 1.0}"
    said = label(folder, "--cache", "both", "--out", str(cache), pack)
    assert "topk" in said
    assert "encoder" in said
    (corpus,) = (open_corpus(str(path)) for path in (folder / "cache" / "corpora").iterdir() if (path / PACKS_FILE).exists())
    assert corpus is not None
    packs = pq.read_table(f"{corpus.path}/{PACKS_FILE}").column("utterances").to_pylist()
    assert len(packs) < 22 / 2
    assert sorted(name for names in packs for name in names) == [f"train-{number:03d}.flac" for number in range(22)]
    assert any(utterance.n_prompt for utterance in read_utterances(corpus.path, corpus.index("train"), range(len(packs))))
    make_job = job_maker("unused", corpus, teacher, tmp_path)
    encoder = tmp_path / "encoder-only"
    shutil.copytree(cache / "encoder", encoder / "encoder")
    cached = {"kind": "cached", "model": str(teacher), "dtype": "float32"}
    jobs = [
        make_job(
            name, objective={"recipe": "kd", "temperature": 2.0}, more={"teacher": section} if section else {}, batch_size=3
        )
        for name, section in (
            ("online", None),
            ("both", {**cached, "path": str(cache)}),
            ("states", {**cached, "path": str(encoder)}),
        )
    ]
    online, both, states = (
        [record["loss"] for record in records if record["kind"] == "train"] for records in train_in_processes(jobs, world=2)
    )
    assert len(online) == STEPS
    assert corpus.index("train").n_utterances.sum() == corpus.summary["splits"]["train"]["utterances"] == 22
    # The states are kept in float16.
    assert states == pytest.approx(online, rel=2e-3)
    # Of the kept tokens next to nothing is missing, and float16 rounds their log-probabilities.
    assert both == pytest.approx(online, rel=2e-2)


def test_a_cached_teacher_trains_without_being_loaded(folder: Path, teacher: Path, caches: Path) -> None:
    section = f"teacher={{kind: cached, model: {teacher}, dtype: float32}}"
    run_here("distill", folder / "config.yaml", "name=cached", section, folder=folder)
    (run,) = (folder / "runs").glob("cached*")
    assert json.loads((run / "metrics.json").read_text())["train"]["teacher_passes"] == 0
    assert len(read_history(str(run / "history.jsonl")).train) == STEPS


def test_a_forecast_keeps_nothing_of_a_run(folder: Path, ray_local: None) -> None:
    said = run_here("distill", folder / "config.yaml", "--check", "name=checked", "train.steps=30", folder=folder)
    for line in (
        r"source   .*manifest\.jsonl: audio from audio, text from text, language from language, split from split",
        r"split    train: 22 utterances, 0\.\d\d h \(cs 22\)",
        r"such as  .*\.flac: \d\.\d\d s, cs, \".*\"",
        r"enough   0\.\d+ h",
        r"memory   about .* a worker \(student ",
        r"disk     .* for checkpoints",
        r"time     \d+:\d\d an epoch",
    ):
        assert re.search(line, said), line
    assert re.search(r"measured \d+\.\d\d GB of memory", said)
    assert not list((folder / "runs").glob("checked*"))
    assert not list((folder / "cache" / "checks").glob("checked*"))
    with pytest.raises(UserError, match="--check looks at a run before it begins"):
        run_here("distill", folder / "config.yaml", "--check", "--resume", folder=folder)


def test_a_stale_cache_is_refused_with_what_differs(
    folder: Path, teacher: Path, manifest: Path, tmp_path: Path, caches: Path
) -> None:
    cache = shutil.copytree(caches, tmp_path / "stale")
    cached = f"teacher={{kind: cached, model: {{}}, dtype: float32, path: {cache}}}"

    def refused(*arguments: str, model: Path = teacher) -> str:
        with pytest.raises(UserError) as error:
            run_here(
                "distill", folder / "config.yaml", "name=stale", cached.replace("{}", str(model)), *arguments, folder=folder
            )
        return str(error.value)

    other = tmp_path / "other"
    model = load_whisper(str(teacher))
    with torch.no_grad():
        model.model.decoder.layers[0].fc1.bias[0] += 0.01
    save_whisper(model, load_processor(str(teacher)), str(other))
    assert "teacher hash of topk was" in refused(model=other)
    assert "encoder hash" not in refused(model=other)
    assert "has the teacher at temperature 3, and the cache at 1, 2" in refused("objective.temperature=3")
    assert "inputs of topk was" in refused("inputs=[spec_augment]")
    more = [*_rows(manifest), {**_rows(manifest)[0], "id": "one-more"}]
    assert "1 of 23 training utterances are not in it, such as one-more" in refused(_source(tmp_path / "more.jsonl", more))
    changed = [{**row, "text": "ne" if number == 3 else row["text"]} for number, row in enumerate(_rows(manifest))]
    told = refused(_source(tmp_path / "changed.jsonl", changed))
    assert "topk: speech or labels of 1 training utterances changed" in told
    assert "encoder: " not in told  # its states hang on the speech alone
    (cache / "topk" / next(name.name for name in (cache / "topk").glob("*.arrow"))).write_bytes(b"")
    assert "0 bytes instead of" in refused()


def _rows(manifest: Path) -> list[dict[str, Any]]:
    """With ids and whole paths, so that a copy elsewhere is the same speech."""
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    return [{**row, "id": row["audio"], "audio": str(manifest.parent / row["audio"])} for row in rows]


def _source(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"data.source={path}"
