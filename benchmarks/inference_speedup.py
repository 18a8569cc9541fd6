"""How much faster students are than their teacher: programs, batch sizes and lengths of clips, taking turns in one run.

    python benchmarks/inference_speedup.py --models TEACHER STUDENT ... [--runtimes eager compiled ctranslate2:int8]
        [--batches 1 8 32] [--seconds 3 5 10 30] [--tokens 40] [--data MANIFEST --language en] [--out FOLDER] [--mlflow URI]

A model is a run folder, a folder in Hugging Face format, or a published shape with random weights: `base`, `large-v2`, with
another number of decoder layers `large-v2/2`, and with a short window `large-v2/2@clip` (so does `FOLDER@whole` give a student
of short windows whole ones). The first one is what the others are compared with.

All decode the same number of tokens: the end of text is never chosen. Features are made before and not counted, since they are
the same for all; the encoder and greedy decoding are. In each repeat every model and program has one turn at a cell; a row is
the median over repeats and half the distance of the quartiles. Memory: on a GPU the peak of tensors in a cell; on a CPU the
peak of a process of its own that does nothing else, less what it has after importing, at the largest cell.
With --data: word error rates too (of real weights), and a plot of the one against the other. With --draft the first model with
the second as its draft (transformers' assisted generation): text identical or not, and the speed at batch 1.
"""

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table
from torch import Tensor

from raykd.config.models import ScratchConfig
from raykd.data.mel import log_mel, pad_mel
from raykd.data.text import LabelEncoder
from raykd.evaluation.decode import encode, greedy_decode
from raykd.models.demo import demo_processor, new_whisper
from raykd.models.whisper import load_processor, load_whisper, save_whisper
from raykd.models.window import CLIP_MARGIN, heard_frames

SHAPES = {
    "tiny": {"width": 384, "heads": 6, "encoder_layers": 4, "decoder_layers": 4},
    "base": {"width": 512, "heads": 8, "encoder_layers": 6, "decoder_layers": 6},
    "small": {"width": 768, "heads": 12, "encoder_layers": 12, "decoder_layers": 12},
    "medium": {"width": 1024, "heads": 16, "encoder_layers": 24, "decoder_layers": 24},
    "large-v2": {"width": 1280, "heads": 20, "encoder_layers": 32, "decoder_layers": 32},
}
MARGIN = 32


def main() -> None:
    options = parsed()
    console = Console(width=200)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        models = [Model.of(text, Path(folder, str(number))) for number, text in enumerate(options.models)]
        sides = [Side.of(model, runtime, device, options, folder) for model in models for runtime in options.runtimes]
        cells = [(batch, seconds) for batch in options.batches for seconds in options.seconds]
        rows = [row for cell in cells for row in measured(sides, cell, options, console)]
        if device.type == "cpu" and not options.no_memory:
            for side in sides:
                add_memory(rows, side, cells[-1], options)
        threads = f"{torch.get_num_threads()} threads"
        console.print(f"\n{device_name(device)}, torch {torch.__version__}, {threads}, {options.tokens} tokens\n")
        console.print(table_of(rows))
        scores = {model.name: wer_of(model, options) for model in models if not model.random} if options.data else {}
        if scores:
            console.print(scores_table(rows, scores))
        if options.draft:
            console.print(drafted(models[0], models[1], options))
        keep(rows, scores, options)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--runtimes", nargs="+", default=["eager"], help="eager, compiled, ctranslate2:int8 ...")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--seconds", nargs="+", type=float, default=[3.0, 5.0, 10.0, 30.0])
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", default=None, help="of PyTorch's weights; default: float16 on a GPU, float32 on a CPU")
    parser.add_argument("--data", help="a manifest with text, for word error rates and --draft")
    parser.add_argument("--language", default="en")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--draft", action="store_true")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--out", help="folder for rows.json and wer_speed.png")
    parser.add_argument("--mlflow", metavar="URI", help="log the numbers as metrics of a run there")
    return parser.parse_args()


@dataclass(frozen=True)
class Model:
    """One of --models, as a folder."""

    name: str
    folder: str
    random: bool
    margin: int | None
    """Encoder positions after a clip; None: whole windows."""

    @classmethod
    def of(cls, text: str, folder: Path) -> "Model":
        base, _, window = text.partition("@")
        shape, _, layers = base.partition("/")
        if shape in SHAPES:
            sizes = {**SHAPES[shape], **({"decoder_layers": int(layers)} if layers else {})}
            dims = ScratchConfig(**sizes, ffn=4 * sizes["width"], window_s=30, max_label_tokens=448)
            save_whisper(new_whisper(dims, seed=0), demo_processor(dims), str(folder))
            return cls(f"{text} (random weights)", str(folder), True, MARGIN if window == "clip" else None)
        found = Path(base, "student") if Path(base, "student").is_dir() else Path(base)
        margin = getattr(load_whisper(str(found)).config, CLIP_MARGIN, None)
        return cls(text, str(found), False, None if window == "whole" else MARGIN if window == "clip" else margin)


@dataclass(frozen=True)
class Side:
    """A model in a program."""

    model: Model
    runtime: str
    run: Callable[[Tensor, int], None]
    """(mel_BMF, tokens): encode and decode so many."""
    parameters: int
    frames: Callable[[int], int]
    """Frames of its window for a clip of so many."""

    @classmethod
    def of(cls, model: Model, runtime: str, device: torch.device, options: argparse.Namespace, folder: str) -> "Side":
        whisper = load_whisper(model.folder)
        setattr(whisper.config, CLIP_MARGIN, model.margin)
        parameters = sum(parameter.numel() for parameter in whisper.parameters())
        kind, _, quantization = runtime.partition(":")
        if kind == "ctranslate2":
            run = in_ctranslate2(model, quantization or "float32", device, folder)
        else:
            dtype = getattr(torch, options.dtype or ("float16" if device.type == "cuda" else "float32"))
            moved: Any = whisper
            run = in_pytorch(moved.to(device, dtype), model, compiled=kind == "compiled")
        config = whisper.config
        return cls(model, runtime, run, parameters, lambda frames: heard_frames(config, frames))


def in_pytorch(whisper: Any, model: Model, compiled: bool) -> Callable[[Tensor, int], None]:
    prefix = LabelEncoder(model.folder).prefix("en")
    generation = whisper.generation_config
    generation.suppress_tokens = [*(generation.suppress_tokens or ()), whisper.config.eos_token_id]
    if compiled:
        whisper.model.encoder.forward = torch.compile(whisper.model.encoder.forward, dynamic=True)
        whisper.model.decoder.forward = torch.compile(whisper.model.decoder.forward, dynamic=True)

    def run(mel_BMF: Tensor, tokens: int) -> None:
        states_BSD = encode(whisper, mel_BMF)
        greedy_decode(whisper, states_BSD, torch.tensor([prefix] * len(mel_BMF)), tokens, stop_ids=[])
        if whisper.device.type == "cuda":
            torch.cuda.synchronize()

    return run


def in_ctranslate2(model: Model, quantization: str, device: torch.device, folder: str) -> Callable[[Tensor, int], None]:
    import ctranslate2
    from ctranslate2.converters import TransformersConverter

    out = str(Path(folder, f"{Path(model.folder).name}-{abs(hash(model.folder))}-{quantization}"))
    if not Path(out).is_dir():
        TransformersConverter(model.folder).convert(out, quantization=quantization)
    loaded: Any = ctranslate2.models.Whisper(
        out, device=device.type, compute_type=quantization, intra_threads=torch.get_num_threads()
    )
    labels = LabelEncoder(model.folder)
    prefix, end = labels.prefix("en"), labels.eot_id

    def run(mel_BMF: Tensor, tokens: int) -> None:
        mel = ctranslate2.StorageView.from_array(np.ascontiguousarray(mel_BMF.cpu().numpy()))
        loaded.generate(mel, [prefix] * len(mel_BMF), beam_size=1, max_length=len(prefix) + tokens, suppress_tokens=[-1, end])

    return run


def measured(
    sides: Sequence[Side], cell: tuple[int, float], options: argparse.Namespace, console: Console
) -> list[dict[str, Any]]:
    """A row for each side at a cell."""
    batch, seconds = cell
    inputs = [features(side, cell) for side in sides]
    for side, mel_BMF in zip(sides, inputs, strict=True):
        side.run(mel_BMF, options.tokens)
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(options.repeats):
        for number, side in enumerate(sides):
            begin = time.perf_counter()
            side.run(inputs[number], options.tokens)
            times[number].append(time.perf_counter() - begin)
    rows = []
    for number, side in enumerate(sides):
        median = statistics.median(times[number])
        low, high = np.percentile(times[number], [25, 75])
        first = statistics.median(times[options.runtimes.index(side.runtime)])
        rows.append(
            {
                **{"model": side.model.name, "runtime": side.runtime, "batch": batch, "clip_s": seconds},
                **{"latency_ms": 1000 * median, "spread_ms": 500 * float(high - low), "rtf": median / batch / seconds},
                **{"clips_per_s": batch / median, "speedup": first / median, "parameters": side.parameters},
                "memory_mb": gpu_memory(side, inputs[number], options.tokens),
            }
        )
    console.print(f"batch {batch}, {seconds:g} s: done", highlight=False)
    return rows


def features(side: Side, cell: tuple[int, float]) -> Tensor:
    """mel_BMF of noise: what is heard costs the same."""
    batch, seconds = cell
    config = load_whisper(side.model.folder).config
    samples_S = 0.1 * np.random.default_rng(0).standard_normal(int(16_000 * seconds)).astype(np.float32)
    mel_MF = log_mel(samples_S, config.num_mel_bins, 2 * config.max_source_positions)
    return torch.from_numpy(pad_mel(mel_MF, side.frames(mel_MF.shape[1]))).repeat(batch, 1, 1)


def gpu_memory(side: Side, mel_BMF: Tensor, tokens: int) -> float | None:
    if not torch.cuda.is_available() or side.runtime.startswith("ctranslate2"):
        return None
    torch.cuda.reset_peak_memory_stats()
    side.run(mel_BMF, tokens)
    return torch.cuda.max_memory_allocated() / 1e6


def add_memory(rows: list[dict[str, Any]], side: Side, cell: tuple[int, float], options: argparse.Namespace) -> None:
    """Of a process that runs this side alone."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(peak_of, (side.model, side.runtime, cell, options))
    for row in rows:
        if (row["model"], row["runtime"], row["batch"], row["clip_s"]) == (side.model.name, side.runtime, *cell):
            row["memory_mb"] = found


def peak_of(model: Model, runtime: str, cell: tuple[int, float], options: argparse.Namespace) -> float:
    """Megabytes that loading and running take at most."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        side = Side.of(model, runtime, torch.device("cpu"), options, folder)
        side.run(features(side, cell), options.tokens)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000


def wer_of(model: Model, options: argparse.Namespace) -> float:
    """Of PyTorch in float32, greedy, on the clips of --data, each alone."""
    from raykd.evaluation.recogniser import ModelChoice, Recogniser
    from raykd.evaluation.scoring import score_sentences, summarize

    recogniser = Recogniser(ModelChoice(model.folder, dtype="float32"), torch.device("cpu"), 224)
    config = recogniser.model.config
    setattr(config, CLIP_MARGIN, model.margin)
    clips = clips_from(options, config.max_source_positions / 50)
    texts = [
        recogniser.recognise([clip.utterance(config.num_mel_bins, 2 * config.max_source_positions)]).texts[0] for clip in clips
    ]
    pairs = score_sentences([clip.text for clip in clips], texts, [clip.language for clip in clips])
    return float(summarize(pairs)["wer"])


def clips_from(options: argparse.Namespace, longest_s: float) -> list[Any]:
    from raykd.config.data import DataConfig
    from raykd.exporting.clips import clips_of

    return clips_of(DataConfig.model_validate({"source": options.data, "language": options.language}), longest_s, options.clips)


def drafted(teacher: Model, draft: Model, options: argparse.Namespace) -> str:
    """Assisted generation beside the teacher's own, clip by clip, in turns."""
    own: Any = load_whisper(teacher.folder)
    helper = load_whisper(draft.folder)
    processor: Any = load_processor(teacher.folder)
    seconds: dict[bool, float] = {False: 0.0, True: 0.0}
    same = 0
    clips = clips_from(options, 30.0)[:20]
    for clip in clips:
        mel_BMF = processor.feature_extractor(clip.samples_S, sampling_rate=16_000, return_tensors="pt").input_features
        said = {}
        for with_draft in (False, True):
            extra = {"assistant_model": helper} if with_draft else {}
            begin = time.perf_counter()
            with torch.inference_mode():
                said[with_draft] = own.generate(mel_BMF, language=options.language, task="transcribe", num_beams=1, **extra)
            seconds[with_draft] += time.perf_counter() - begin
        texts = {key: processor.batch_decode(ids, skip_special_tokens=True)[0] for key, ids in said.items()}
        same += texts[False] == texts[True]
    return (
        f"\nspeculative decoding, {draft.name} for {teacher.name}: {same} of {len(clips)} texts identical, "
        f"{seconds[False] / seconds[True]:.2f} times as fast at batch 1"
    )


def table_of(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=MARKDOWN)
    names = ["model", "runtime", "batch", "clip, s", "latency, ms", "±", "RTF", "clips/s", "speed-up", "M params", "MB"]
    for number, name in enumerate(names):
        table.add_column(name, justify="left" if number < 2 else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            *(row["model"], row["runtime"], str(row["batch"]), f"{row['clip_s']:g}", f"{row['latency_ms']:.0f}"),
            *(f"{row['spread_ms']:.0f}", f"{row['rtf']:.3g}", f"{row['clips_per_s']:.3g}", f"{row['speedup']:.2f}"),
            *(f"{row['parameters'] / 1e6:.1f}", f"{row['memory_mb']:.0f}" if row["memory_mb"] else ""),
        )
    return table


def scores_table(rows: Sequence[dict[str, Any]], scores: dict[str, float]) -> Table:
    table = Table(box=MARKDOWN)
    for name in ("model", "WER", "speed-up at the first cell"):
        table.add_column(name)
    for name, wer in scores.items():
        first = next(row for row in rows if row["model"] == name)
        table.add_row(name, f"{100 * wer:.2f} %", f"{first['speedup']:.2f}")
    return table


def keep(rows: Sequence[dict[str, Any]], scores: dict[str, float], options: argparse.Namespace) -> None:
    """Files of --out, and metrics of --mlflow."""
    if options.out:
        Path(options.out).mkdir(parents=True, exist_ok=True)
        Path(options.out, "rows.json").write_text(json.dumps({"rows": rows, "wer": scores}, indent=2))
        if scores:
            plot(rows, scores, Path(options.out, "wer_speed.png"))
    if options.mlflow:
        import mlflow

        mlflow.set_tracking_uri(options.mlflow)
        mlflow.set_experiment("inference speed")
        for name in dict.fromkeys(row["model"] for row in rows):
            with mlflow.start_run(run_name=name):
                for row in (one for one in rows if one["model"] == name):
                    key = f"{row['runtime'].replace(':', '_')}/batch_{row['batch']}/{row['clip_s']:g}_s"
                    mlflow.log_metrics({f"{key}/latency_ms": row["latency_ms"], f"{key}/speedup": row["speedup"]})
                if name in scores:
                    mlflow.log_metric("wer", scores[name])


def plot(rows: Sequence[dict[str, Any]], scores: dict[str, float], path: Path) -> None:
    """WER against the speed-up at the first cell."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, wer in scores.items():
        speedup = next(row for row in rows if row["model"] == name)["speedup"]
        axes.scatter(speedup, 100 * wer)
        axes.annotate(Path(name).name, (speedup, 100 * wer), xytext=(4, 4), textcoords="offset points")
    axes.set(xlabel=f"speed-up, batch {rows[0]['batch']}, {rows[0]['clip_s']:g} s", ylabel="WER, %", ylim=(0, None))
    figure.savefig(path, dpi=120)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


if __name__ == "__main__":
    main()
