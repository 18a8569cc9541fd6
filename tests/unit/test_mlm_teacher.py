"""The masked language model as a teacher: which positions it predicts, what it keeps, and how its loss is weighed."""

import pytest
import torch
from torch import Tensor

from raykd.config import Config
from raykd.data.batches import Batch
from raykd.models.masked_lm import MaskedLm, new_masked_lm
from raykd.parts.distribution import LogitsDistribution
from raykd.parts.recipes.mlm_kd import PUBLISHED_VOCABULARY, MlmKdRecipe
from raykd.parts.targets.mlm import MlmTarget, MlmTeacher
from raykd.parts.terms.ce import Ce
from raykd.parts.terms.kl import Kl
from tests.terms import loss_and_sums

SEQUENCES = ([1, 2, 3, 4, 5, 6], [1, 2, 9, 6])


def batch() -> tuple[Tensor, Tensor]:
    """decoder_input_BU and labels_BU as `data.batches.collate` makes them; 6 ends a text and pads the input."""
    inputs_BU, labels_BU = torch.full((2, 5), 6), torch.full((2, 5), -100)
    for row, sequence in enumerate(SEQUENCES):
        inputs_BU[row, : len(sequence) - 1] = torch.tensor(sequence[:-1])
        labels_BU[row, : len(sequence) - 1] = torch.tensor(sequence[1:])
    return inputs_BU, labels_BU


def teacher(model: MaskedLm, **config: object) -> MlmTeacher:
    starts_word_V = torch.tensor([token not in (4, 9) for token in range(20)])
    return MlmTeacher(model, MlmTarget.model_validate({"model": "unused", **config}), starts_word_V)


def small() -> MaskedLm:
    return new_masked_lm(vocabulary=20, width=8, layers=2, mask_id=19, seed=0)


def test_each_label_is_predicted_from_the_gold_text_around_it() -> None:
    model = small()
    distribution = teacher(model).distribution(*batch())
    expected = []
    for sequence in SEQUENCES:
        for position in range(1, len(sequence)):
            masked_T = torch.tensor(sequence)
            masked_T[position] = model.mask_id
            state_D = model(masked_T[None], torch.tensor([len(sequence)]))[0, position]
            expected.append((model.embedding.weight @ state_D).log_softmax(-1))
    assert distribution.shape == (8, 20)
    torch.testing.assert_close(distribution.log_probs(slice(0, 8), 1.0), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_a_batch_is_asked_as_it_is() -> None:
    inputs_BU, labels_BU = batch()
    said = teacher(small()).outputs(Batch([], [], torch.empty(0), inputs_BU, labels_BU, 0.0), frozenset(), {})
    assert said.distribution is not None
    expected = teacher(small()).distribution(inputs_BU, labels_BU)
    torch.testing.assert_close(said.distribution.log_probs(slice(0, 8), 1.0), expected.log_probs(slice(0, 8), 1.0))


@pytest.mark.parametrize("positions", ["exact", "fast", "word"])
def test_texts_that_come_again_are_remembered_within_the_limit(positions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    remembering, forgetting = teacher(small(), positions=positions), teacher(small(), positions=positions, cache_mb=0)
    first, again = (remembering.distribution(*batch()).hidden_ND for _ in range(2))
    assert torch.equal(first, again)
    monkeypatch.setattr(MaskedLm, f"{positions}_states", lambda *_: pytest.fail("computed again"))
    assert torch.equal(remembering.distribution(*batch()).hidden_ND, first)
    assert len(remembering._cache) == 2
    assert not forgetting._cache


def recipe(**fields: object) -> MlmKdRecipe:
    return MlmKdRecipe.model_validate({"recipe": "mlm_kd", "mlm": "somewhere", **fields})


def gradient(objective: MlmKdRecipe, hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor, mlm_NV: Tensor) -> Tensor:
    """Of our objective, a mean over tokens, with respect to the hidden states."""
    hidden_ND = hidden_ND.clone().requires_grad_()
    targets = {"mlm": LogitsDistribution(mlm_NV)}
    loss_and_sums(hidden_ND, weight_VD, labels_N, targets, objective.method().terms)[0].backward()
    assert hidden_ND.grad is not None
    return hidden_ND.grad / len(labels_N)


def test_both_presets_weigh_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """`code` against the published arithmetic (a mean over tokens and vocabulary, times tau squared), up to a common factor."""
    N, V, D, lambda_lm, tau = 7, 40, 6, 1e-3, 2.0
    monkeypatch.setattr("raykd.parts.recipes.mlm_kd.PUBLISHED_VOCABULARY", V)
    random = torch.Generator().manual_seed(0)
    hidden_ND, weight_VD, mlm_NV = (torch.randn(*s, generator=random, dtype=torch.float64) for s in ((N, D), (V, D), (N, V)))
    labels_N = torch.randint(0, V, (N,), generator=random)

    def published(student_tau: float, kl_scale: float) -> Tensor:
        states_ND = hidden_ND.clone().requires_grad_()
        logits_NV = states_ND @ weight_VD.T
        ce = torch.nn.functional.cross_entropy(logits_NV, labels_N)
        kd = torch.nn.KLDivLoss(reduction="none", log_target=True)(
            (logits_NV / student_tau).log_softmax(-1), mlm_NV.log_softmax(-1)
        )
        (lambda_lm * ce + (1 - lambda_lm) * kl_scale * kd.sum()).backward()
        assert states_ND.grad is not None
        return states_ND.grad

    inputs = (hidden_ND, weight_VD, labels_N, mlm_NV)
    torch.testing.assert_close(gradient(recipe(preset="card"), *inputs), published(1.0, 1 / N), rtol=1e-9, atol=1e-14)
    by_code, expected = gradient(recipe(preset="code"), *inputs), published(tau, tau**2 / (N * V))
    factor = lambda_lm + (1 - lambda_lm) * tau**2 / V
    torch.testing.assert_close(by_code * factor, expected, rtol=1e-9, atol=1e-14)


def test_the_published_numbers_are_93_per_cent_labels_and_7_per_cent_language_model() -> None:
    ce, kl = recipe().method().terms
    assert isinstance(ce, Ce)
    assert isinstance(kl, Kl)
    assert isinstance(ce.weight, float)
    assert isinstance(kl.weight, float)
    assert isinstance(kl.student_temperature, float)
    assert PUBLISHED_VOCABULARY == 51_865
    assert ce.weight == pytest.approx(0.9285, abs=1e-4)
    assert kl.weight * kl.student_temperature**2 == pytest.approx(0.0715, abs=1e-4)
    assert ce.weight + kl.weight * kl.student_temperature**2 == pytest.approx(1)


def test_both_teachers_may_share_an_objective() -> None:
    tree = {
        "data": {"source": "demo"},
        "teacher": {"model": "openai/whisper-large-v2"},
        "objective": {"mlm": "mlm", "terms": [{"kind": "kl"}, {"kind": "kl", "target": "mlm", "weight": 0.1}]},
        "train": {"steps": 1},
    }
    method = Config.model_validate(tree).method
    assert [term.name for term in method.terms] == ["kl_teacher", "kl_mlm"]
    assert method.targets["mlm"] == MlmTarget(model="mlm")
    assert method.needed(method.terms) == ["teacher", "mlm"]
    tree["objective"]["mlm"] = None  # type: ignore[index]
    with pytest.raises(ValueError, match=r"no target is named 'mlm'; give it in objective\.targets \(known: teacher\)"):
        Config.model_validate(tree)
