"""Training jobs on a small corpus, made without Ray."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from raykd.config import Config
from raykd.data.corpus import Corpus
from raykd.models.pruning import prune_tokenizer, prune_whisper
from raykd.models.whisper import load_processor, load_whisper, save_whisper
from raykd.parts.students.vocabulary import kept_tokens_of
from raykd.training.student_job import StudentJob
from tests.corpora import make_corpus, row, speech_format

WORDS = ["jedna", "dva", "tři", "čtyři", "pět", "šest", "sedm", "osm", "devět", "deset", "sto", "tisíc"]

MakeJob = Callable[..., StudentJob]


def numbers_corpus(folder: Path, whisper_dir: Path) -> Corpus:
    """22 training, 4 dev and 4 test utterances of 2 to 8 words in two languages."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(30):
        text = " ".join(WORDS[word] for word in rng.integers(0, len(WORDS), size=int(rng.integers(2, 9))))
        split = "train" if number < 22 else "dev" if number < 26 else "test"
        rows.append(row(number, text=text, split=split, language="pl" if number % 5 == 0 else "cs"))
    return make_corpus(folder, whisper_dir, rows)


def job_maker(source: str, corpus: Corpus, teacher: Path, folder: Path) -> MakeJob:
    """Makes a job that distils the tiny Whisper into one decoder layer; keyword arguments are `train` keys.

    Adam's epsilon is large enough that gradients of nothing but rounding move no parameter.
    """

    def make(
        name: str = "job",
        student: dict | None = None,
        objective: dict | None = None,
        more: dict | None = None,
        **train: object,
    ) -> StudentJob:
        config = Config.model_validate(
            {
                "data": {"source": source},
                "teacher": {"model": str(teacher), "dtype": "float32"},
                "student": student if "kind" in (student or {}) else {"decoder_layers": 1, **(student or {})},
                "objective": objective or {"recipe": "kd"},
                "train": {
                    **{"precision": "float32", "steps": 4, "batch_size": 8, "lr": 1e-3, "eps": 1e-6, "eval_every": 1000},
                    **train,
                },
                **(more or {}),
            }
        )
        init = folder / name / "student_init"
        model, processor = config.student.made(load_whisper(str(teacher)), 0), load_processor(str(teacher))
        wanted = speech_format(teacher)
        kept = kept_tokens_of(config.student, model.config, model.config, wanted, corpus)
        if kept is not None:
            prune_whisper(model, kept)
            processor.tokenizer = prune_tokenizer(processor.tokenizer, kept)
        save_whisper(model, processor, str(init))
        return StudentJob(
            config=config,
            corpus=corpus,
            speech_format=wanted,
            kept_tokens=kept,
            student=str(init),
            encoder_shared=config.student.freeze_encoder,
            teacher_hash="",
            checkpoints=str(folder / name / "checkpoints"),
            trained_ids=str(folder / name / "trained_ids"),
        )

    return make
