"""Normalisers: chosen by language, named, and the ones Whisper publishes."""

import pytest

from raykd.evaluation.normalize import UNSPACED_LANGUAGES, NormalizerChoice, normalizer_for


@pytest.mark.parametrize(
    ("choice", "language", "name"),
    [
        ("auto", "en", "whisper-english"),
        ("auto", "cs", "whisper-basic"),
        ("auto", "th", "whisper-basic-letters"),
        ("basic", "en", "whisper-basic"),
        ("basic", "zh", "whisper-basic-letters"),
        ("english", "cs", "whisper-english"),
        ("none", "en", "none"),
        ("none", "zh", "none"),
    ],
)
def test_the_name_says_which_normaliser_was_used(choice: NormalizerChoice, language: str, name: str) -> None:
    assert normalizer_for(choice, language)[0] == name


@pytest.mark.parametrize(
    ("choice", "language", "text", "expected"),
    [
        ("auto", "cs", "  Dobrý den, světe!  ", "dobrý den světe"),
        ("auto", "cs", "[smích] Ahoj (potlesk) <unk>", "ahoj"),
        ("auto", "en", "Mr. Colour's  twenty-one dollars", "mister color is $21"),
        ("auto", "en", "We won't go", "we will not go"),
        ("auto", "zh", "你好，世界 2024", "你 好 世 界 2 0 2 4"),
        ("auto", "ja", "ガギグ", "ガ ギ グ"),
        ("auto", "uk", "П'ять — п’ять", "п ять п ять"),
        ("none", "cs", " Dobrý  den,\nsvěte! ", "Dobrý den, světe!"),
        ("auto", "cs", "...", ""),
    ],
)
def test_normalised_text(choice: NormalizerChoice, language: str, text: str, expected: str) -> None:
    assert normalizer_for(choice, language)[1](text) == expected


def test_english_spelling_map_needs_no_tokenizer_folder() -> None:
    normalize = normalizer_for("english", "en")[1]
    assert normalize("the grey theatre organised its catalogue") == normalize("the gray theater organized its catalog")


@pytest.mark.parametrize("language", sorted(UNSPACED_LANGUAGES))
def test_unspaced_scripts_are_split_into_letters(language: str) -> None:
    text = {"zh": "天气", "yue": "天氣", "ja": "天気", "th": "กขค", "lo": "ກຂຄ", "my": "ကခဂ", "km": "កខគ"}[language]
    assert normalizer_for("auto", language)[1](text).split() == list(text)
