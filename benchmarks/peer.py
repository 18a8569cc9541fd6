"""A training step of distil-whisper's script and raykd's, on the same models and clips: utterances a second and memory.

    python benchmarks/peer.py [--shape base] [--batch-size 8] [--seconds 5] [--tokens 24]

The peer is huggingface/distil-whisper `training/run_distillation.py`; its step is re-stated here in plain PyTorch from what it
does: features of 30 s computed before training, labels padded to 128 tokens, the frozen encoder run once for both models,
whole logits of both in float32, KL at temperature 2 and cross-entropy over what is no padding. All variants have random weights
in the same shape, batches in memory, and each has a process of its own, so that its memory is its own. What differs in `raykd`:
labels as long as they are, and the objective in chunks; in `short window`, that the student's encoder hears the clip and two
seconds (the teacher still hears 30 s); in `cache`, that the teacher's 50 likeliest tokens were paid before: the student hears
the clip, and nobody else is run.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn import functional

from raykd.config import Config
from raykd.config.models import ScratchConfig
from raykd.data.batches import IGNORED_LABEL, Batch
from raykd.data.text import LabelEncoder
from raykd.models.demo import demo_processor, new_whisper
from raykd.models.whisper import load_whisper, save_whisper
from raykd.parts.clock import Clock
from raykd.parts.targets.cached import CachedTeacher
from raykd.parts.targets.target import Target
from raykd.parts.worker import Worker
from raykd.training.method import LiveMethod
from raykd.training.step import Step

VARIANTS = ("distil-whisper's step", "raykd", "raykd, short window", "raykd, short window and cache")
MAX_LABEL_LENGTH = 128
"""The script's default."""
WARM_UP, LIKELIEST, MARGIN_S = 2, 50, 2.0
SHAPES = {
    "tiny": ScratchConfig(width=384, heads=6, ffn=1536, encoder_layers=4, decoder_layers=4, window_s=30, max_label_tokens=448),
    "base": ScratchConfig(width=512, heads=8, ffn=2048, encoder_layers=6, decoder_layers=6, window_s=30, max_label_tokens=448),
}


Work = tuple[Callable[[Batch], None], list[Batch]]
"""A step, and what it is done on."""


class Kept(Target):
    """Answers that come with the batch, as from a cache."""

    kind: Literal["kept"] = "kept"
    vocabulary: int

    def build(self, on: Worker) -> CachedTeacher:
        return CachedTeacher({"temperatures": [2.0], "vocabulary": self.vocabulary})


def clips(options: argparse.Namespace, teacher: str, frames: int, teacher_frames: int | None) -> list[Batch]:
    """Random speech and text; the mel of the student has so many frames, the teacher's so many where it differs."""
    random = torch.Generator().manual_seed(0)
    prefix = torch.tensor(LabelEncoder(teacher).prefix("cs")).expand(options.batch_size, -1)
    made = []
    for step in range(WARM_UP + options.steps):
        text_BU = torch.randint(1000, 40_000, (options.batch_size, options.tokens), generator=random)
        tokens_BU = torch.cat([prefix, text_BU], 1)
        mel_BMF = torch.randn(options.batch_size, 80, max(frames, teacher_frames or 0), generator=random) * 0.3
        ids = [f"{step}-{row}" for row in range(options.batch_size)]
        heard = [round(100 * options.seconds)] * len(ids)
        batch = Batch(ids, ["cs"] * len(ids), mel_BMF[..., :frames].clone(), tokens_BU[:, :-1], tokens_BU[:, 1:], 1.0, heard)
        if teacher_frames is not None:
            batch.teacher_mel_BMF = mel_BMF
        n = len(batch.valid_N)
        batch.kept = {
            "tokens_NK": torch.randint(0, 40_000, (n, LIKELIEST), generator=random),
            "log_probs_NK": torch.randn(n, LIKELIEST, generator=random),
            "log_tail_NT": torch.full((n, 1), -2.0),
        }
        made.append(batch)
    return made


def by_raykd(options: argparse.Namespace, teacher: str, short: bool, cached: bool) -> Work:
    config = Config.model_validate(
        {
            "data": {"source": "unused.jsonl"},
            "teacher": {"model": teacher, "dtype": "float32"},
            "student": {"decoder_layers": 2, "freeze_encoder": True, **({"window": "clip"} if short else {})},
            "objective": {"recipe": "kd"},
            "train": {"precision": "float32", "steps": 1000},
        }
    )
    method = config.method
    source = load_whisper(teacher)
    if cached:
        method.targets["teacher"] = Kept(vocabulary=source.config.vocab_size)  # type: ignore[index]
    model = config.student.made(source, 0)
    config.student.freeze(model)
    learner: Any = config.student.learner(model)
    device = torch.device("cpu")
    live = LiveMethod(method, Worker(device, learner, LabelEncoder(teacher), lambda one: 0.0), Clock(0, 1000))
    learner.settle(device, torch.float32)
    module = Step(learner)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)

    def step(batch: Batch) -> None:
        clock = Clock(0, 1000)
        loss, _ = module(batch, live.targets, live.active(clock), clock)
        (loss / batch.n_valid()).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    window = round(100 * SHAPES[options.shape].window_s)
    frames = round(100 * (options.seconds + MARGIN_S)) if short else window
    return step, clips(options, teacher, frames, window if short and not cached else None)


def by_the_peer(options: argparse.Namespace, teacher: str) -> Work:
    frozen: Any = load_whisper(teacher).requires_grad_(False)
    config = Config.model_validate({"data": {"source": "x.jsonl"}, "teacher": {"model": teacher}, "train": {"steps": 1}})
    student: Any = config.student.make(load_whisper(teacher), 0)
    student.train().model.encoder.requires_grad_(False)
    student.model.encoder = frozen.model.encoder
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)

    def step(batch: Batch) -> None:
        pad = MAX_LABEL_LENGTH - batch.labels_BU.shape[1]
        inputs_BU = functional.pad(batch.decoder_input_BU, (0, pad), value=50_257)
        labels_BU = functional.pad(batch.labels_BU, (0, pad), value=IGNORED_LABEL)
        with torch.no_grad():
            states = frozen.model.encoder(batch.mel_BMF)
            teacher_BUV = frozen(encoder_outputs=states, decoder_input_ids=inputs_BU).logits
        student_BUV = student(encoder_outputs=states, decoder_input_ids=inputs_BU).logits
        ce = functional.cross_entropy(student_BUV.flatten(0, 1), labels_BU.flatten())
        q_BUV, log_p_BUV = (teacher_BUV / 2).softmax(-1), (student_BUV / 2).log_softmax(-1)
        divergence_BUV = functional.kl_div(log_p_BUV, q_BUV, reduction="none")
        mask_BU1 = (labels_BU != IGNORED_LABEL)[..., None]
        kl = 4 * (divergence_BUV * mask_BU1).sum() / mask_BU1.sum()
        (0.8 * ce + kl).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step, clips(options, teacher, round(100 * SHAPES[options.shape].window_s), None)


def measure(options: argparse.Namespace, teacher: str) -> dict[str, float]:
    """Utterances a second, and memory beyond what models and batches take."""
    number = options.variant
    step, batches = (
        by_the_peer(options, teacher) if number == 0 else by_raykd(options, teacher, short=number >= 2, cached=number == 3)
    )
    before, seconds = memory_gb(), []
    for batch in batches:
        began = time.perf_counter()
        step(batch)
        seconds.append(time.perf_counter() - began)
    return {
        "speed": options.batch_size / statistics.median(seconds[WARM_UP:]),
        "extra": memory_gb() - before,
        "peak": memory_gb(),
    }


def memory_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="base", choices=SHAPES)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0, help="of speech in each clip")
    parser.add_argument("--tokens", type=int, default=24, help="of text in each clip")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--variant", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--teacher", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.variant is not None:
        print(json.dumps(measure(options, options.teacher)))
        return
    with tempfile.TemporaryDirectory(prefix="raykd-benchmark-") as folder:
        dims = SHAPES[options.shape]
        save_whisper(new_whisper(dims, seed=0), demo_processor(dims), str(Path(folder)))
        print(
            f"{options.shape}, {options.batch_size} clips of {options.seconds:g} s a step, {torch.get_num_threads()} threads\n"
        )
        print("| step | utterances/s | ratio | extra GB | peak GB |\n|---|--:|--:|--:|--:|")
        first = None
        for number, name in enumerate(VARIANTS):
            command = [sys.executable, __file__, *sys.argv[1:], "--variant", str(number), "--teacher", folder]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
            first = first or found["speed"]
            numbers = f"{found['speed']:.2f} | {found['speed'] / first:.2f} | {found['extra']:.2f} | {found['peak']:.2f}"
            print(f"| {name} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
