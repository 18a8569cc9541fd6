"""SpecAugment masks bands of the audible part, and the same bands wherever an utterance is trained on."""

import numpy as np
import pytest

from raykd.parts.inputs.spec_augment import SpecAugment

CONFIG = SpecAugment(frequency_masks=2, frequency_width=15, time_masks=2, time_width=40)


def masked(config: SpecAugment = CONFIG, key: tuple[int, int, str] = (0, 0, "a"), n_frames: int = 300) -> np.ndarray:
    mel = np.ones((80, 500), np.float32)
    config.change_row(mel, n_frames, key)
    return mel == 0


def test_masks_follow_from_seed_epoch_and_id() -> None:
    np.testing.assert_array_equal(masked(), masked())
    for other in ((1, 0, "a"), (0, 1, "a"), (0, 0, "b")):
        assert (masked(key=other) != masked()).any()


def test_padding_is_left_alone() -> None:
    assert not any(masked(key=(0, epoch, "a"))[:, 300:].any() for epoch in range(50))


@pytest.mark.parametrize(
    ("config", "whole", "widest"),
    [
        (SpecAugment(frequency_masks=1, frequency_width=7, time_masks=0), 1, 7),
        (SpecAugment(frequency_masks=0, time_masks=1, time_width=30), 0, 30),
        (SpecAugment(frequency_masks=0, time_masks=1, time_width=400), 0, 300 // 5),
    ],
)
def test_bands_are_whole_and_as_wide_as_allowed(config: SpecAugment, whole: int, widest: int) -> None:
    widths = []
    for epoch in range(400):
        mask = masked(config, key=(0, epoch, "a"))[:, :300]
        lines = mask.all(axis=whole)
        assert mask.sum() == lines.sum() * mask.shape[whole]
        assert (np.diff(np.flatnonzero(lines)) == 1).all()
        widths.append(int(lines.sum()))
    assert max(widths) == widest
    assert min(widths) == 0


def test_very_short_utterances_are_not_masked_in_time() -> None:
    config = SpecAugment(frequency_masks=0, time_masks=3)
    assert not any(masked(config, key=(0, epoch, "a"), n_frames=4).any() for epoch in range(20))
