"""One worker's training step, method by method, on random batches: time, memory and the type of the logits' products.

    python benchmarks/training_step.py [--shape large-v2] [--batch-size 64] [--tokens 100] [--precision bfloat16 float32]

The teacher has random weights in a published shape; the student keeps two of its decoder layers and shares its frozen encoder.
No Ray and no reading of data: what is timed is `training.loop.Trainer.step`, after three steps to warm up. On CPUs take
`--shape tiny`; memory is then that of the whole process up to there, so run one method at a time to compare it. `--hand` adds a
loop that a researcher would write: the same models, autocast, torch's fused AdamW.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn import functional

from raykd.config import Config
from raykd.config.models import ScratchConfig
from raykd.data.batches import Batch
from raykd.data.stream import StepBatches
from raykd.data.text import LabelEncoder
from raykd.models.demo import demo_processor, new_whisper
from raykd.models.precision import compute_dtype
from raykd.models.size import flops_per_utterance
from raykd.models.whisper import load_whisper, save_whisper
from raykd.parts.clock import Clock
from raykd.parts.worker import Worker
from raykd.training.engine import Engine
from raykd.training.loop import Trainer
from raykd.training.method import LiveMethod
from raykd.training.pace import peak_memory
from raykd.training.plan import TrainingPlan
from raykd.training.step import Step

WARM_UP = 3
SHAPES = {
    "tiny": ScratchConfig(width=128, heads=4, ffn=512, encoder_layers=2, decoder_layers=4, window_s=5, max_label_tokens=448),
    "base": ScratchConfig(width=512, heads=8, ffn=2048, encoder_layers=6, decoder_layers=6, window_s=30, max_label_tokens=448),
    "large-v2": ScratchConfig(
        width=1280, heads=20, ffn=5120, encoder_layers=32, decoder_layers=32, window_s=30, max_label_tokens=448
    ),
}
SELF = {"self": {"kind": "self", "update": {"kind": "ema"}}}
METHODS: dict[str, dict[str, Any]] = {
    "kd": {"recipe": "kd"},
    "ce": {"recipe": "ce"},
    "dr_kd": {"recipe": "dr_kd"},
    "ema": {"terms": [{"kind": "ce"}, {"kind": "kl"}, {"kind": "kl", "target": "self"}], "targets": SELF},
    "akd": {"recipe": "akd"},
    "imitkd": {"recipe": "imitkd", "beta": 0.5},
    "okd": {"recipe": "okd"},
    "real_time": {"recipe": "real_time"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="large-v2", choices=SHAPES)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=100, help="label tokens of an utterance")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--precision", nargs="+", default=["bfloat16"], choices=("float32", "bfloat16"))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--hand", action="store_true")
    parser.add_argument("--compile", action="store_true", help="each method also with its frozen encoder compiled")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29531", RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    with tempfile.TemporaryDirectory(prefix="raykd-benchmark-") as folder:
        teacher = made_teacher(Path(folder), SHAPES[options.shape], device)
        print(f"{device_name(device)}, {options.shape}, {options.batch_size} windows a step, {options.tokens} tokens each")
        print("| method | precision | products | ms a step | windows/s | TFLOP/s | peak GiB |\n|---|---|---|--:|--:|--:|--:|")
        for precision in options.precision:
            for name in options.methods:
                report(name, precision, options, *by_raykd(name, precision, teacher, device, options))
                if options.compile:
                    compiled = by_raykd(name, precision, teacher, device, options, compile_or_tell=print)
                    report(f"{name}, encoder compiled", precision, options, *compiled)
            if options.hand:
                report("kd by hand", precision, options, *by_hand(precision, teacher, device, options))


def made_teacher(folder: Path, dims: ScratchConfig, device: torch.device) -> str:
    with device:
        model = new_whisper(dims, seed=0)
    save_whisper(model.to("cpu", torch.bfloat16), demo_processor(dims), str(folder))  # type: ignore[arg-type]
    return str(folder)


def batches(teacher: str, device: torch.device, options: argparse.Namespace) -> Iterator[StepBatches]:
    """Random mel and text, new at every step."""
    dims, labels = SHAPES[options.shape], LabelEncoder(teacher)
    random = torch.Generator().manual_seed(0)
    prefix = torch.tensor(labels.prefix("cs")).expand(options.batch_size, -1)
    for step in range(WARM_UP + options.steps):
        text_BU = torch.randint(1000, 40000, (options.batch_size, options.tokens), generator=random)
        tokens_BU = torch.cat([prefix, text_BU], 1)
        mel_BMF = torch.randn(options.batch_size, 80, int(100 * dims.window_s), generator=random) * 0.3
        ids = [f"{step}-{row}" for row in range(options.batch_size)]
        batch = Batch(ids, ["cs"] * len(ids), mel_BMF, tokens_BU[:, :-1].clone(), tokens_BU[:, 1:].clone(), 30.0 * len(ids))
        yield StepBatches(step, 0, [batch.to(device)], batch.n_valid(), len(ids))


def by_raykd(
    name: str,
    precision: str,
    teacher: str,
    device: torch.device,
    options: argparse.Namespace,
    compile_or_tell: Callable[[str], None] | None = None,
) -> tuple[list[float], str]:
    config = Config.model_validate(
        {
            "data": {"source": "unused.jsonl"},
            "teacher": {"model": teacher},
            "objective": METHODS[name],
            "train": {"precision": precision, "steps": 1000, "batch_size": options.batch_size, "lr": 1e-4, "eval_every": 1000},
        }
    )
    model = config.student.make(load_whisper(teacher), 0)
    config.student.freeze(model)
    learner = config.student.learner(model)
    mixed = compute_dtype(config.train.precision, device)
    autocast = mixed if mixed != torch.float32 else None
    on = Worker(device, learner, LabelEncoder(teacher), lambda one: 0.0, autocast=autocast, compile_or_tell=compile_or_tell)
    method = LiveMethod(config.method, on, Clock(0, 1000))
    assert config.teacher is not None
    learner.settle(device, compute_dtype(config.teacher.dtype, device), compile_or_tell)
    module = Step(learner, autocast, method.learners().values(), method.heads()).to(device)
    trainer = Trainer(config.train, 0, method, module, Engine(module, config.train, 1, 1), "utterances")
    plan, records = TrainingPlan(1000, 1000, 1000, None), []

    def step(one: StepBatches) -> None:
        records.append(trainer.step(one, plan))

    trainer.engine.train()
    return timed(step, batches(teacher, device, options), device), records[-1]["precision"]


def by_hand(precision: str, teacher: str, device: torch.device, options: argparse.Namespace) -> tuple[list[float], str]:
    """Distil-Whisper's loss with whole logits."""
    mixed = compute_dtype(precision, device)
    frozen: Any = load_whisper(teacher, compute_dtype("auto", device)).to(device).requires_grad_(False)  # type: ignore[arg-type]
    config = Config.model_validate({"data": {"source": "x.jsonl"}, "teacher": {"model": teacher}, "train": {"steps": 1}})
    student: Any = config.student.make(load_whisper(teacher), 0)
    student.model.encoder = frozen.model.encoder
    student.to(device).train()
    trained = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=device.type == "cuda")
    seen = []

    def step(one: StepBatches) -> None:
        batch = one.micro[0]
        with torch.no_grad():
            states_BSD = frozen.model.encoder(batch.mel_BMF.to(frozen.dtype))
            teacher_NV = frozen(encoder_outputs=states_BSD, decoder_input_ids=batch.decoder_input_BU).logits.flatten(0, 1)
        with torch.autocast(device.type, mixed, enabled=mixed != torch.float32):
            logits_BUV = student(
                encoder_outputs=(states_BSD.last_hidden_state.float(),), decoder_input_ids=batch.decoder_input_BU
            ).logits
        seen.append(logits_BUV.dtype)
        logits_NV = logits_BUV.flatten(0, 1).float()
        log_p_NV, q_NV = (logits_NV / 2).log_softmax(-1), (teacher_NV.float() / 2).softmax(-1)
        kl = 4 * functional.kl_div(log_p_NV, q_NV, reduction="batchmean")
        (0.8 * functional.cross_entropy(logits_NV, batch.labels_BU.flatten()) + kl).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return timed(step, batches(teacher, device, options), device), str(seen[-1]).removeprefix("torch.")


def timed(step: Callable[[StepBatches], None], steps: Iterator[StepBatches], device: torch.device) -> list[float]:
    """Seconds of each step after the first few."""
    seconds = []
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    for one in steps:
        wait(device)
        began = time.perf_counter()
        step(one)
        wait(device)
        seconds.append(time.perf_counter() - began)
    return seconds[WARM_UP:]


def report(name: str, precision: str, options: argparse.Namespace, seconds: list[float], products: str) -> None:
    """A line of the table; the FLOPs are those of `kd`, whatever else the method does."""
    from raykd.models.demo import scratch_config

    teacher = scratch_config(SHAPES[options.shape])
    student = scratch_config(SHAPES[options.shape].model_copy(update={"decoder_layers": 2}))
    forward = flops_per_utterance(teacher, tokens=options.tokens).total
    trained = flops_per_utterance(student, tokens=options.tokens, shared_encoder=True).total
    median = statistics.median(seconds)
    rate = options.batch_size * (forward + 3 * trained) / median / 1e12 if name.startswith("kd") else float("nan")
    peak = peak_memory(torch.device("cuda" if torch.cuda.is_available() else "cpu")) / 2**30
    speed = f"{1000 * median:.0f} | {options.batch_size / median:.1f} | {rate:.1f} | {peak:.1f}"
    print(f"| {name} | {precision} | {products} | {speed} |", flush=True)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
