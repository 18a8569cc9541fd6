"""Utterances a second and core of the data pipeline, against WhisperFeatureExtractor in one process on the same clips.

    python benchmarks/pipeline_throughput.py [--clips 100] [--ray]

Both sides decode with soundfile, resample with soxr and make the same labels; they differ in the log-mel. The plain side runs
the extractor on its 30 s window, clip by clip, as Hugging Face's fine-tuning scripts do. Everything runs in one thread, and
processor time is counted, so that other programs' load is not.
With `--ray` the whole preparation is timed too: manifest to shards on all cores of this machine.
"""

import argparse
import io
import json
import logging
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from transformers import WhisperFeatureExtractor

from raykd.config.data import DataConfig
from raykd.config.models import ScratchConfig
from raykd.data.format import SAMPLE_RATE, SpeechFormat
from raykd.data.mel import HOP, N_FFT, log_mel
from raykd.data.prepare import prepare_corpus
from raykd.data.shards import ShardMaker
from raykd.data.text import LabelEncoder
from raykd.models.demo import demo_processor

WINDOW_FRAMES = 3000
N_MELS = 80
TEXT = "dnes ráno jsme se vydali na cestu přes hory a večer jsme byli doma"
Rows = list[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=7, help="the fastest counts")
    parser.add_argument("--ray", action="store_true", help="time prepare_corpus on all cores as well")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        demo_processor(ScratchConfig(max_label_tokens=448)).save_pretrained(folder)
        print(f"{machine()}, Python {platform.python_version()}, torch {torch.__version__}, NumPy {np.__version__}")
        print(f"{arguments.clips} clips, one thread\n")
        print("| clips | stage | plain: extractor, utt/s | raykd, utt/s | ratio |\n|---|---|---|---|---|")
        for low, high, rate in ((5, 10, 16_000), (5, 10, 48_000), (29, 30, 16_000)):
            rows = make_rows(arguments.clips, low, high, rate)
            print_comparison(f"{low}-{high} s, {rate // 1000} kHz FLAC", rows, folder, arguments.repeats)
        print_floor(7.5)
        if arguments.ray:
            print_preparation(make_rows(10 * arguments.clips, 5, 10, 16_000), folder)


def machine() -> str:
    """Processor and number of cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def make_rows(clips: int, low_s: float, high_s: float, rate: int) -> Rows:
    """Utterance rows with embedded FLAC of tones and noise."""
    draws = np.random.default_rng(0)
    rows: Rows = []
    for number in range(clips):
        samples = int(rate * draws.uniform(low_s, high_s))
        sweep = np.cumsum(draws.uniform(100, 3000, size=samples // 1600 + 1).repeat(1600)[:samples]) / rate
        sound = 0.3 * np.sin(2 * np.pi * sweep) + 0.01 * draws.standard_normal(samples)
        buffer = io.BytesIO()
        soundfile.write(buffer, sound, rate, format="FLAC")
        row = {"id": f"{number:05d}", "audio": buffer.getvalue(), "path": None, "text": TEXT, "language": "cs", "problem": None}
        rows.append(row)
    return rows


def print_comparison(name: str, rows: Rows, tokenizer: str, repeats: int) -> None:
    """One line for the log-mel alone and one for everything from encoded bytes to mel and labels."""
    speech_format = SpeechFormat(N_MELS, WINDOW_FRAMES, 448, tokenizer)
    encoder = LabelEncoder(tokenizer)
    maker = ShardMaker("", DataConfig(source="unused.jsonl"), speech_format, encoder)
    extractor = WhisperFeatureExtractor()
    samples = [decode_plainly(row["audio"]) for row in rows]

    def extract(samples_S: NDArray[np.float32]) -> object:
        return extractor(samples_S, sampling_rate=SAMPLE_RATE, return_tensors="np").input_features[0].astype(np.float16)

    def plain(row: dict[str, Any]) -> object:
        return extract(decode_plainly(row["audio"])), encoder.encode(TEXT, "cs")

    stages: list[tuple[str, Callable, Callable, list]] = [
        ("log-mel", extract, lambda samples_S: log_mel(samples_S, N_MELS, WINDOW_FRAMES), samples),
        ("decode, resample, filter, log-mel, labels", plain, maker.prepare, rows),
    ]
    for stage, theirs, ours, items in stages:
        plain_rate, our_rate = per_second([theirs, ours], items, repeats)
        print(f"| {name} | {stage} | {plain_rate:.0f} | {our_rate:.0f} | {our_rate / plain_rate:.1f} |", flush=True)


def decode_plainly(encoded: object) -> NDArray[np.float32]:
    """samples_S at 16 kHz, with the same libraries as raykd's decoder and none of its checks."""
    assert isinstance(encoded, bytes)
    samples_S, rate = soundfile.read(io.BytesIO(encoded), dtype="float32")
    return samples_S if rate == SAMPLE_RATE else soxr.resample(samples_S, rate, SAMPLE_RATE)


def per_second(functions: list[Callable], items: list, repeats: int) -> list[float]:
    """Items for each second of processor time and each function, the best of the repeats; functions take turns."""
    best = [0.0] * len(functions)
    for _ in range(repeats):
        for number, function in enumerate(functions):
            function(items[0])
            start = time.process_time()
            for item in items:
                function(item)
            best[number] = max(best[number], len(items) / (time.process_time() - start))
    return best


def print_floor(seconds: float) -> None:
    """What the arithmetic of the log-mel costs at the speed of this core's matrix product, which no code exceeds."""
    frames = seconds * SAMPLE_RATE / HOP
    bins = N_FFT // 2 + 1
    per_frame = {
        "window": N_FFT,
        "real FFT (2.5 N log2 N)": 2.5 * N_FFT * np.log2(N_FFT),
        "power": 3 * bins,
        "mel filters (dense)": 2 * bins * N_MELS,
        "log and scale": 20 * N_MELS,
    }
    a = np.random.default_rng(0).standard_normal((1024, 1024), np.float32)
    speeds, copies = [], []
    big, other = np.ones((2, 1 << 24), np.float32)
    for _ in range(5):
        start = time.process_time()
        _ = a @ a
        speeds.append(2 * 1024**3 / (time.process_time() - start))
        start = time.process_time()
        np.copyto(other, big)
        copies.append(2 * big.nbytes / (time.process_time() - start))
    flops = frames * sum(per_frame.values())
    n_bytes = 4 * seconds * SAMPLE_RATE + 2 * frames * N_MELS
    bound_s = max(flops / max(speeds), n_bytes / max(copies))
    noise = io.BytesIO()
    soundfile.write(
        noise, 0.1 * np.random.default_rng(0).standard_normal(int(seconds * SAMPLE_RATE)), SAMPLE_RATE, format="FLAC"
    )
    decode_s = 1 / per_second([decode_plainly], [noise.getvalue()] * 50, 3)[0]
    parts = ", ".join(f"{name} {count / 1e3:.1f}k" for name, count in per_frame.items())
    print(f"\nFloor for a clip of {seconds} s, one core:")
    print(f"- log-mel: {flops / 1e6:.0f} MFLOP ({parts} a frame) at {max(speeds) / 1e9:.0f} GFLOP/s of matrix product;")
    print(
        f"  {n_bytes / 1e6:.2f} MB in and out at {max(copies) / 1e9:.0f} GB/s of copying; the larger is {1e3 * bound_s:.2f} ms"
    )
    print(f"- FLAC decoding of 16 kHz noise (libsndfile's): {1e3 * decode_s:.2f} ms")
    print(f"- together at most {1 / (bound_s + decode_s):.0f} utterances/s")


def print_preparation(rows: Rows, tokenizer: str) -> None:
    """Manifest of files to shards through Ray Data. The second run of two counts, when Ray's worker processes are there."""
    import ray

    ray.init(address="local", include_dashboard=False, log_to_driver=False, configure_logging=False)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        lines = []
        for row in rows:
            (Path(folder) / f"{row['id']}.flac").write_bytes(row["audio"])
            lines.append(json.dumps({"audio": f"{row['id']}.flac", "text": TEXT, "language": "cs"}) + "\n")
        manifest = Path(folder) / "manifest.jsonl"
        for warm in (False, True):
            manifest.write_text("".join(lines if warm else lines[: len(lines) // 4]))
            config = DataConfig.model_validate({"source": str(manifest), "cache_dir": f"{folder}/cache"})
            start = time.perf_counter()
            prepare_corpus(config, SpeechFormat(N_MELS, WINDOW_FRAMES, 448, tokenizer))
            elapsed = time.perf_counter() - start
        cores = ray.cluster_resources()["CPU"]
    rate = len(rows) / elapsed
    print(
        f"\nprepare_corpus, {len(rows)} clips of 5-10 s, {cores:.0f} cores: {rate:.0f} utterances/s, {rate / cores:.0f} a core"
    )
    ray.shutdown()


if __name__ == "__main__":
    main()
