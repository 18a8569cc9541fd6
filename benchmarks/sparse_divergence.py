"""What a cache of the teacher's K likeliest tokens loses: divergences over K tokens and the tail against those over all tokens.

    python benchmarks/sparse_divergence.py --teacher WHISPER_BASE --student STUDENT --data MANIFEST [--language en]

On real speech and real logits, at gold prefixes. For each divergence and K: the mean over tokens, the loss of it in per cent
(it is never more than the full one), and how far the gradient with respect to the student's logits is off, as a share of the
full gradient's norm, over all tokens. Bytes: of the cache, for each label position.

Shapes: B utterances, U label positions, N valid ones, V vocabulary.
"""

import argparse
from pathlib import Path

import torch
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table
from torch import Tensor

from raykd.config.data import DataConfig
from raykd.data.batches import collate
from raykd.data.corpus import read_utterances
from raykd.data.prepare import prepare_corpus
from raykd.data.teacher_cache import token_type
from raykd.labelling.answers import likeliest
from raykd.models.whisper import load_whisper, speech_format
from raykd.parts.distribution import HeadDistribution, TopKDistribution
from raykd.parts.terms.js import Js
from raykd.parts.terms.kl import Kl
from raykd.parts.terms.reverse_kl import ReverseKl
from raykd.parts.terms.term import Divergence, LogProbs, over_events
from raykd.training.cluster import connect

KS = (1, 5, 10, 20, 50, 100, 200)
DIVERGENCES: dict[str, tuple[Divergence, float]] = {
    "KL, temperature 1": (Kl(), 1.0),
    "KL, temperature 2": (Kl(), 2.0),
    "reverse KL": (ReverseKl(), 1.0),
    "JS": (Js(), 1.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--student", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--language", default="en")
    parser.add_argument("--split", default="test")
    parser.add_argument("--cache-dir", default="cache")
    options = parser.parse_args()
    connect()
    heads = hidden(options)
    print_table(*heads)


@torch.no_grad()
def hidden(options: argparse.Namespace) -> tuple[HeadDistribution, HeadDistribution]:
    """Teacher and student at every gold label position of the split."""
    wanted = speech_format(options.teacher)
    data = DataConfig(source=options.data, language=options.language, cache_dir=str(Path(options.cache_dir)))
    corpus = prepare_corpus(data, wanted)
    index = corpus.index(options.split)
    found = []
    for name in (options.teacher, options.student):
        model = load_whisper(name).eval()
        states = []
        for start in range(0, len(index), 16):
            positions = range(start, min(start + 16, len(index)))
            batch = collate(read_utterances(corpus.path, index, positions), wanted.window_frames, corpus.pad_id)
            hidden_BUD = model.model(input_features=batch.mel_BMF, decoder_input_ids=batch.decoder_input_BU).last_hidden_state
            states.append(hidden_BUD.flatten(0, 1)[batch.valid_N])
        found.append(HeadDistribution(torch.cat(states), model.proj_out.weight.detach()))
    return found[0], found[1]


def print_table(teacher: HeadDistribution, student: HeadDistribution) -> None:
    """One row for each K, and one for all tokens."""
    vocabulary = teacher.shape[1]
    entry = token_type(vocabulary)().itemsize + 2
    table = Table("K", "bytes", *(f"{name}: lost, gradient" for name in DIVERGENCES), box=MARKDOWN)
    full = {name: over_all(teacher, student, *one) for name, one in DIVERGENCES.items()}
    table.add_row("all", "", *(f"{value:.4f}" for value, _ in full.values()))
    for k in KS:
        cells = []
        for name, (divergence, temperature) in DIVERGENCES.items():
            value, gradient = full[name]
            sparse, off = over_kept(teacher, student, divergence, temperature, k)
            cells.append(f"{100 * (value - sparse) / value:.2f} %, {100 * off / gradient:.2f} %")
        table.add_row(str(k), str(k * entry + 4), *cells)
    Console(width=180).print(f"{teacher.shape[0]} tokens, vocabulary {vocabulary}", table)


def over_all(
    teacher: HeadDistribution, student: HeadDistribution, divergence: Divergence, temperature: float
) -> tuple[float, float]:
    """Mean over tokens, and the norm of the gradient of the sum."""
    total, squares = 0.0, 0.0
    for tokens in chunks(teacher):
        gradient_NV = torch.zeros(len(teacher.hidden_ND[tokens]), teacher.shape[1])
        target = LogProbs(teacher.log_probs(tokens, temperature))
        total += divergence.between(LogProbs(student.log_probs(tokens, temperature)), target, gradient_NV, 1.0).sum().item()
        squares += gradient_NV.square().sum().item()
    return total / teacher.shape[0], squares**0.5


def over_kept(
    teacher: HeadDistribution, student: HeadDistribution, divergence: Divergence, temperature: float, k: int
) -> tuple[float, float]:
    """The same over K tokens and the tail, as a cache has them, and the norm of the gradient's error."""
    total, squares = 0.0, 0.0
    tokens_NK, log_NK, tail_NT = likeliest(teacher, k, (temperature,))
    kept = TopKDistribution(tokens_NK, log_NK, {temperature: tail_NT[:, 0]}, teacher.shape[1])
    for tokens in chunks(teacher):
        whole_NV, sparse_NV = torch.zeros(2, len(teacher.hidden_ND[tokens]), teacher.shape[1])
        theirs = LogProbs(teacher.log_probs(tokens, temperature))
        divergence.between(LogProbs(student.log_probs(tokens, temperature)), theirs, whole_NV, 1.0)
        named_NK, log_NE = kept.events(tokens, temperature)
        ours = LogProbs(student.log_probs(tokens, temperature))
        total += over_events(divergence.between, ours, named_NK, LogProbs(log_NE), sparse_NV, 1.0).sum().item()
        squares += norm_of_difference(whole_NV, sparse_NV) ** 2
    return total / teacher.shape[0], squares**0.5


def norm_of_difference(one_NV: Tensor, other_NV: Tensor) -> float:
    return (one_NV - other_NV).norm().item()


def chunks(head: HeadDistribution) -> list[slice]:
    return [slice(start, start + 256) for start in range(0, head.shape[0], 256)]


if __name__ == "__main__":
    main()
