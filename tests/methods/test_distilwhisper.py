"""Multilingual DistilWhisper: its weights, which positions count, its settings' mistakes, and LoRA beside it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from raykd.config import Config
from raykd.data.batches import Batch, counted_positions
from raykd.errors import UserError
from raykd.models.experts import expert_languages
from raykd.models.lora import lora_of
from raykd.models.whisper import load_processor, load_whisper, save_whisper
from raykd.parts.recipes.distilwhisper import DistilWhisperRecipe, GateBudget
from raykd.parts.recipes.recipe import Method, Recipe
from raykd.parts.students.experts import Experts, ExpertsLearner
from raykd.parts.students.layer_copy import LayerCopy
from raykd.parts.students.lora import Lora
from raykd.parts.students.pretrained import Pretrained
from tests.unit.test_experts import hidden, inputs, made


def method(**fields: Any) -> Method:
    made = TypeAdapter(Recipe).validate_python({"recipe": "distilwhisper", **fields})
    assert isinstance(made, DistilWhisperRecipe)
    return made.method()


def test_the_published_weights_are_proportional_to_one_one_and_two() -> None:
    weights = {term.name or term.kind: term.weight for term in method().terms if not term.only_measured}
    assert list(weights) == ["ce", "gate_budget", "js"]
    assert weights["ce"] == weights["gate_budget"] == pytest.approx(0.25150, abs=1e-5)
    assert weights["js"] == 0.5


def test_without_distillation_it_asks_for_no_teacher() -> None:
    assert [term.kind for term in method(lambda_kd=0).terms if term.targets()] == []
    assert [term.kind for term in method(divergence="kl").terms if term.targets()] == ["kl"]
    with pytest.raises(ValidationError, match="divergence has no effect"):
        method(lambda_kd=0, divergence="kl")


def two_utterances() -> Batch:
    """60 of 100 frames and all of 3 labels; 31 frames and 1 label, in a language without an expert; 7 frames and 2 labels."""
    labels_BU = torch.tensor([[-100, 5, 6, 7], [-100, 5, -100, -100], [-100, 5, 6, -100]])
    return Batch(
        ["a", "b", "c"], ["cs", "en", "cs"], torch.zeros(3, 2, 100), labels_BU.clamp(min=0), labels_BU, 1.0, frames=[60, 31, 7]
    )


def test_padding_and_other_languages_do_not_count() -> None:
    masks = counted_positions(two_utterances(), frozenset({"cs"}), with_padding=False)
    assert masks["encoder"].sum(1).tolist() == [30, 0, 4]
    assert masks["decoder"].int().tolist() == [[1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 0]]
    published = counted_positions(two_utterances(), frozenset({"cs"}), with_padding=True)
    assert published["encoder"].sum(1).tolist() == [50, 0, 50]
    assert published["decoder"].sum(1).tolist() == [4, 0, 4]


@pytest.mark.slow
def test_the_budget_is_a_distance_and_pulls_towards_itself(tiny_whisper_dir: Path) -> None:
    """The gradient has the side of the step before: down where the mean was above, up where it was below, none at first."""
    from raykd.models.routing import GateRecord
    from raykd.parts.clock import Clock
    from raykd.parts.outputs import Outputs
    from raykd.parts.students.experts import GATES

    term = GateBudget(budget=0.4)
    live = term.build(worker(tiny_whisper_dir))
    assert isinstance(live.state()["mean"], torch.Tensor)
    batch, clock = two_utterances(), Clock(0, 10)
    assert term.count(batch, live) == 34 * 1 + 7 * 2, "one encoder layer and two decoder layers"
    for before, sign in ((None, 0.0), (0.9, 1.0), (0.1, -1.0)):
        if before is not None:
            live.after_update(clock, {"gate_budget": before})
        gates_BT = torch.full((3, 50), 0.5, requires_grad=True)
        said = Outputs(auxiliary={GATES: {"encoder": GateRecord(1, gates_BT), "decoder": GateRecord(2, torch.zeros(3, 4))}})
        total = term.total(said, {}, batch, clock, live)
        assert float(total.detach()) == 17.0
        total.backward()
        assert gates_BT.grad is not None
        assert gates_BT.grad[0, :30].tolist() == [sign] * 30
        assert float(gates_BT.grad[1].abs().sum() + gates_BT.grad[0, 30:].abs().sum()) == 0
    assert term.of_mean(0.3) == pytest.approx(0.1)
    assert term.of_mean(0.6) == pytest.approx(0.2)


def worker(folder: Path, student: Any = None) -> Any:
    from types import SimpleNamespace

    config = student or Experts(model=str(folder), languages=("cs",))
    model = config.make(None, 0)
    config.freeze(model)
    return SimpleNamespace(student=config.learner(model))


def test_a_student_without_gates_is_refused(tiny_whisper_dir: Path) -> None:
    with pytest.raises(UserError, match=r"gate_budget: the student has no gates; take student\.kind experts"):
        GateBudget().build(worker(tiny_whisper_dir, Pretrained(model=str(tiny_whisper_dir))))


def test_experts_start_as_copies_and_alone_train(tiny_whisper_dir: Path) -> None:
    config = Experts(model=str(tiny_whisper_dir), languages=("cs", "pl"), gate_width=8)
    model: Any = config.make(None, seed=0)
    again: Any = config.make(None, seed=0)
    other: Any = config.make(None, seed=1)
    config.freeze(model)
    layer = model.model.decoder.layers[1]
    assert torch.equal(layer.experts["pl"].fc2.weight, layer.fc2.weight)
    assert layer.experts["pl"].fc2.weight.data_ptr() != layer.fc2.weight.data_ptr()
    gate = layer.experts["pl"].gate.hidden.weight
    assert 0 < float(gate.detach().std()) < 0.03
    assert torch.equal(gate, again.model.decoder.layers[1].experts["pl"].gate.hidden.weight)
    assert not torch.equal(gate, other.model.decoder.layers[1].experts["pl"].gate.hidden.weight)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if ".experts." in name}
    assert isinstance(config.learner(model), ExpertsLearner)


@pytest.mark.slow
def test_a_model_with_experts_gets_more_and_keeps_what_it_has(tiny_whisper_dir: Path, tmp_path: Path) -> None:
    first: Any = Experts(model=str(tiny_whisper_dir), languages=("cs",)).make(None, 0)
    with torch.no_grad():
        first.model.encoder.layers[0].experts["cs"].fc1.bias.fill_(3)
    save_whisper(first, load_processor(str(tiny_whisper_dir)), str(tmp_path))
    config = Experts(model=str(tmp_path), languages=("pl",))
    both: Any = config.make(None, 0)
    config.freeze(both)
    assert expert_languages(both.config) == ("cs", "pl")
    assert bool((both.model.encoder.layers[0].experts["cs"].fc1.bias == 3).all())
    assert not both.model.encoder.layers[0].experts["cs"].fc1.bias.requires_grad
    assert both.model.encoder.layers[0].experts["pl"].fc1.bias.requires_grad


def test_a_copy_of_its_layers_is_of_the_shared_ones(tiny_whisper_dir: Path) -> None:
    teacher: Any = Experts(model=str(tiny_whisper_dir), languages=("cs",)).make(None, 0)
    student = LayerCopy(decoder_layers=1).make(teacher, 0)
    assert expert_languages(student.config) == ()
    assert not any("experts" in name for name in student.state_dict())


def test_a_teacher_with_experts_teaches_with_them(tiny_whisper_dir: Path, tmp_path: Path) -> None:
    from raykd.parts.targets.whisper import WhisperTeacher

    teacher = made(tiny_whisper_dir, ("cs",)).float()
    mel_BMF, ids_BU = inputs(teacher)
    labels_BU = ids_BU.clone()
    batch = Batch(["a", "b", "c"], ["cs", "en", "cs"], mel_BMF.float(), ids_BU, labels_BU, 1.0, frames=[10, 10, 10])
    student = SimpleNamespace(frozen_encoder=None)
    on: Any = SimpleNamespace(device=torch.device("cpu"), student=student, compile_or_tell=None)
    said = WhisperTeacher(teacher, on).outputs(batch, frozenset(), {})
    with torch.no_grad():
        expected = hidden(teacher, batch.languages, mel_BMF.float(), ids_BU).flatten(0, 1)
        without = hidden(teacher, [], mel_BMF.float(), ids_BU).flatten(0, 1)
    assert said.hidden_ND is not None
    torch.testing.assert_close(said.hidden_ND, expected, rtol=1e-4, atol=1e-4)
    assert (said.hidden_ND - without).abs().max() > 1e-2


@pytest.mark.parametrize("languages", [[], ["czech"], ["cs", "cs"], ["xx"]])
def test_languages_are_codes_each_once(languages: list[str]) -> None:
    tree = {
        "data": {"source": "demo"},
        "train": {"steps": 1},
        "objective": "ce",
        "student": {"kind": "experts", "model": "a/b", "languages": languages},
    }
    with pytest.raises(ValidationError, match="languages"):
        Config.model_validate(tree)


def test_layers_are_not_computed_a_second_time(tiny_whisper_dir: Path) -> None:
    """The routing of a pass is over when its layers would run again."""
    with pytest.raises(ValidationError, match="not possible with language experts"):
        Experts(model=str(tiny_whisper_dir), languages=("cs",), gradient_checkpointing=True)


def test_lora_changes_nothing_at_first_trains_alone_and_is_merged_in_the_end(tiny_whisper_dir: Path, tmp_path: Path) -> None:
    config = Lora(model=str(tiny_whisper_dir), r=4, alpha=8)
    model: Any = config.make(None, seed=0)
    base: Any = load_whisper(str(tiny_whisper_dir))
    mel_BMF = torch.randn(2, 80, 2 * base.config.max_source_positions)
    ids_BU = torch.randint(0, 1000, (2, 4))

    def said(who: Any) -> torch.Tensor:
        with torch.no_grad():
            return who(mel_BMF, decoder_input_ids=ids_BU).logits

    assert torch.equal(said(model), said(base))
    config.freeze(model)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    layers = base.config.encoder_layers + base.config.decoder_layers
    assert len(trained) == layers * 2 * 2
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    save_whisper(model, load_processor(str(tiny_whisper_dir)), str(tmp_path))
    reloaded: Any = load_whisper(str(tmp_path))
    expected = said(model)
    assert torch.equal(said(reloaded), expected), "a run's folder has them beside the weights"
    plain = config.finished(reloaded)
    assert lora_of(plain.config) is None
    assert plain.state_dict().keys() == base.state_dict().keys()
    torch.testing.assert_close(said(plain), expected, rtol=1e-4, atol=1e-5)
    assert (expected - said(base)).abs().max() > 0.1


def test_lora_wants_layers_that_are_there(tiny_whisper_dir: Path) -> None:
    with pytest.raises(UserError, match=r"student.modules: .* has no linear layers named query \(it has fc1, fc2"):
        Lora(model=str(tiny_whisper_dir), modules=("query",)).make(None, 0)
