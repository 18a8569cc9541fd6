"""ImitKD: what the student says, against generation by hand in float64; who is sampled; the term on its own sentences."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raykd.data.batches import Batch
from raykd.data.corpus import Corpus, read_utterances
from raykd.data.text import LabelEncoder
from raykd.models.whisper import load_whisper
from raykd.parts.clock import Clock
from raykd.parts.distribution import LogitsDistribution
from raykd.parts.recipes.imitkd import Imitated, ImitKdRecipe, LiveStudentSamples, StudentSamples
from raykd.parts.students.learner import WhisperLearner
from raykd.parts.terms.term import Chunk
from raykd.parts.worker import Worker
from tests.terms import nobody
from tests.training import plain


@pytest.fixture
def batch(numbers: Corpus) -> Batch:
    from raykd.data.batches import collate

    rows = read_utterances(numbers.path, numbers.index("train"), np.arange(6))
    return collate(rows, 500, numbers.pad_id)


@pytest.fixture
def sampler(tiny_whisper_dir: Path) -> Any:
    """Samples of the tiny Whisper with sharper logits, so that greedy guesses do not hang on rounding."""

    def make(**config: Any) -> LiveStudentSamples:
        model = load_whisper(str(tiny_whisper_dir))
        model.requires_grad_(True)
        learner = WhisperLearner(model).train()
        on = Worker(torch.device("cpu"), learner, LabelEncoder(str(tiny_whisper_dir)), lambda model: 0.0)
        return LiveStudentSamples(StudentSamples(**config), on)

    return make


@pytest.mark.slow
def test_what_the_student_says_is_what_it_generates_token_by_token(batch: Batch, sampler: Any, tiny_whisper_dir: Path) -> None:
    samples = sampler(beta=0.0)
    spoken = samples.apply(batch, Clock(3, 10))
    assert bool(spoken.sampled_B.all())
    model, labels = plain.load(str(tiny_whisper_dir)), LabelEncoder(str(tiny_whisper_dir))
    for row, language in enumerate(batch.languages):
        prefix = list(labels.prefix(language))
        said = list(prefix)
        length = int((batch.labels_BU[row] != -100).sum()) + 1
        while len(said) < length and (len(said) == len(prefix) or said[-1] != labels.eot_id):
            with torch.no_grad():
                logits_1UV = model(
                    input_features=batch.mel_BMF[row : row + 1].double(), decoder_input_ids=torch.tensor([said])
                ).logits
            said.append(int(logits_1UV[0, -1].argmax()))
        used = len(said) - 1
        assert spoken.decoder_input_BU[row, :used].tolist() == said[:-1]
        assert spoken.labels_BU[row, :used].tolist() == said[1:]
        assert bool((spoken.labels_BU[row, used:] == -100).all())


def test_the_choice_hangs_on_seed_step_and_utterance_alone(batch: Batch, sampler: Any) -> None:
    samples = sampler(beta=0.5, top_k=4)
    both = samples.apply(batch, Clock(7, 10, seed=3))
    assert 0 < int(both.sampled_B.sum()) < len(batch.ids)
    for row, sampled in enumerate(both.sampled_B.tolist()):
        one = Batch(
            batch.ids[row : row + 1],
            batch.languages[row : row + 1],
            batch.mel_BMF[row : row + 1],
            batch.decoder_input_BU[row : row + 1],
            batch.labels_BU[row : row + 1],
            1.0,
        )
        alone = samples.apply(one, Clock(7, 10, seed=3))
        assert (alone.sampled_B is not None and bool(alone.sampled_B[0])) is sampled
        torch.testing.assert_close(alone.labels_BU[0], both.labels_BU[row])
    others = [samples.apply(batch, Clock(step, 10, seed=3)).sampled_B for step in range(8)]
    assert len({tuple(one.tolist()) for one in others if one is not None}) > 1


def test_gold_utterances_stay_as_they_are_and_beta_1_touches_nothing(batch: Batch, sampler: Any) -> None:
    assert sampler(beta=1.0).apply(batch, Clock(0, 10)) is batch
    some = sampler(beta=0.5).apply(batch, Clock(7, 10, seed=3))
    gold_B = ~some.sampled_B
    torch.testing.assert_close(some.labels_BU[gold_B], batch.labels_BU[gold_B])
    torch.testing.assert_close(some.decoder_input_BU[gold_B], batch.decoder_input_BU[gold_B])
    assert some.n_valid("gold") + some.n_valid("sampled") == some.n_valid()


def test_tokens_are_drawn_from_the_k_likeliest_with_their_shares(sampler: Any) -> None:
    samples = sampler(top_k=2)
    logits_1V = torch.tensor([[0.0, 2.0, 1.0, -1.0]])
    draws = [np.random.default_rng(number) for number in range(2000)]
    counts = Counter(samples._chosen(logits_1V.expand(2000, -1), draws))
    assert set(counts) == {1, 2}
    assert counts[1] / 2000 == pytest.approx(1 / (1 + np.exp(-1)), abs=0.03)


def test_optimal_learns_the_teachers_likeliest_token_on_its_own_sentences_only() -> None:
    random = torch.Generator().manual_seed(0)
    student_NV, teacher_NV = torch.randn(2, 4, 9, generator=random, dtype=torch.float64)
    labels_BU = torch.tensor([[1, 2], [3, 4]])
    batch = Batch(["a", "b"], ["cs", "cs"], torch.zeros(2, 1, 1), labels_BU, labels_BU, 1.0)
    batch = batch.changed(sampled_B=torch.tensor([False, True]))
    chunk = Chunk(
        student_NV, slice(0, 4), batch, batch.labels_N, {"teacher": LogitsDistribution(teacher_NV)}, Clock(0, 1), nobody
    )
    log_p_NV = student_NV.log_softmax(-1)
    wanted = [1, 2, int(teacher_NV[2].argmax()), int(teacher_NV[3].argmax())]
    torch.testing.assert_close(Imitated().values(chunk), -log_p_NV[range(4), wanted], rtol=0, atol=1e-12)


def test_the_papers_mixing_rate() -> None:
    """beta = 200^(-t/N): 1 at first, a 200th at the end (configs of the authors' repository)."""
    beta = ImitKdRecipe().beta
    assert [Clock(step, 100).at(beta) for step in (0, 50, 100)] == pytest.approx([1.0, 200**-0.5, 1 / 200])
