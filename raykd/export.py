"""`python -m raykd.export RUN --format ...`: a student for the program that will run it, tried there before it is done."""

import argparse
import json
import os
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from raykd import storage
from raykd.cli import Parser
from raykd.config import Config
from raykd.config.data import DataConfig
from raykd.config.load import load_written_config, parse
from raykd.config.yaml_text import from_yaml
from raykd.errors import UserError
from raykd.evaluate import EvaluateConfig

if TYPE_CHECKING:
    from raykd.exporting.clips import Clip
    from raykd.exporting.gate import Checked

_EXAMPLES = """examples:
  python -m raykd.export runs/distil --format ctranslate2 --quantization int8
  python -m raykd.export runs/distil --format ggml --quantization q8_0 --pad-vocabulary
  python -m raykd.export runs/experts --format experts
  python -m raykd.export runs/experts --format ctranslate2 --expert none --data english.jsonl
  python -m raykd.export some/whisper --format hf --data test.jsonl --language cs

It converts, loads the result in the program that runs it (transformers; CTranslate2 and faster-whisper; whisper.cpp), has it
transcribe clips of the run's test split (or of --data), compares the texts with those of the student in PyTorch, and measures
word error rate and speed. Where more words differ than rounding can explain, the clip is shown and the exit status is 1."""
REPORT = "export.json"
"""Written when an export is done."""
_DEFAULTS = {"hf": "float32", "ctranslate2": "float32", "ggml": "float16", "experts": "float32"}


def main(arguments: Sequence[str]) -> None:
    """Export, try, and tell.

    Raises:
        UserError: a wrong argument, or a model that the format cannot hold.
        RunError: the program says something else than the student.
    """
    options = _parse(arguments)
    folder = options.model.rstrip("/")
    written = storage.join(folder, "config.yaml")
    run = load_written_config(written) if storage.exists(written) else None
    model = storage.join(folder, "student") if run else folder
    if run and not storage.exists(storage.join(model, "config.json")):
        raise UserError(f"{folder}: the run has no student yet; let it finish first (--resume)")
    quantization = options.quantization or _DEFAULTS[options.format]
    if run is None and not os.path.isdir(folder) and not options.out:
        raise UserError(f"--out: {folder} is no folder here, so say where the export is to be written")
    out = options.out or storage.join(folder, "exports", f"{options.format}-{quantization}")
    # Imported here so that --help and mistakes in the arguments answer at once.
    import transformers

    from raykd.exporting.gate import as_json, export
    from raykd.models.runtimes import limits
    from raykd.models.whisper import read_config
    from raykd.parts.deepspeed import name_accelerator

    name_accelerator()
    transformers.logging.set_verbosity_error()
    console = Console()
    at_hand = storage.local_copy(model) if storage.is_remote(model) else nullcontext(model)
    with at_hand as local, storage.local_output(out) as local_out, console.status("exporting") as status:
        storage.delete_file(storage.join(local_out, REPORT))  # of an export that was done before
        config = read_config(local)
        clips = _clips(options, run, folder, config.max_source_positions / 50)
        checked = export(
            local,
            local_out,
            options.format,
            quantization,
            clips,
            pad_vocabulary=options.pad_vocabulary,
            whole_tokenizer=options.tokenizer or (run.teacher.model if run and run.teacher else None),
            expert=options.expert,
            tolerance=options.tolerance,
            progress=status.update,
        )
        told = json.dumps(as_json(checked), indent=2, ensure_ascii=False)
        storage.write_text(storage.join(local_out, REPORT), told)
    _tell(checked, console)
    for limit in limits(config, options.format):
        console.print(f"note    {limit}", highlight=False, soft_wrap=True)
    console.print(f"export  {out}", highlight=False, soft_wrap=True)


def _clips(options: argparse.Namespace, run: Config | None, folder: str, longest_s: float) -> "list[Clip]":
    from raykd.data.sources.recognise import with_kinds
    from raykd.exporting.clips import clips_of, tested_ids

    if options.data is None and run is None:
        raise UserError(f"{folder}: is no run, so there are no test clips to try the export on; give --data SOURCE")
    if options.data is not None:
        data = _data(options)
        return clips_of(with_kinds(EvaluateConfig(data=data)).data, longest_s, options.clips)
    assert run is not None
    for split in (*run.data.test_splits, "dev"):
        evaluation = storage.join(folder, f"evaluation/student-{split}.parquet")
        if storage.exists(evaluation):
            return clips_of(with_kinds(run).data, longest_s, options.clips, tested_ids(evaluation, options.clips))
    raise UserError(f"{folder}: the run has no scored utterances; give --data SOURCE")


def _data(options: argparse.Namespace) -> DataConfig:
    source = from_yaml(options.data, "--data") if options.data.startswith(("{", "[")) else options.data
    tree = {"data": {"source": source, **({"language": options.language} if options.language else {})}}
    return parse(EvaluateConfig, tree, "--data").data


def _tell(checked: "Sequence[Checked]", console: Console) -> None:
    table = Table(box=None)
    for name in ("program", "window", "WER", "PyTorch", "words that differ", "real-time factor", "PyTorch"):
        table.add_column(name, justify="left" if name in {"program", "window"} else "right")
    for one in checked:
        rates = (one.wer, one.wer_pytorch, one.differing_words)
        table.add_row(
            one.runtime, one.window, *(f"{100 * rate:.2f} %" for rate in rates), f"{one.rtf:.3g}", f"{one.rtf_pytorch:.3g}"
        )
    console.print(table)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="python -m raykd.export",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="RUN", help="run folder, or the folder of a Whisper in Hugging Face format")
    parser.add_argument("--format", required=True, choices=list(_DEFAULTS))
    parser.add_argument("--quantization", help="of the weights: float32, float16, int8, q8_0, ... as the format has them")
    parser.add_argument("--out", help="folder for the result, local or in a bucket; default: exports/ in the run folder")
    parser.add_argument("--pad-vocabulary", action="store_true", help="write a cut vocabulary as the whole one")
    parser.add_argument(
        "--expert", metavar="LANGUAGE", help="of a student with experts: this one's in place of the shared blocks"
    )
    parser.add_argument("--tokenizer", help="a model with the whole vocabulary, for that; default: the run's teacher")
    parser.add_argument("--data", metavar="SOURCE", help="speech to try it on; default: the run's test split")
    parser.add_argument("--language", help="of --data, where it does not say")
    parser.add_argument("--clips", type=_at_least_one, default=20, help="how many clips (default 20)")
    parser.add_argument("--tolerance", type=float, help="share of words that may differ from PyTorch's")
    return parser.parse_args(arguments)


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1 (got {text})")
    return int(text)


if __name__ == "__main__":
    from raykd.cli import run_command

    run_command(main)
