"""How much faster than real time demo speech is made on one core: speaking alone, and whole utterances (with FLAC).

python benchmarks/demo_speech.py
"""

import time
from collections.abc import Callable

from raykd.data.demo.corpus import make_utterance
from raykd.data.demo.grammar import KINDS
from raykd.data.demo.languages import GRAMMARS
from raykd.data.demo.speech import VARIANTS, Voice, speak
from raykd.data.format import SAMPLE_RATE

UTTERANCES = 96


def speed(make: Callable[[int], float]) -> float:
    """Seconds of audio per second of processor time; `make` returns the audio's seconds."""
    make(0)
    begin = time.process_time()
    audio_s = sum(make(number) for number in range(UTTERANCES))
    return audio_s / (time.process_time() - begin)


def main() -> None:
    print(f"{'language':10}{'speech':>12}{'train':>12}{'test_ood':>12}   times real time, one core")
    for language, grammar in GRAMMARS.items():

        def spoken(number: int, language: str = language, text: str = grammar.sentence("place", 0)) -> float:
            return len(speak(text, Voice(language, VARIANTS[number % len(VARIANTS)]))) / SAMPLE_RATE

        def train(number: int, language: str = language) -> float:
            return make_utterance(0, "train", language, KINDS[number % len(KINDS)], number)["duration_s"]

        def unseen(number: int, language: str = language) -> float:
            return make_utterance(0, "test_ood", language, "question", number)["duration_s"]

        print(f"{language:10}" + "".join(f"{speed(make):12.0f}" for make in (spoken, train, unseen)))


if __name__ == "__main__":
    main()
