"""Normalisers: chosen by language, named, and the ones Whisper publishes."""

import pytest
from transformers.models.whisper.english_normalizer import BasicTextNormalizer

from raykd.evaluation.normalize import UNSPACED_LANGUAGES, NormalizerChoice, basic_with_marks, normalizer_for


@pytest.mark.parametrize(
    ("choice", "language", "name"),
    [
        ("auto", "en", "english-apostrophes"),
        ("auto", "cs", "whisper-basic"),
        ("auto", "th", "basic-marks-letters"),
        ("auto", "uk", "basic-marks"),
        ("basic", "hi", "whisper-basic"),
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
        ("auto", "uk", "П'ять — п’ять пʼять п＇ять", "п ять п ять п ять п ять"),
        ("auto", "hi", "की कि", "की कि"),
        ("auto", "ta", "பால், பல்!", "பால் பல்"),
        ("auto", "th", "ปี", "ปี"),
        ("auto", "ar", "كِتَاب", "كتاب"),
        ("auto", "he", "שָׁלוֹם", "שלום"),
        ("auto", "en", "don’t", "do not"),
        ("basic", "hi", "की", "क"),
        ("none", "cs", " Dobrý  den,\nsvěte! ", "Dobrý den, světe!"),
        ("auto", "cs", "...", ""),
    ],
)
def test_normalised_text(choice: NormalizerChoice, language: str, text: str, expected: str) -> None:
    assert normalizer_for(choice, language)[1](text) == expected


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        ("tr", "İSTANBUL ISPARTA", "istanbul ısparta"),
        ("tr", "I\u0307yi", "i\u0307yi"),
        ("az", "İş QIZ", "iş qız"),
        ("hy", "Ո՞վ, ինչպե՜ս, գնա՛", "ով ինչպես գնա"),
        ("ha", "ʼyan sanda", "'yan sanda"),
        ("so", "goʼaan", "go’aan"),
        ("sw", "ngʼombe", "ng'ombe"),
        ("mg", "nʼny", "n'ny"),
        ("af", "ŉ man", "'n man"),
        ("ru", "за́мок а̀", "замок а"),
        ("bg", "ра́бота", "работа"),
        ("ml", "അവൻ കാർ", "അവന്\u200d കാര്\u200d"),
        ("bn", "উৎস", "উত্\u200dস"),
        ("th", "น้ำ", "น\u0e4d\u0e49า"),
        ("lo", "ນ້ຳ", "ນ\u0ecd\u0ec9າ"),
        ("fa", "كتابي", "کتابی"),
        ("ro", "Şi ţara", "și țara"),
        ("el", "ΟΔΟΣ", "οδος"),
        ("ka", "ᲐᲑ", "აბ"),
        ("de", "STRAẞE", "straße"),
    ],
)
def test_one_word_in_two_spellings_is_no_error(language: str, one: str, other: str) -> None:
    normalize = normalizer_for("auto", language)[1]
    assert normalize(one) == normalize(other)
    assert len(normalize(other).split()) == len(other.replace("'", " ").replace("’", " ").split()) or language in {"th", "lo"}


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        ("tr", "iyi", "ıyi"),
        ("ln", "mɔ́i", "mɔ̌i"),
        ("ln", "mɔ́i", "mɔi"),
        ("mk", "ѓ", "г"),
        ("bg", "ѝ", "и"),
        ("ru", "й", "и"),
        ("ml", "അവൻ", "അവന"),
        ("ps", "ي", "ی"),
        ("ro", "și", "si"),
    ],
)
def test_words_that_differ_stay_two(language: str, one: str, other: str) -> None:
    normalize = normalizer_for("auto", language)[1]
    assert normalize(one) != normalize(other)
    assert " " not in normalize(one) + normalize(other)


def test_english_spelling_map_needs_no_tokenizer_folder() -> None:
    normalize = normalizer_for("english", "en")[1]
    assert normalize("the grey theatre organised its catalogue") == normalize("the gray theater organized its catalog")


@pytest.mark.parametrize("language", sorted(UNSPACED_LANGUAGES))
def test_unspaced_scripts_are_split_into_letters(language: str) -> None:
    text = {"zh": "天气", "yue": "天氣", "ja": "天気", "th": "กขค", "lo": "ກຂຄ", "my": "ကခဂ", "km": "កខគ"}[language]
    assert normalizer_for("auto", language)[1](text).split() == list(text)


def test_with_marks_kept_all_else_is_as_whisper_has_it() -> None:
    texts = [
        "Příliš žluťoučký kůň! (ano) [ne] <unk> 12,5 %",
        "L'été à Zürich — 3 €; naïve “quotes” … ½ ﬁn",
        "Ελληνικά, русский язык; №5",
        "你好，世界！ガギグ 2024",
        "a_b-c/d\\e~f^g|h",
        "TITLE Case ÀÉÎ ß",
    ]
    whisper = BasicTextNormalizer()
    for text in texts:
        assert " ".join(basic_with_marks(text).split()) == " ".join(whisper(text).split())
