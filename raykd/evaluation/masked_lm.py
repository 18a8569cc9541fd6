"""How well a masked language model guesses: loss, top-1 and top-5 accuracy and pseudo-perplexity on a split of a text corpus.

One position of each segment is masked, the same one in every evaluation: it follows from the segment's id. That is the
published validation (`mlm/train_lstm.py`), with fixed draws so that two evaluations compare.

Shapes: B segments of a batch, T token positions, N masked positions, D width, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch
from torch import Tensor

from raykd.data.batches import TextBatch, TextCollate
from raykd.data.corpus import Corpus, read_rows
from raykd.errors import UserError
from raykd.evaluation.recogniser import default_device, lay_over
from raykd.evaluation.runner import WORKER_CPUS
from raykd.models.masked_lm import MaskedLm, load_masked_lm

_BATCH_SEGMENTS = 64
_RETRIES = 3


@dataclass(frozen=True)
class MlmEvaluation:
    """Which masked language model is evaluated on what. Sent to the workers, so it holds paths."""

    model: str
    """Folder of the model."""
    corpus: Corpus
    split: str
    weights: str | None = None
    """A safetensors file that replaces the model's weights: what a checkpoint trained."""


def evaluate_masked_lm(request: MlmEvaluation, *, gpus_per_worker: float = 0.0) -> dict[str, float]:
    """Evaluate on Ray workers: `loss` in nats, `top1_accuracy`, `top5_accuracy` and `pseudo_perplexity`, exp(loss).

    Pseudo-perplexity (Salazar et al. 2020, arXiv 1910.14659, section 2.2) is over all positions of a text, each masked alone;
    one position of each segment, drawn at random, estimates it.

    Raises:
        UserError: the split is not there or empty, or the model cannot be read.
    """
    segments = len(request.corpus.index(request.split))
    if segments == 0:
        raise UserError(f"text: the split {request.split} has no segments")
    cluster = ray.cluster_resources()
    count = max(1, min(int(cluster.get("GPU" if gpus_per_worker else "CPU", 1)), segments // _BATCH_SEGMENTS))
    threads = max(1, int(cluster.get("CPU", 1)) // count)
    worker = _evaluate.options(num_cpus=WORKER_CPUS, num_gpus=gpus_per_worker, scheduling_strategy="SPREAD")
    parts = ray.get([worker.remote(request, number, count, threads) for number in range(count)])
    return summary_of(np.sum(parts, axis=0))


@ray.remote(max_retries=_RETRIES)
def _evaluate(request: MlmEvaluation, number: int, of: int, threads: int) -> np.ndarray:
    torch.set_num_threads(threads)
    model = load_masked_lm(request.model)
    if request.weights:
        lay_over(model, request.weights)
    return sums_over(model.to(default_device()), request.corpus, request.split, number, of)


def sums_over(model: MaskedLm, corpus: Corpus, split: str, number: int = 0, of: int = 1) -> np.ndarray:
    """Sums for `summary_of` over every `of`-th batch of the split, from batch `number` on."""
    index = corpus.index(split)
    collate = TextCollate(corpus.pad_id, None, seed=0)
    by_length = np.argsort(index.n_tokens, kind="stable")
    sums = np.zeros(4)
    for begin in range(number * _BATCH_SEGMENTS, len(by_length), of * _BATCH_SEGMENTS):
        positions = by_length[begin : begin + _BATCH_SEGMENTS]
        place = index.shard[positions], index.row[positions]
        rows = read_rows(corpus.path, index.shard_names, *place, corpus.rows_per_batch)
        sums += batch_sums(model, collate.batch(rows, epoch=0))
    return sums


@torch.no_grad()
def batch_sums(model: MaskedLm, batch: TextBatch) -> np.ndarray:
    """Loss, right guesses, right ones among five guesses, and count, summed over the masked positions of a batch."""
    device = model.norm.weight.device
    tokens_BT, masked_BT = batch.tokens_BT.to(device), batch.masked_BT.to(device)
    states_BTD = model(model.masked(tokens_BT, masked_BT), batch.lengths_B.to(device))
    return guess_sums(states_BTD[masked_BT] @ model.embedding.weight.T, tokens_BT[masked_BT])


def guess_sums(logits_NV: Tensor, labels_N: Tensor) -> np.ndarray:
    """Loss, right guesses, right ones among five guesses, and count, over tokens."""
    loss = torch.nn.functional.cross_entropy(logits_NV.float(), labels_N, reduction="sum")
    right_N5 = logits_NV.topk(5).indices == labels_N[:, None]
    return np.array([float(loss), float(right_N5[:, 0].sum()), float(right_N5.sum()), len(labels_N)])


def summary_of(sums: Sequence[float] | np.ndarray) -> dict[str, float]:
    """The scores of summed loss, right guesses, right ones among five, and count."""
    loss, first, five, count = (float(value) for value in sums)
    mean = loss / max(1.0, count)
    scores: dict[str, Any] = {"loss": mean, "top1_accuracy": first / max(1.0, count), "top5_accuracy": five / max(1.0, count)}
    return {**scores, "pseudo_perplexity": math.exp(min(mean, 700.0))}
