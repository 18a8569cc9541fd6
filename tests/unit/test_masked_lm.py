"""The masked language model: its size, what it sees, and both ways of predicting every position."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from raykd.data.batches import TextBatch
from raykd.errors import UserError
from raykd.models.masked_lm import MaskedLm, load_masked_lm, new_masked_lm, save_masked_lm
from raykd.parts.terms.ce import Ce
from raykd.training.mlm_job import MlmLearner
from raykd.training.step import Step
from tests.terms import NOW, active, no_targets

LENGTHS = torch.tensor([9, 4, 7])


def small(layers: int) -> MaskedLm:
    return new_masked_lm(vocabulary=50, width=12, layers=layers, mask_id=49, seed=layers).double()


def tokens() -> Tensor:
    return torch.randint(0, 49, (3, 9), generator=torch.Generator().manual_seed(0))


def one_by_one(model: MaskedLm, tokens_BT: Tensor) -> Tensor:
    """The published way: a pass for each position, that position masked."""
    states_BTD = torch.zeros(*tokens_BT.shape, 12, dtype=torch.float64)
    for row, length in enumerate(LENGTHS.tolist()):
        for position in range(1, length):
            masked_T = tokens_BT[row, :length].clone()
            masked_T[position] = model.mask_id
            states_BTD[row, position] = model(masked_T[None], LENGTHS[row : row + 1])[0, position]
    return states_BTD


def test_the_published_size_has_62_26_million_parameters() -> None:
    with torch.device("meta"):
        model = MaskedLm(vocabulary=51_865, width=512, layers=6, mask_id=50_337)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == 51_865 * 512 + 2 * 4 * 512 * (1024 + 2) + 5 * 2 * 4 * 512 * (1536 + 2) + 2 * 512
    assert round(count / 1e6, 2) == 62.26


def test_it_is_a_stacked_bidirectional_lstm_whose_directions_are_averaged() -> None:
    model, tokens_BT = small(3), tokens()
    stacked = nn.LSTM(12, 12, num_layers=3, bidirectional=True, batch_first=True, dtype=torch.float64)
    for name, parameter in stacked.named_parameters():
        kind, layer = name.removesuffix("_reverse").rsplit("_l", 1)
        direction = "back" if name.endswith("_reverse") else "ahead"
        parameter.data = getattr(getattr(model.layers[int(layer)], direction), f"{kind}_l0").data
    both_BTD, _ = stacked(model.embedding(tokens_BT))
    ahead_BTD, back_BTD = both_BTD.chunk(2, dim=-1)
    expected_BTD = model.norm((ahead_BTD + back_BTD) / 2)
    torch.testing.assert_close(model(tokens_BT, torch.tensor([9, 9, 9])), expected_BTD, rtol=1e-12, atol=1e-12)


def test_padding_is_not_seen() -> None:
    model, tokens_BT = small(2), tokens()
    together_BTD = model(tokens_BT, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        alone_TD = model(tokens_BT[row : row + 1, :length], LENGTHS[row : row + 1])[0]
        torch.testing.assert_close(together_BTD[row, :length], alone_TD, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_exact_states_are_those_of_masking_one_position_at_a_time(layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raykd.models.masked_lm._CHUNK_POSITIONS", 40)  # several chunks
    model, tokens_BT = small(layers), tokens()
    torch.testing.assert_close(model.exact_states(tokens_BT, LENGTHS), one_by_one(model, tokens_BT), rtol=1e-10, atol=1e-12)


def test_fast_states_with_a_pass_for_each_position_are_exact_and_with_fewer_they_are_not() -> None:
    model, tokens_BT = small(3), tokens()
    expected_BTD = one_by_one(model, tokens_BT)
    positions_T = torch.arange(9)
    wanted_BT = (positions_T > 0) & (positions_T < LENGTHS[:, None])
    every_BTD = model.fast_states(tokens_BT, LENGTHS, passes=9)
    torch.testing.assert_close(every_BTD[wanted_BT], expected_BTD[wanted_BT], rtol=1e-10, atol=1e-12)
    fewer_BTD = model.fast_states(tokens_BT, LENGTHS, passes=3)
    assert (fewer_BTD - expected_BTD)[wanted_BT].abs().max() > 1e-4
    alone = LENGTHS.argmin()  # 4 tokens, 3 apart: positions 1 and 2 are masked alone
    torch.testing.assert_close(fewer_BTD[alone, 1:3], expected_BTD[alone, 1:3], rtol=1e-10, atol=1e-12)


def test_word_states_are_those_of_masking_the_rest_of_the_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raykd.models.masked_lm._CHUNK_POSITIONS", 40)
    model, tokens_BT = small(2), tokens()
    starts_word_V = torch.arange(50) % 3 == 0
    states_BTD = model.word_states(tokens_BT, LENGTHS, starts_word_V)
    longest = 0
    for row, length in enumerate(LENGTHS.tolist()):
        for position in range(1, length):
            end = position + 1
            while end < length and not starts_word_V[tokens_BT[row, end]]:
                end += 1
            longest = max(longest, end - position)
            masked_T = tokens_BT[row, :length].clone()
            masked_T[position:end] = model.mask_id
            expected_D = model(masked_T[None], LENGTHS[row : row + 1])[0, position]
            torch.testing.assert_close(states_BTD[row, position], expected_D, rtol=1e-10, atol=1e-12)
    assert longest > 2


def test_a_position_does_not_see_its_own_token() -> None:
    model, tokens_BT = small(2), tokens()
    other_BT = tokens_BT.clone()
    other_BT[0, 5] = (other_BT[0, 5] + 1) % 49
    before_BTD, after_BTD = (model.exact_states(t, LENGTHS) for t in (tokens_BT, other_BT))
    torch.testing.assert_close(before_BTD[0, 5], after_BTD[0, 5], rtol=0, atol=0)
    assert not torch.equal(before_BTD[0, 4], after_BTD[0, 4])


def test_the_training_loss_and_its_gradients_are_those_of_plain_cross_entropy() -> None:
    model, tokens_BT = small(2), tokens()
    masked_BT = torch.zeros(3, 9, dtype=torch.bool)
    masked_BT[0, [2, 8]] = masked_BT[1, 0] = True
    states_BTD = model(torch.where(masked_BT, model.mask_id, tokens_BT), LENGTHS)
    logits_NV = states_BTD[masked_BT] @ model.embedding.weight.T
    expected = nn.functional.cross_entropy(logits_NV, tokens_BT[masked_BT], reduction="sum")
    expected_gradients = torch.autograd.grad(expected, list(model.parameters()))
    loss, _ = Step(MlmLearner(model))(TextBatch([], tokens_BT, LENGTHS, masked_BT), no_targets, active([Ce()]), NOW)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    for gradient, wanted in zip(torch.autograd.grad(loss, list(model.parameters())), expected_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-8, atol=1e-12)


def test_a_saved_model_is_read_back(tmp_path: Path) -> None:
    model = small(2).float()
    save_masked_lm(model, str(tmp_path))
    again = load_masked_lm(str(tmp_path))
    assert again.mask_id == model.mask_id
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{tmp_path}: no masked language model there .*train_mlm"):
        load_masked_lm(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    with pytest.raises(UserError, match="is a whisper model, not a masked language model"):
        load_masked_lm(str(tmp_path))
    save_masked_lm(small(1).float(), str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read"):
        load_masked_lm(str(tmp_path))
