"""`python -m raykd.evaluate --model DIR --data SOURCE`: word and character error rates of any Whisper on any speech."""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from raykd import storage
from raykd.cli import Parser, add_check
from raykd.config.base import Section
from raykd.config.data import DataConfig
from raykd.config.load import parse
from raykd.config.training import EvaluationConfig
from raykd.config.yaml_text import from_yaml
from raykd.errors import UserError
from raykd.evaluation.differences import worst_table
from raykd.evaluation.measures import ON_REQUEST

if TYPE_CHECKING:
    from raykd.data.corpus import Corpus
    from raykd.evaluation.runner import Evaluation

_EXAMPLES = """examples:
  python -m raykd.evaluate --model runs/distil/student --data test.jsonl --language cs
  python -m raykd.evaluate --model openai/whisper-tiny --data cv-corpus-17/cs --split test --out scores/
  python -m raykd.evaluate --model DIR --data test.jsonl --language cs --vocabulary words.txt.gz --teacher-forced
  python -m raykd.evaluate --model DIR --data lectures.jsonl --language cs --long-form sequential
  python -m raykd.evaluate --model DIR --data '{kind: huggingface, path: google/fleurs, name: cs_cz}' evaluation.batch_size=32

Error rates are fractions of 1 over the whole split, from greedy decoding, after Whisper's text normaliser, which is named.
With --vocabulary, `invalid words` is the share of recognised words that are not in it. With --teacher-forced, loss is the mean
cross-entropy of a label token in nats; the rates are of its arg-max given the true tokens before it, not normalised.
RTF: seconds that encoder and decoding took, per second of audio, with whatever else this machine was doing; to compare two
models, time them in turns (the `speed` of a run's metrics.json)."""


_WHOLE = "all"
"""Split of utterances whose source names no splits, when none are cut from it (`data.dev_share` 0)."""


class EvaluateConfig(Section):
    """What `key=value` on this command's line can set."""

    data: DataConfig
    evaluation: EvaluationConfig = EvaluationConfig()


def main(arguments: Sequence[str]) -> None:
    """Evaluate, print the scores and the worst sentences, and write both with `--out`.

    Raises:
        UserError: a wrong argument, or a model or source that cannot be read.
    """
    options = _parse(arguments)
    config = _config(options)
    # Imported here so that --help and mistakes in the arguments answer at once.
    import ray

    from raykd.data.prepare import prepare_corpus
    from raykd.data.sources.recognise import with_kinds
    from raykd.evaluation.recogniser import ModelChoice
    from raykd.evaluation.runner import EvaluationRequest, evaluate_model
    from raykd.evaluation.vocabulary import Vocabulary
    from raykd.models.whisper import speech_format
    from raykd.preflight import check_sources, require_writable
    from raykd.runs import with_absolute_paths
    from raykd.training.cluster import connect

    console = Console()
    check_sources(config.data)
    if options.out:
        require_writable("--out", options.out)
    if config.evaluation.vocabulary is not None:
        Vocabulary.load(config.evaluation.vocabulary)
    speech = speech_format(options.model, options.revision)
    if options.check:
        from raykd.data.sample import look_at_speech

        console.print("\n".join(look_at_speech(config.data, speech)), markup=False, highlight=False, soft_wrap=True)
        return
    connect()
    config = with_absolute_paths(with_kinds(config))
    if storage.exists(storage.absolute(options.model)):
        options.model = storage.absolute(options.model)
    gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
    if options.long_form:
        _evaluate_recordings(options, config, console, gpus)
        return
    with console.status("reading the speech") as status:
        corpus = prepare_corpus(config.data, speech, lambda done, _: status.update(f"reading the speech: {done} utterances"))
        split = _split(corpus, options.split, options.data)
        evaluation = evaluate_model(
            EvaluationRequest(ModelChoice(options.model, options.revision), corpus, split, config.evaluation),
            gpus_per_worker=gpus,
            progress=lambda done, total: status.update(f"decoding: {done} of {total} utterances"),
        )
    _tell(evaluation, corpus.summary["rejects"], split, options, config, console)


def _evaluate_recordings(options: argparse.Namespace, config: EvaluateConfig, console: Console, gpus: float) -> None:
    from raykd.data.rejects import check_rejects
    from raykd.data.sources import all_parts
    from raykd.evaluation.recogniser import ModelChoice
    from raykd.evaluation.recordings import evaluate_recordings, recordings_of

    with console.status("transcribing") as status:
        evaluation, left_out = evaluate_recordings(
            recordings_of(all_parts(config.data), options.split),
            ModelChoice(options.model, options.revision),
            config.evaluation,
            options.split,
            gpus_per_worker=gpus,
            progress=lambda done: status.update(f"transcribing: {done} recordings done"),
        )
    reasons = dict(Counter(left_out.values()).most_common())
    rows = evaluation.summary["utterances"] + len(left_out)
    _tell(evaluation, reasons, options.split, options, config, console)
    check_rejects(reasons, rows, config.data.max_reject_share, None, what="recordings")


def _tell(
    evaluation: "Evaluation",
    rejects: Mapping[str, int],
    split: str,
    options: argparse.Namespace,
    config: EvaluateConfig,
    console: Console,
) -> None:
    """Scores, worst sentences and what was left out, and the files of `--out`."""
    evaluation.summary["left_out"] = dict(rejects)
    show(evaluation, console, config.evaluation.worst_sentences)
    if rejects:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in rejects.items())
        console.print(f"left out: {sum(rejects.values())} rows of the source ({reasons})", highlight=False, soft_wrap=True)
    if options.out:
        rows, summary = storage.join(options.out, f"{split}.parquet"), storage.join(options.out, f"{split}.json")
        evaluation.save_rows(rows)
        evaluation.save_summary(summary)
        console.print(f"rows: {rows}\nsummary: {summary}", highlight=False, soft_wrap=True)


def show(evaluation: "Evaluation", console: Console, worst: int) -> None:
    """Print the scores and the `worst` sentences."""
    summary = evaluation.summary
    console.print(_scores_table(summary))
    if any(key in summary for key in ON_REQUEST):
        console.print(_measures_table(summary))
    names = sorted(set(summary["normalizer"].values()))
    console.print(
        f"RTF {summary['rtf']:.4f} over {summary['audio_s'] / 60:.1f} min of speech; {summary['decoding']}; "
        f"text normaliser {', '.join(names)}",
        highlight=False,
    )
    rows = evaluation.worst(worst)
    if rows:
        console.print(
            worst_table((row["id"], row["wer"], row["reference_normalized"], row["hypothesis_normalized"]) for row in rows)
        )


def _scores_table(summary: dict[str, Any]) -> Table:
    table = Table(title=f"split {summary['split']}", title_justify="left")
    table.add_column("language")
    for heading in ("utterances", "words", "WER", "CER", "sub", "del", "ins"):
        table.add_column(heading, justify="right")
    for language, scores in summary["per_language"].items():
        table.add_row(language, *_cells(scores))
    if len(summary["per_language"]) > 1:
        table.add_section()
        table.add_row("all", *_cells(summary))
        table.add_row("mean of languages", "", "", _rate(summary["macro"]["wer"]), _rate(summary["macro"]["cer"]))
    return table


def _cells(scores: dict[str, Any]) -> list[str]:
    counts = [str(scores[name]) for name in ("substitutions", "deletions", "insertions")]
    return [str(scores["utterances"]), str(scores["words"]), _rate(scores["wer"]), _rate(scores["cer"]), *counts]


def _measures_table(summary: dict[str, Any]) -> Table:
    """What was asked for beside WER and CER."""
    measured = [key for key in ON_REQUEST if key in summary]
    table = Table("language")
    for key in measured:
        table.add_column(ON_REQUEST[key].replace(" ", "\n"), justify="right")
    languages = summary["per_language"]
    for label, scores in [*languages.items(), *([("all", summary)] if len(languages) > 1 else [])]:
        table.add_row(label, *(_measured(key, scores) for key in measured))
    return table


def _measured(key: str, scores: dict[str, Any]) -> str:
    counts = f" ({scores['invalid_words']} of {scores['hypothesis_words']})" if key == "invalid_word_share" else ""
    return _rate(scores[key]) + counts


def _rate(rate: float) -> str:
    return f"{rate:.4f}"


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="raykd evaluate",
        description="Word and character error rates of a Whisper, raykd's or any other, on a split of some speech.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, help="folder in Hugging Face format, or hub id")
    parser.add_argument("--revision", help="revision of the hub id")
    parser.add_argument(
        "--data", required=True, metavar="SOURCE", help="manifest, folder, tar, hf:NAME or demo, as data.source in a config"
    )
    parser.add_argument("--language", help="Whisper's code (such as cs) of utterances that name no language")
    parser.add_argument("--split", default="test", help="default: test; a source that has no splits is evaluated as a whole")
    parser.add_argument(
        "--out", metavar="DIR", help="write SPLIT.parquet (one row an utterance) and SPLIT.json (the scores) here"
    )
    parser.add_argument("--vocabulary", metavar="PATH", help="words, one a line, or a text corpus: tells invalid words apart")
    parser.add_argument(
        "--long-form",
        nargs="?",
        const="sequential",
        choices=("sequential", "chunked"),
        help="whole recordings of any length; sequential (default) or chunked",
    )
    parser.add_argument("--teacher-forced", action="store_true", help="also loss, and arg-max error rates with gold prefixes")
    add_check(parser, "look for mistakes and at a sample of the data")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="any key of data and evaluation")
    return parser.parse_intermixed_args(list(arguments))


def _config(options: argparse.Namespace) -> EvaluateConfig:
    source = from_yaml(options.data, "--data") if options.data.startswith(("{", "[")) else options.data
    tree: dict[str, Any] = {"data": {"source": source, "dev_share": 0}}
    if options.language:
        tree["data"]["language"] = options.language
    asked = {"vocabulary": options.vocabulary, "teacher_forced": options.teacher_forced}
    tree["evaluation"] = {key: value for key, value in asked.items() if value}
    if options.long_form:
        if options.teacher_forced:
            raise UserError("--teacher-forced: gold prefixes are for single windows; leave it or --long-form out")
        tree["evaluation"]["long_form"] = {"method": options.long_form}
    return parse(EvaluateConfig, tree, "--data", options.overrides)


def _split(corpus: "Corpus", wanted: str, source: str) -> str:
    """The split to evaluate: the wanted one, or everything where the source names no splits."""
    if wanted in corpus.splits:
        return wanted
    if corpus.splits == [_WHOLE]:
        return _WHOLE
    raise UserError(f"--split: {source} has no split {wanted}; it has {', '.join(corpus.splits)}")


if __name__ == "__main__":
    from raykd.cli import run_command

    run_command(main)
