"""One run from text to a masked language model: the phases of `python -m raykd.train_mlm`, in order."""

from collections.abc import Mapping
from typing import Any

from raykd import storage
from raykd.config import MlmRunConfig
from raykd.data.corpus import REJECTS_FILE, WORDS_FILE, Corpus
from raykd.data.masking import masked_counts
from raykd.data.order import EpochOrder
from raykd.data.text import LabelEncoder
from raykd.data.text_corpus import prepare_text
from raykd.errors import UserError
from raykd.evaluation.masked_lm import MlmEvaluation, evaluate_masked_lm
from raykd.evaluation.recogniser import lay_over
from raykd.models.banner import MlmFacts, mlm_banner_text
from raykd.models.demo import demo_tokenizer
from raykd.models.masked_lm import load_masked_lm, new_masked_lm, save_masked_lm
from raykd.models.whisper import load_processor
from raykd.runs import Totals, TrainingRun, ids_folder, opened_run
from raykd.tracking.metrics import package_versions
from raykd.tracking.mlm import MlmMetrics, points_of_mlm_metrics, write_mlm_report
from raykd.tracking.progress import Progress
from raykd.tracking.run_folder import RunFolder
from raykd.training.checkpoint import TRAINABLE
from raykd.training.cluster import Resources, plan_resources
from raykd.training.mlm_job import MlmJob
from raykd.training.plan import TrainingPlan, plan_training


def train_mlm(config: MlmRunConfig, resume: bool, progress: Progress) -> RunFolder:
    """Run a config to its end and return its folder. With `resume`, go on with the newest unfinished run of its name.

    Raises:
        UserError: something in the config or the text that the user can mend.
        RunError: training could not go on; checkpoints are kept.
    """
    resources = plan_resources(config.cluster)
    with opened_run(config, resume, resources.nodes, progress) as (config, run):
        if run.finished:
            return run
        run.make_once(run.mlm_init_dir, lambda: _make_model(config, run))
        corpus = _prepare(config, run, progress)
        training = TrainingRun(config, run, progress)
        with training.ended_well():
            _run_to_the_end(training, config, corpus, resources)
    return run


def _make_model(config: MlmRunConfig, run: RunFolder) -> None:
    """Store tokenizer and model as they are before the first step."""
    tokenizer = load_processor(config.mlm.tokenizer).tokenizer if config.mlm.tokenizer else demo_tokenizer()
    mask_id = tokenizer.get_vocab().get(config.mlm.mask_token)
    if mask_id is None:
        raise UserError(f"mlm.mask_token: the vocabulary has no token {config.mlm.mask_token}; name one, such as <|uz|>")
    if config.mlm.mask_token == f"<|{config.text.language}|>":
        raise UserError(f"mlm.mask_token: {config.mlm.mask_token} is in every segment; name a language that the text is not in")
    with storage.local_output(run.mlm_init_dir) as folder:
        tokenizer.save_pretrained(folder)
    model = new_masked_lm(len(tokenizer), config.mlm.width, config.mlm.layers, mask_id, config.seed)
    save_masked_lm(model, run.mlm_init_dir)


def _prepare(config: MlmRunConfig, run: RunFolder, progress: Progress) -> Corpus:
    """Text to segments of token ids, once; the rejects are copied into the run folder."""
    progress.phase("text", unit="segments")
    corpus = prepare_text(
        config.text,
        run.mlm_init_dir,
        progress=lambda done, rejected: progress.update(done, note=f"{rejected} rejected" if rejected else ""),
    )
    storage.write_bytes(run.rejects_path, storage.read_bytes(storage.join(corpus.path, REJECTS_FILE)))
    for split, key in (("train", "source"), ("dev", "validation_share")):
        if split not in corpus.splits:
            raise UserError(f"text.{key}: there are no {split} segments; give more text or another text.validation_share")
    progress.done()
    return corpus


def _run_to_the_end(training: TrainingRun, config: MlmRunConfig, corpus: Corpus, resources: Resources) -> None:
    """Train, write the best checkpoint as `mlm/`, and say how good it is."""
    run = training.run
    job = MlmJob(
        config=config,
        corpus=corpus,
        checkpoints=run.checkpoints_dir,
        trained_ids=ids_folder(config, run),
        teacher_hash="",
        model=run.mlm_init_dir,
    )
    order = job.order()
    plan = plan_training(config.train, order.steps_per_epoch)

    def banner(machine: Mapping[str, Any]) -> str:
        return mlm_banner_text(_facts(config, run, corpus, order, plan, resources.workers, machine))

    def dev_scores(checkpoint: str) -> Mapping[str, Any]:
        request = MlmEvaluation(run.mlm_init_dir, corpus, "dev", storage.join(checkpoint, TRAINABLE))
        return evaluate_masked_lm(request, gpus_per_worker=resources.evaluation_gpus)

    best = training.train(job, resources, plan, dev_scores, score="loss", banner=banner)
    _write_model(run, corpus, best)
    metrics = _metrics(run, corpus, training.totals, resources)
    run.write_text("metrics.json", metrics.to_json())
    write_mlm_report(run)
    storage.delete_dir(run.mlm_init_dir)
    if tracker := training.tracker:
        tracker.log_points(points_of_mlm_metrics(metrics))
        tracker.store_files()
        if config.tracking.log_model:
            tracker.store_files(*(f"mlm/{name}" for name in storage.list_dir(run.mlm_dir)))


def _facts(
    config: MlmRunConfig,
    run: RunFolder,
    corpus: Corpus,
    order: EpochOrder,
    plan: TrainingPlan,
    workers: int,
    machine: Mapping[str, Any],
) -> MlmFacts:
    index = corpus.index("train")
    masked = masked_counts(index.n_tokens, config.mlm.mask_share)
    return MlmFacts(
        name=run.name,
        folder=run.path,
        width=config.mlm.width,
        layers=config.mlm.layers,
        parameters=sum(parameter.numel() for parameter in load_masked_lm(run.mlm_init_dir).parameters()),
        dtype=machine["precision"],
        segments=len(index),
        tokens_per_segment=float(index.n_tokens.mean()),
        masked_per_segment=float(masked.mean()),
        language=config.text.language,
        device=machine["device"],
        workers=workers,
        zero_stage=machine["zero_stage"],
        batch_size=config.train.batch_size,
        steps=plan.steps,
        steps_per_epoch=order.steps_per_epoch,
    )


def _write_model(run: RunFolder, corpus: Corpus, checkpoint: str) -> None:
    """The best weights with their tokenizer and the words of their text."""
    for name in storage.list_dir(run.mlm_init_dir):
        storage.write_bytes(storage.join(run.mlm_dir, name), storage.read_bytes(storage.join(run.mlm_init_dir, name)))
    storage.write_bytes(storage.join(run.mlm_dir, WORDS_FILE), storage.read_bytes(storage.join(corpus.path, WORDS_FILE)))
    model = load_masked_lm(run.mlm_init_dir)
    lay_over(model, storage.join(checkpoint, TRAINABLE))
    save_masked_lm(model, run.mlm_dir)


def _metrics(run: RunFolder, corpus: Corpus, totals: Totals, resources: Resources) -> MlmMetrics:
    scores = evaluate_masked_lm(MlmEvaluation(run.mlm_dir, corpus, "dev"), gpus_per_worker=resources.evaluation_gpus)
    params = sum(parameter.numel() for parameter in load_masked_lm(run.mlm_dir).parameters())
    return MlmMetrics.model_validate(
        {
            "mlm": {"params": params, "vocabulary": LabelEncoder(run.mlm_dir).fingerprint, **scores},
            "train": {
                "steps": totals.steps,
                "segments_seen": totals.rows,
                "segments_per_s": totals.rows / max(totals.seconds, 1e-9),
                "wall_s": totals.seconds,
                "tokens": totals.tokens,
            },
            "data": corpus.summary,
            "versions": package_versions(),
        }
    )
