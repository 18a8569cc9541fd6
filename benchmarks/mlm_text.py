"""A masked language model against n-grams: loss and accuracy at the same masked positions of the same held-out segments.

    python benchmarks/mlm_text.py RUN        the folder of a finished run of raykd.train_mlm

The n-grams are counted on the run's training segments and guess a token from those before it: interpolated Kneser-Ney (Chen and
Goodman 1999, section 2.7) with one discount. The masked language model also sees what comes after.

Shapes: N masked positions, V vocabulary.
"""

import argparse

import numpy as np
from numpy.typing import NDArray

from raykd.config import load_mlm_config
from raykd.data.batches import TextCollate
from raykd.data.corpus import Corpus, read_rows
from raykd.data.text_corpus import prepare_text
from raykd.evaluation.masked_lm import batch_sums, summary_of
from raykd.models.masked_lm import load_masked_lm
from raykd.training.cluster import connect

DISCOUNT = 0.75
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    options = parser.parse_args()
    connect()
    corpus = prepare_text(load_mlm_config(f"{options.run}/config.yaml").text, f"{options.run}/mlm")
    model = load_masked_lm(f"{options.run}/mlm")
    ngrams = NGrams(
        [row.column("tokens")[0].values.to_numpy() for row in rows_of(corpus, "train")], model.embedding.num_embeddings
    )
    scores: dict[str, list[NDArray[np.float64]]] = {name: [] for name in ("unigram", "trigram", "masked language model")}
    rows, collate = rows_of(corpus, "dev"), TextCollate(corpus.pad_id, None, seed=0)
    for begin in range(0, len(rows), BATCH):
        batch = collate.batch(rows[begin : begin + BATCH], epoch=0)
        masks = zip(batch.tokens_BT.numpy(), batch.masked_BT.numpy(), strict=True)
        places = [(tokens, int(np.flatnonzero(masked)[0])) for tokens, masked in masks]
        scores["masked language model"].append(batch_sums(model, batch))
        for name, order in (("unigram", 1), ("trigram", 3)):
            scores[name] += [sums_of(ngrams.probabilities(tokens[:place], order), tokens[place]) for tokens, place in places]
    print(f"\n{len(rows)} masked positions, {model.embedding.num_embeddings} tokens\n")
    print("| model | loss | top-1 | top-5 | perplexity |\n|---|--:|--:|--:|--:|")
    for name, sums in scores.items():
        found = summary_of(np.sum(sums, axis=0))
        rates = " | ".join(f"{100 * found[key]:.1f} %" for key in ("top1_accuracy", "top5_accuracy"))
        print(f"| {name} | {found['loss']:.3f} | {rates} | {found['pseudo_perplexity']:.1f} |")


def rows_of(corpus: Corpus, split: str) -> list:
    """All rows of a split."""
    index = corpus.index(split)
    return read_rows(corpus.path, index.shard_names, index.shard, index.row, corpus.rows_per_batch)


def sums_of(probabilities_V: NDArray[np.float64], label: int) -> NDArray[np.float64]:
    """Loss, right guess, right among five guesses, and 1."""
    five = np.argpartition(-probabilities_V, 5)[:5]
    first = probabilities_V.argmax() == label
    return np.array([-np.log(probabilities_V[label]), float(first), float(label in five), 1.0])


class NGrams:
    """Interpolated Kneser-Ney over one, two and three tokens; unigrams are plain frequencies when asked for alone."""

    def __init__(self, sequences: list[NDArray[np.int32]], vocabulary: int) -> None:
        self.V = vocabulary
        tokens = np.concatenate(sequences).astype(np.int64)
        position = np.concatenate([np.arange(len(sequence)) for sequence in sequences])
        self.frequency_V = (np.bincount(tokens, minlength=vocabulary) + 1) / (len(tokens) + vocabulary)
        pairs = tokens[:-1] * vocabulary + tokens[1:]
        triples = pairs[:-1] * vocabulary + tokens[2:]
        self.triples, self.triple_counts = np.unique(triples[position[2:] >= 2], return_counts=True)
        # Below the highest order Kneser-Ney counts in how many contexts a continuation was seen.
        distinct_pairs = np.unique(pairs[position[1:] >= 1])
        self.pairs, self.pair_counts = np.unique(self.triples % vocabulary**2, return_counts=True)
        contexts_V = np.bincount(distinct_pairs % vocabulary, minlength=vocabulary)
        self.continuation_V = (contexts_V + 1) / (contexts_V.sum() + vocabulary)

    def probabilities(self, before: NDArray[np.int64], order: int) -> NDArray[np.float64]:
        """Of every token after those before it."""
        if order == 1:
            return self.frequency_V
        found_V = self.continuation_V
        if len(before) >= 1:
            found_V = self._interpolated(self.pairs, self.pair_counts, int(before[-1]), found_V)
        if len(before) >= 2:
            found_V = self._interpolated(self.triples, self.triple_counts, int(before[-2]) * self.V + int(before[-1]), found_V)
        return found_V

    def _interpolated(
        self, keys: NDArray[np.int64], counts: NDArray[np.int64], context: int, lower_V: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        begin, end = np.searchsorted(keys, [context * self.V, (context + 1) * self.V])
        if begin == end:
            return lower_V
        seen = counts[begin:end]
        mixed_V = lower_V * (DISCOUNT * len(seen) / seen.sum())
        mixed_V[keys[begin:end] % self.V] += (seen - DISCOUNT) / seen.sum()
        return mixed_V


if __name__ == "__main__":
    main()
