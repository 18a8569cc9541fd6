import hashlib
import subprocess
import sys

import numpy as np
import pytest

from raykd.data.demo.effects import in_room, recorded, with_noise
from raykd.data.demo.languages import GRAMMARS
from raykd.data.demo.speech import UNSEEN_VARIANTS, VARIANTS, Voice, speak

TEXT = "dnes je sedmnáctého listopadu"


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples**2)))


@pytest.mark.parametrize("variant", ["", "f1", "klatt4", "belinda"])
def test_speech_does_not_depend_on_what_was_spoken_before(variant: str) -> None:
    first = speak(TEXT, Voice("cs", variant))
    speak("hello there", Voice("en", "klatt2", rate=200))
    assert np.array_equal(first, speak(TEXT, Voice("cs", variant)))


@pytest.mark.slow
def test_speech_is_the_same_in_another_process() -> None:
    program = (
        "import hashlib; from raykd.data.demo.speech import Voice, speak; speak('cześć', Voice('pl'));"
        f"print(hashlib.sha256(speak({TEXT!r}, Voice('cs', 'm3')).tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    assert other == hashlib.sha256(speak(TEXT, Voice("cs", "m3")).tobytes()).hexdigest()


def test_voices_are_many_and_all_different() -> None:
    assert len(VARIANTS) >= 12
    assert not set(VARIANTS) & set(UNSEEN_VARIANTS)
    spoken = {variant: speak(TEXT, Voice("cs", variant)) for variant in (*VARIANTS, *UNSEEN_VARIANTS)}
    assert len({samples.tobytes() for samples in spoken.values()}) == len(spoken)
    for samples in spoken.values():
        assert 1.0 < len(samples) / 16_000 < 4.0
        assert rms(samples) > 0.02
        assert np.abs(samples).max() <= 1


@pytest.mark.parametrize("language", GRAMMARS)
def test_every_language_has_a_voice_that_takes_longer_for_more_words(language: str) -> None:
    grammar = GRAMMARS[language]
    short, long = grammar.sentence("number", 1), grammar.sentence("place", 0)
    assert len(speak(long, Voice(language))) > 2 * len(speak(short, Voice(language)))
    assert rms(speak(long, Voice(language))) > 0.02


def test_rate_and_pitch_are_heard() -> None:
    slow, fast = (speak(TEXT, Voice("cs", rate=rate)) for rate in (130, 190))
    assert len(slow) > 1.2 * len(fast)
    assert not np.array_equal(speak(TEXT, Voice("cs", pitch=35)), speak(TEXT, Voice("cs", pitch=65)))


def test_an_unknown_voice_is_refused_and_the_next_one_still_speaks() -> None:
    with pytest.raises(RuntimeError, match="no voice xx"):
        speak(TEXT, Voice("xx"))
    assert rms(speak(TEXT, Voice("cs"))) > 0.02


def test_a_recording_has_its_level_and_silence_at_both_ends() -> None:
    samples = recorded(np.full(16_000, 0.9, np.float32), np.random.default_rng(0))
    assert 10 ** (-12 / 20) <= np.abs(samples).max() <= 10 ** (-3 / 20)
    assert not samples[:800].any()
    assert not samples[-800:].any()
    assert 17_600 <= len(samples) <= 22_400


def test_a_room_adds_a_tail_behind_the_sound() -> None:
    click = np.zeros(16_000, np.float32)
    click[1000] = 1
    echoed = in_room(click, np.random.default_rng(0))
    assert np.abs(echoed[:999]).max() < 1e-5
    assert echoed[1000] == pytest.approx(1, abs=1e-4)
    tail = float(np.sum(echoed[1001:] ** 2))
    assert 10 ** (-12 / 10) * 0.99 <= tail <= 10 ** (-6 / 10) * 1.01
    assert np.sum(echoed[1001:3000] ** 2) > 0.8 * tail  # it decays


def test_noise_has_the_level_asked_for() -> None:
    rng = np.random.default_rng(0)
    speech = rng.standard_normal(16_000).astype(np.float32) * 0.1
    snr = 20 * np.log10(rms(speech) / rms(with_noise(speech, rng) - speech))
    assert 10 <= snr <= 25
