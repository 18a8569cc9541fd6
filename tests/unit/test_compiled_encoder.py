"""A frozen encoder that is compiled says what it says as it is, also where it cannot be compiled."""

import copy
import shutil
from collections.abc import Iterator

import pytest
import torch
from torch._inductor import config as inductor

from raykd.config.models import ScratchConfig
from raykd.data.batches import Batch
from raykd.models.demo import new_whisper
from raykd.parts.encoder import FrozenEncoder

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")
LABELS_BU = torch.tensor([[5, 6], [7, 8]])


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    torch.compiler.set_stance("default")
    torch.compiler.reset()


def states(encoder: FrozenEncoder, mel_BMF: torch.Tensor) -> torch.Tensor:
    return encoder.states(Batch(["a", "b"], ["cs", "cs"], mel_BMF, LABELS_BU, LABELS_BU, 1.0))


def both(said: list[str]) -> tuple[FrozenEncoder, FrozenEncoder]:
    """The same encoder of three layers, as it is and to be compiled."""
    dims = ScratchConfig(width=32, heads=2, ffn=64, encoder_layers=3, decoder_layers=1, window_s=5.0, max_label_tokens=64)
    module = new_whisper(dims, seed=0).model.encoder
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    plain, compiled = FrozenEncoder(copy.deepcopy(module)), FrozenEncoder(module)
    compiled.settle(CPU, compile_or_tell=said.append)
    return plain, compiled


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_the_same_states_for_whole_and_short_windows() -> None:
    said: list[str] = []
    counters = torch._dynamo.utils.counters["stats"]
    before = counters["unique_graphs"]
    plain, compiled = both(said)
    for frames in (500, 120, 90):
        mel_BMF = torch.randn(2, 80, frames)
        torch.testing.assert_close(states(compiled, mel_BMF), states(plain, mel_BMF), rtol=1e-4, atol=1e-4)
    assert counters["unique_graphs"] - before == 2, "one for all layers, and once more as lengths turn out to differ"
    assert said == []
    assert compiled.module.state_dict().keys() == plain.module.state_dict().keys(), "weights keep their names"
    wanted_BMF = torch.randn(2, 80, 500, requires_grad=True)
    gradients = [torch.autograd.grad(states(one, wanted_BMF).square().sum(), wanted_BMF)[0] for one in (plain, compiled)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)


def test_where_it_cannot_be_compiled_that_is_said_once() -> None:
    said: list[str] = []
    plain, compiled = both(said)
    with inductor.patch({"cpp.cxx": ("/no/such/compiler",), "force_disable_caches": True}):
        for _ in range(2):
            mel_BMF = torch.randn(2, 80, 500)
            torch.testing.assert_close(states(compiled, mel_BMF), states(plain, mel_BMF), rtol=0, atol=0)
    assert len(said) == 1
    assert said[0].startswith("the frozen encoder is not compiled and runs as it is (")
