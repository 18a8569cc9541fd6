"""Training speed: one worker under Ray Train, Ray Data and DeepSpeed, against a plain PyTorch loop on the same steps.

    python benchmarks/training_throughput.py [--steps 40] [--precision float32] [--zero-stage 0]

Both take the same batches of demo speech through the same student step (encoder shared with a frozen teacher, objective kd)
with the same number of threads. They are run one after the other, twice; the table gives medians and their ratio.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from raykd.config import Config
from raykd.config.models import ScratchConfig
from raykd.data.prepare import prepare_corpus
from raykd.data.stream import local_steps
from raykd.models.demo import demo_processor, new_whisper
from raykd.models.precision import compute_dtype
from raykd.models.size import flops_per_utterance
from raykd.models.whisper import load_whisper, save_whisper, speech_format
from raykd.parts.clock import Clock
from raykd.parts.worker import Worker
from raykd.training.cluster import connect, plan_resources
from raykd.training.method import LiveMethod
from raykd.training.plan import learning_rate
from raykd.training.shell import train_on_cluster
from raykd.training.step import Step
from raykd.training.student_job import StudentJob

WARM_UP = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--zero-stage", type=int, default=0, choices=(0, 3), help="one worker runs 1 and 2 as 0")
    options = parser.parse_args()
    connect()
    with tempfile.TemporaryDirectory(prefix="raykd-benchmark-") as folder:
        job = make_job(Path(folder), options)
        resources = plan_resources(job.config.cluster)
        seconds: dict[str, list[float]] = {"plain PyTorch": [], "raykd": []}
        for attempt in range(2):
            seconds["plain PyTorch"] += plain_steps(job, resources.threads_per_worker)
            again = StudentJob(**{**vars(job), "checkpoints": f"{folder}/checkpoints-{attempt}"})
            records: list[dict] = []
            train_on_cluster(again, resources, f"{folder}/ray", records.append)
            seconds["raykd"] += [record["seconds"] for record in records if record["kind"] == "train"][WARM_UP:]
        print_table(job, seconds, resources.threads_per_worker, options.batch_size)


def make_job(folder: Path, options: argparse.Namespace) -> StudentJob:
    """A teacher of random weights, its one-layer student, and an hour of demo speech."""
    config = Config.model_validate(
        {
            "data": {"source": {"kind": "demo", "hours": 0.3}, "cache_dir": str(folder / "cache")},
            "teacher": {"model": str(folder / "teacher"), "dtype": options.precision},
            "student": {"decoder_layers": 1},
            "train": {
                "steps": options.steps,
                "batch_size": options.batch_size,
                "precision": options.precision,
                "zero_stage": options.zero_stage,
                "eval_every": options.steps + 1,
            },
            "cluster": {"num_workers": 1},
        }
    )
    dims = ScratchConfig(width=options.width, heads=options.width // 32, ffn=4 * options.width, window_s=5)
    save_whisper(new_whisper(dims, seed=0), demo_processor(dims), str(folder / "teacher"))
    teacher = load_whisper(str(folder / "teacher"))
    save_whisper(config.student.make(teacher, 0), demo_processor(dims), str(folder / "student"))
    wanted = speech_format(str(folder / "teacher"))
    return StudentJob(
        config=config,
        corpus=prepare_corpus(config.data, wanted),
        speech_format=wanted,
        student=str(folder / "student"),
        encoder_shared=True,
        teacher_hash="",
        checkpoints=str(folder / "checkpoints"),
        trained_ids=None,
    )


def plain_steps(job: StudentJob, threads: int) -> list[float]:
    """Seconds of each step of a loop that a researcher would write: torch AdamW, clipping, no Ray, no DeepSpeed."""
    torch.set_num_threads(threads)
    config = job.config.train
    device = torch.device("cpu")
    dtype = compute_dtype(config.precision, device)
    learner = job.learner(job.load_model())
    steps = config.steps or 0
    method = LiveMethod(job.method, Worker(device, learner, job.labels(), dev_loss=lambda learner: 0.0), Clock(0, steps))
    learner.settle(device, job.frozen_dtype(device))
    module = Step(learner, dtype if dtype != torch.float32 else None)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.lr, weight_decay=0.0)
    order = job.order()
    seconds = []
    began = time.monotonic()
    for batches in local_steps(job.reading(order, 0, 1, 1), range(steps)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, batches.step, steps)
        clock, (batch,) = Clock(batches.step, steps), batches.micro
        terms = method.active(clock)
        loss, _ = module(batch, method.targets, terms, clock)
        optimizer.zero_grad()
        (loss / batches.global_tokens).backward()
        torch.nn.utils.clip_grad_norm_(trained, config.clip_norm)
        optimizer.step()
        now = time.monotonic()
        seconds.append(now - began)
        began = now
    return seconds[WARM_UP:]


def teacher_of(job: StudentJob) -> str:
    assert job.config.teacher is not None
    return job.config.teacher.model


def print_table(job: StudentJob, seconds: dict[str, list[float]], threads: int, batch_size: int) -> None:
    tokens = round(float(job.corpus.index("train").n_tokens.mean()))
    teacher, student = load_whisper(teacher_of(job)).config, load_whisper(job.student).config
    forward = flops_per_utterance(teacher, tokens=tokens).total
    trained = flops_per_utterance(student, tokens=tokens, shared_encoder=True).total
    gflop = batch_size * (forward + 3 * trained) / 1e9
    plain = statistics.median(seconds["plain PyTorch"])
    print(f"\n{batch_size} utterances a step, {tokens} tokens each, {threads} threads, {gflop:.1f} GFLOP a step\n")
    print("| loop | ms a step | utterances/s | GFLOP/s | against plain |\n|---|--:|--:|--:|--:|")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"| {name} | {1000 * median:.0f} | {batch_size / median:.1f} | {gflop / median:.0f} | {median / plain:.2f} |")


if __name__ == "__main__":
    main()
