"""`python -m raykd.label --config C [--cache topk|encoder|both] [key=value ...]`: the teacher's work on the data, once."""

import argparse
import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from raykd import storage
from raykd.cli import Parser, add_check, run_command
from raykd.config import Config, load_config
from raykd.errors import UserError

if TYPE_CHECKING:
    from raykd.tracking.progress import Progress

_EXAMPLES = """examples:
  python -m raykd.label --config configs/distil_large_v2.yaml --out labels/cs
  python -m raykd.label --config configs/distil_large_v2.yaml --cache both
  python -m raykd.label --config configs/distil_large_v2.yaml --long-form data.source=lectures.jsonl --out labels/lectures

Without --cache the teacher transcribes the training data; then `data.source: {kind: labels, path: DIR}` trains on that.
With --cache what the teacher would say at each label token (topk), the states of its encoder (encoder), or both are kept;
then `teacher.kind: cached` trains without the teacher. An interrupted command goes on when it is given again."""


def parser() -> Parser:
    """The arguments."""
    made = Parser(
        prog="python -m raykd.label",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--config", required=True, help="YAML file of the run, such as configs/quickstart.yaml")
    made.add_argument("--cache", choices=("topk", "encoder", "both"), help="keep the teacher's answers instead of transcripts")
    made.add_argument(
        "--long-form", action="store_true", help="transcribe recordings of any length, and cut them at the teacher's timestamps"
    )
    made.add_argument("--out", metavar="DIR", help="folder to write, local or remote; default: a place in data.cache_dir")
    made.add_argument("--parts", action="append", default=[], metavar="FILE", help="a .py file with parts of your own")
    add_check(made, "look for mistakes and at a sample of the data")
    made.add_argument("-v", "--verbose", action="store_true", help="show Ray's own output")
    made.add_argument("overrides", nargs="*", metavar="key=value", help="change a config key, such as label.timestamps=true")
    return made


def main(arguments: Sequence[str]) -> None:
    """Label or make a cache, and say where it is and what it holds.

    Raises:
        UserError: a wrong argument, config, teacher or source, or a folder with other labels.
    """
    options = parser().parse_intermixed_args(list(arguments))
    if options.cache and options.long_form:
        raise UserError("--cache: answers are kept for single windows; label with --long-form first, then cache the utterances")
    config = load_config(options.config, options.overrides, options.parts)
    # Imported here so that --help and mistakes in the config answer at once.
    from raykd.preflight import check_run, look_at_run

    needs_text = options.cache is not None
    check_run(config, resume=False, needs_text=needs_text)
    if options.check:
        print("\n".join(look_at_run(config, needs_text)))
        return
    from raykd.data.sources.recognise import with_kinds
    from raykd.distillation import distil
    from raykd.runs import with_absolute_paths
    from raykd.teachers import ensure_models
    from raykd.tracking.progress import Progress
    from raykd.training.cluster import connect

    connect(options.verbose)
    with Progress() as progress:
        config = ensure_models(
            with_absolute_paths(with_kinds(config)), lambda teacher, resume: distil(teacher, resume, progress), progress
        )
        out = storage.absolute(options.out) if options.out else None
        if options.long_form:
            _recordings(config, out, progress)
        elif options.cache:
            _cache(config, options.cache, out, progress)
        else:
            _labels(config, out, progress)


# What follows imports torch and Ray where it is needed: --help and mistakes in a config answer at once.


def _labels(config: Config, out: str | None, progress: "Progress") -> None:
    from raykd.config.data import LabelFilter
    from raykd.data.split_names import chosen_splits
    from raykd.labelling.ready import ready_to_label
    from raykd.labelling.summary import summary, tables
    from raykd.labelling.transcripts import make_labels

    ready = ready_to_label(config, progress, needs_text=False)
    assert config.teacher is not None
    data = config.data.model_dump(mode="json", exclude_defaults=True)
    splits = chosen_splits(config.label.splits, {*ready.corpus.splits, "train"}, "label.splits")
    label = config.label.model_copy(update={"splits": splits})
    settings = label.model_dump(mode="json", exclude={"batch_size", "workers"})
    folder = out or _labels_folder(config, [ready.corpus.key, ready.teacher_hash, settings])
    progress.phase("labelling", unit="utterances")
    labels = make_labels(
        folder,
        config.teacher,
        ready,
        label,
        data,
        config.evaluation.normalizer,
        gpus=_gpus(),
        progress=lambda done, total: progress.update(done, total),
    )
    progress.done()
    rows = labels.table().to_pylist()
    found = summary(rows, LabelFilter())
    storage.write_text(storage.join(folder, "summary.json"), json.dumps(found, indent=2, ensure_ascii=False))
    for item in tables(found, rows, config.evaluation.normalizer, config.evaluation.worst_sentences):
        progress.show(item)
    progress.say(f"labels      {folder}   (in a config: data.source: {{kind: labels, path: {folder}}})")


def _recordings(config: Config, out: str | None, progress: "Progress") -> None:
    from raykd.labelling.recordings import label_recordings, recordings_plan, told
    from raykd.models.state import whole_hash
    from raykd.models.whisper import load_whisper

    if config.teacher is None:
        raise UserError("teacher: required; give teacher.model, the Whisper that labels")
    teacher_hash = whole_hash(load_whisper(config.teacher.model, revision=config.teacher.revision))
    plan = recordings_plan(config, teacher_hash)
    folder = out or _labels_folder(config, plan)
    progress.phase("transcribing", unit="recordings")
    found = label_recordings(config, folder, plan, gpus=_gpus(), progress=progress.update)
    progress.done()
    for line in told(found, folder):
        progress.say(line)


def _cache(config: Config, which: str, out: str | None, progress: "Progress") -> None:
    from raykd.data.teacher_cache import open_stores
    from raykd.labelling.keep import kept_answers

    folder, hours = kept_answers(config, which, progress, gpus=_gpus(), out=out)
    for kind, store in open_stores(folder).items():
        size = store.made["bytes"]
        progress.say(f"{kind:<12}{store.made['answers']} answers, {size / 1e6:.1f} MB, {size / 1e6 / hours:.1f} MB an hour")
    in_config = "teacher.kind: cached" + (f", teacher.path: {folder}" if out else "")
    progress.say(f"cache       {folder}   (in a config: {in_config})")


def _labels_folder(config: Config, made_of: object) -> str:
    """A place in the cache for labels that are made of this."""
    key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]
    return storage.join(config.data.cache_dir, "labels", key)


def _gpus() -> float:
    """Of one actor."""
    import ray

    return 1.0 if ray.cluster_resources().get("GPU") else 0.0


if __name__ == "__main__":
    run_command(main)
