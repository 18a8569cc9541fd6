"""A finished run's folder, small but complete, for the tests of tracking."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raykd.config import Config
from raykd.evaluation.scoring import Edits, TeacherForced, score_sentences, summarize
from raykd.evaluation.vocabulary import Vocabulary
from raykd.tracking.history import HistoryWriter
from raykd.tracking.metrics import Metrics, ModelMetrics, build_metrics
from raykd.tracking.run_folder import RunFolder

SENTENCES = {
    "cs": [
        "zítra v pět hodin odpoledne",
        "kup dvě vstupenky do divadla",
        "vlak do Brna jede v osm",
        "cena je sto dvacet korun",
    ],
    "pl": ["spotkajmy się o siódmej", "ile kosztuje bilet do Krakowa", "włącz światło w kuchni", "jutro będzie padał deszcz"],
}
SLIPS = {"teacher": {"pět": "pět pět"}, "student": {"pět": "devět", "do": "", "kuchni": "kuchnia", "osm": "osum <b>"}}
VOCABULARY = Vocabulary(" ".join(sentence for sentences in SENTENCES.values() for sentence in sentences) + " devět")


def example_config(output_dir: Path | str, **changes: Any) -> Config:
    tree: dict[str, Any] = {
        "name": "example",
        "output_dir": str(output_dir),
        "data": {"source": [{"kind": "demo", "languages": ["cs", "pl"]}]},
        "teacher": {"model": "openai/whisper-large-v2"},
        "objective": {"recipe": "kd"},
        "train": {"steps": 40},
    }
    return Config.model_validate({**tree, **changes})


def example_rows(
    model: str, languages: Sequence[str] = ("cs", "pl"), copies: int = 3, measured: bool = False
) -> tuple[pa.Table, dict[str, Any]]:
    """Evaluation rows and summary of a model that makes the slips listed for it. `measured`: with all that can be asked for."""
    rows = []
    for language in languages:
        for copy in range(copies):
            for number, reference in enumerate(SENTENCES[language]):
                words = [SLIPS[model].get(word, word) if copy else word for word in reference.split()]
                rows.append((f"{language}-{number}-{copy}", language, reference, " ".join(word for word in words if word)))
    ids, codes, references, hypotheses = zip(*rows, strict=True)
    forced = TeacherForced("<|cs|> a", 12.0 if model == "student" else 6.0, 8, Edits(2, 1), Edits(20, 1))
    asked: dict[str, Any] = {"vocabulary": VOCABULARY, "teacher_forced": [forced] * len(rows)} if measured else {}
    scored = score_sentences(references, hypotheses, codes, **asked)
    table = pa.table(
        {
            "id": list(ids),
            "language": list(codes),
            "duration_s": [2.5] * len(rows),
            "reference": list(references),
            "hypothesis": list(hypotheses),
            "reference_normalized": [sentence.reference for sentence in scored],
            "hypothesis_normalized": [sentence.hypothesis for sentence in scored],
            "words": [sentence.words.length for sentence in scored],
            "substitutions": [sentence.words.substitutions for sentence in scored],
            "deletions": [sentence.words.deletions for sentence in scored],
            "insertions": [sentence.words.insertions for sentence in scored],
        }
    )
    if measured:
        table = table.append_column("invalid_words", pa.array([list(sentence.invalid_words or ()) for sentence in scored]))
    return table, {**summarize(scored), "rtf": 0.02 if model == "student" else 0.05}


def train_record(step: int, steps: int = 40, **changes: Any) -> dict[str, Any]:
    ce, kl = 3 * math.exp(-step / 15), 2 * math.exp(-step / 10)
    record = {"kind": "train", "step": step, "steps": steps, "epoch": step / 20, "lr": 1e-3 * (1 - step / steps)}
    record |= {"loss": 0.8 * ce + kl, "terms": {"ce": ce, "kl": kl}, "weights": {"ce": 0.8, "kl": 1.0}, "grad_norm": 1.0}
    return {**record, "tokens": 300, "utterances": 16, "utterances_per_s": 30.0, "elapsed_s": step * 0.5, **changes}


def eval_record(step: int, wer: float, split: str = "dev", **more: Any) -> dict[str, Any]:
    scores = {"wer": wer, "cer": wer / 3, **more}
    return {"kind": "eval", "step": step, "split": split, **scores, "per_language": {"cs": scores, "pl": scores}}


def example_metrics(
    teacher: bool = True, speed: bool = True, languages: Sequence[str] = ("cs", "pl"), measured: bool = False
) -> Metrics:
    def summaries(model: str) -> dict[str, dict[str, Any]]:
        return {split: example_rows(model, languages, measured=measured)[1] for split in ("test", "test_ood")}

    student = ModelMetrics.of(1_200_000, summaries("student"))
    return build_metrics(
        teacher=ModelMetrics.of(4_100_000, summaries("teacher")) if teacher else None,
        student=student,
        train={"steps": 40, "utterances_seen": 640, "utterances_per_s": 30.0, "wall_s": 21.4, "tokens": 12_000},
        speed={"batch_1": {"teacher_rtf": 0.05, "student_rtf": 0.02, "speedup": 2.5}} if speed else {},
        data={
            "utterances": 1000,
            "rejected": 5,
            "hours": 0.7,
            "splits": {"train": {"utterances": 900, "hours": 0.6, "languages": {"cs": {"utterances": 900, "hours": 0.6}}}},
        },
    )


def write_table(run: RunFolder, relative: str, table: pa.Table) -> None:
    path = Path(run.at(relative))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def make_run(config: Config, languages: Sequence[str] = ("cs", "pl"), measured: bool = False) -> RunFolder:
    """A finished run with everything in its folder but the student's weights."""
    run = RunFolder.create(config)
    history = HistoryWriter(run.history_path)
    for step in range(2, 41, 2):
        history.record(train_record(step))
    asked: dict[str, Any] = {"loss": 1.25, "invalid_word_share": 0.05} if measured else {}
    history.record(eval_record(20, 0.4, **asked))
    history.record(eval_record(40, 0.1, **asked))
    history.record({"kind": "event", "step": 22, "event": "restart", "text": "a worker was lost; went on from step 20"})
    for model in ("teacher", "student"):
        for split in ("test", "test_ood"):
            write_table(run, f"evaluation/{model}-{split}.parquet", example_rows(model, languages, measured=measured)[0])
    reasons = ["unreadable audio"] * 3 + ["too long"] * 2
    write_table(run, "rejects/rejects.parquet", pa.table({"id": [f"r{n}" for n in range(5)], "reason": reasons}))
    run.write_text("metrics.json", example_metrics(languages=languages, measured=measured).to_json())
    return run
