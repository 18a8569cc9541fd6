"""HomoDistil and CDD: importance and schedule against plain loops; who is left aside; who gets no gradient from the task."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from raykd.data.text import LabelEncoder
from raykd.errors import UserError
from raykd.models.shrinking import CompactedLinear
from raykd.models.whisper import load_whisper
from raykd.parts.clock import Clock
from raykd.parts.outputs import Outputs
from raykd.parts.recipes.cdd import CddRecipe, GroupLasso
from raykd.parts.recipes.homodistil import HomoDistilRecipe
from raykd.parts.students.learner import WhisperLearner
from raykd.parts.students.shrinking import ROW_NORMS, Shrinking
from raykd.parts.updates.shrinking import RowNorms, Sensitivity, importance
from raykd.parts.worker import Worker
from tests.terms import NOW


def gradient_in(found: dict[int, torch.Tensor], parameter: torch.Tensor) -> torch.Tensor:
    return found[id(parameter)]


def on(folder: Path, **section: Any) -> Worker:
    student = Shrinking(**section)
    model = student.make(load_whisper(str(folder)), 0)
    student.freeze(model)
    return Worker(torch.device("cpu"), student.learner(model), LabelEncoder(str(folder)), lambda learner: 0.0)


def test_importance_is_the_sum_of_weight_times_gradient(tiny_whisper_dir: Path) -> None:
    learner: Any = on(tiny_whisper_dir, decoder_ffn=8, heads=1, freeze_encoder=False).student
    draw = torch.Generator().manual_seed(0)
    gradients = {name: torch.randn(value.shape, generator=draw) for name, value in learner.parts_of_units.items()}
    units = {one.name: one for one in learner.units}
    one = units["model.decoder.layers.1.fc2"]
    layer = "model.decoder.layers.1"
    for channel in (0, 5, 63):
        by_hand = sum(
            float((learner.parts_of_units[name] * gradients[name]).detach().abs().double()[place].sum())
            for name, place in (
                (f"{layer}.fc1.weight", (channel,)),
                (f"{layer}.fc1.bias", (channel,)),
                (f"{layer}.fc2.weight", (slice(None), channel)),
            )
        )
        assert float(importance(one, learner.parts_of_units, gradients)[channel]) == pytest.approx(by_hand)
    attention = "model.decoder.layers.0.encoder_attn"
    head = slice(16, 32)
    by_hand = sum(
        float((learner.parts_of_units[name] * gradients[name]).detach().abs().double()[place].sum())
        for name, place in (
            *[(f"{attention}.{part}_proj.weight", (head,)) for part in "qkv"],
            *[(f"{attention}.{part}_proj.bias", (head,)) for part in "qv"],
            (f"{attention}.out_proj.weight", (slice(None), head)),
        )
    )
    assert float(importance(units[attention], learner.parts_of_units, gradients)[1]) == pytest.approx(by_hand)


@pytest.mark.parametrize("uncertainty", [False, True])
def test_importance_is_averaged_and_the_least_are_left_aside(tiny_whisper_dir: Path, uncertainty: bool) -> None:
    worker = on(tiny_whisper_dir, decoder_ffn=20)
    config = Sensitivity(begin=0.0, end=0.5, every=2, beta1=0.8, beta2=0.6, uncertainty=uncertainty)
    live = config.build(worker)
    learner: Any = worker.student
    draw = torch.Generator().manual_seed(1)
    mean_U = {one.name: torch.zeros(64, dtype=torch.float64) for one in learner.units}
    unsure_U = {name: torch.zeros(64, dtype=torch.float64) for name in mean_U}
    used = []
    for step in range(8):
        gradients = {id(value): torch.randn(value.shape, generator=draw) for value in learner.parts_of_units.values()}
        before = {one.name: one.kept_U.bool().clone() for one in learner.units}
        live.before_update(partial(gradient_in, gradients), Clock(step, 8))
        live.after_update(Clock(step, 8), {})
        for one in learner.units:
            now_U = importance(
                one, learner.parts_of_units, {name: gradients[id(value)] for name, value in learner.parts_of_units.items()}
            )
            mean_U[one.name] = 0.8 * mean_U[one.name] + 0.2 * now_U
            unsure_U[one.name] = 0.6 * unsure_U[one.name] + 0.4 * (now_U - mean_U[one.name]).abs()
            score_U = mean_U[one.name] * (unsure_U[one.name] if uncertainty else 1)
            kept_U = one.kept_U.bool()
            assert not (kept_U & ~before[one.name]).any(), "what was left aside stays so"
            gone_U = before[one.name] & ~kept_U
            if gone_U.any():
                assert score_U[gone_U].max() < score_U[kept_U].min()
        used.append([int(one.kept_U.sum()) for one in learner.units])
    assert used == [[64, 64], *[[20 + round(44 * 0.5**3)] * 2] * 2, *[[20, 20]] * 5]


def test_a_gradient_that_is_not_finite_is_not_taken_in(tiny_whisper_dir: Path) -> None:
    worker = on(tiny_whisper_dir, decoder_ffn=20)
    live = Sensitivity().build(worker)
    live.before_update(lambda parameter: torch.full(parameter.shape, float("nan")), NOW)
    assert all(torch.isfinite(value).all() for value in live.state().values())


def test_the_schedule_is_cubic_between_begin_and_end(tiny_whisper_dir: Path) -> None:
    learner: Any = on(tiny_whisper_dir, decoder_ffn=0.25).student
    one = learner.units[0]
    config = Sensitivity(begin=0.2, end=0.7)
    by_hand = [64, 64, 64, 16 + round(48 * 0.8**3), 16 + round(48 * 0.4**3), 16, 16]
    assert [config.used(one, done, 100) for done in (0, 10, 20, 30, 50, 70, 100)] == by_hand
    assert HomoDistilRecipe(end=0.7).method().settled == 0.7
    assert CddRecipe(end=0.9).method().settled == 0.9


def test_rows_of_compactors_say_who_goes_and_who_is_reset(tiny_whisper_dir: Path) -> None:
    worker = on(tiny_whisper_dir, decoder_ffn=16, compactors=True)
    learner: Any = worker.student
    live = RowNorms(begin=0.0, end=0.5, every=5, reset=0.5, reset_from=0.3).build(worker)
    with torch.no_grad():
        for layer in learner.compacted:
            layer.compactor.mul_(torch.arange(1.0, 65.0)[:, None])
    for step in range(20):
        live.after_update(Clock(step, 20), {})
        if step == 4:
            assert [int(one.kept_U.sum()) for one in learner.units] == [16 + 6] * 2
            assert not any(layer.reset_F.any() for layer in learner.compacted)
    for one, layer in zip(learner.units, learner.compacted, strict=True):
        assert one.kept_U.nonzero().squeeze(1).tolist() == list(range(48, 64))
        assert layer.reset_F.nonzero().squeeze(1).tolist() == list(range(48, 56))


def test_the_lasso_is_the_sum_of_all_rows_norms_and_the_same_in_every_micro_batch(tiny_whisper_dir: Path) -> None:
    model: Any = Shrinking(decoder_ffn=16, compactors=True).make(load_whisper(str(tiny_whisper_dir)), 0)
    layers = [module for module in model.modules() if isinstance(module, CompactedLinear)]
    for layer in layers:
        torch.nn.init.normal_(layer.compactor)
        layer(torch.zeros(1, 32))
    said = Outputs(auxiliary={ROW_NORMS: [layer.row_norms_F for layer in layers]})
    term = GroupLasso()
    by_hand = sum(float(row_F.square().sum().sqrt()) for layer in layers for row_F in layer.compactor.detach())
    assert float(term.total(said, {}, None, NOW, None)) == pytest.approx(by_hand, rel=1e-5)
    assert term.count(None) == 1


def test_a_student_that_keeps_its_size_is_told(tiny_whisper_dir: Path) -> None:
    model = load_whisper(str(tiny_whisper_dir))
    worker = Worker(torch.device("cpu"), WhisperLearner(model), LabelEncoder(str(tiny_whisper_dir)), lambda learner: 0.0)
    with pytest.raises(UserError, match=r"take student\.kind shrinking"):
        Sensitivity().build(worker)
    with pytest.raises(UserError, match=r"student\.compactors: true"):
        RowNorms().build(on(tiny_whisper_dir, decoder_ffn=16))
    with pytest.raises(UserError, match=r"student\.compactors: true"):
        GroupLasso().total(Outputs(auxiliary={}), {}, None, NOW, None)
