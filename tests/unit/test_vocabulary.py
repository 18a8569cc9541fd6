"""Which words of a hypothesis are not in a vocabulary."""

import gzip
import os
from pathlib import Path

import pytest

from raykd.errors import UserError
from raykd.evaluation.normalize import NormalizerChoice, normalizer_for
from raykd.evaluation.vocabulary import Vocabulary

CZECH = [
    "Dobrý",
    "den,",
    "světe!",
    "bílo-červený",
    "„Ahoj“",
    "(slovo",
    "uvozené)",
    "[1]",
    "Krakowa",
    "（široké",
    "příliš",
    "½",
    "℡",
    "&",
    "5ti",
]
ENGLISH = ["eight", "eighty", "hundred", "one", "twenty", "'tis", "colour", "won't", "dogs'", "and", "a", "half", "Mr."]


def test_words_are_compared_as_hypotheses_are_written() -> None:
    vocabulary = Vocabulary("\n".join(CZECH))
    assert vocabulary.invalid("dobrý den světe bílo červený ahoj slovo uvozené", "cs") == ()
    assert vocabulary.invalid("dobrí den svjete dobrí", "cs") == ("dobrí", "svjete", "dobrí")
    assert vocabulary.invalid("dobry", "cs") == ("dobry",)
    assert vocabulary.invalid("", "cs") == ()


def test_numbers_are_never_invalid() -> None:
    assert Vocabulary("slovo").invalid("5 120kč 21 slovo slova", "cs") == ("slova",)


@pytest.mark.parametrize(
    ("words", "language", "choice"),
    [(ENGLISH, "en", "auto"), (CZECH, "cs", "auto"), (CZECH, "cs", "none"), (["天气", "好"], "zh", "auto")],
)
def test_words_normalised_together_are_those_normalised_one_by_one(
    words: list[str], language: str, choice: NormalizerChoice
) -> None:
    normalize = normalizer_for(choice, language)[1]
    bare = words if choice == "none" else [word.strip("()[]（") for word in words]
    alone = {part for word in bare for part in normalize(word).split()}
    assert Vocabulary("\n".join(words)).known(language, choice) == alone


def test_many_words_make_many_chunks() -> None:
    words = [f"slovo{'abcdefghij'[number % 10]}{number // 10 * 'x'}" for number in range(200)] * 120
    assert Vocabulary("\n".join(words)).known("cs") == set(words)


@pytest.mark.parametrize("name", ["words.txt", "words.txt.gz"])
def test_a_file_and_its_folder_hold_the_same_words(tmp_path: Path, name: str) -> None:
    text = "\ufeffpříliš\nžluťoučký\n".encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    for path in (tmp_path, tmp_path / name, f"file://{tmp_path}"):
        assert Vocabulary.load(str(path)).known("cs") == {"příliš", "žluťoučký"}


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("jedna\n")
    before = Vocabulary.load(str(file))
    assert Vocabulary.load(str(file)) is before
    file.write_text("druhá\n")
    os.utime(file, ns=(1, 1))
    after = Vocabulary.load(str(file))
    assert after.known("cs") == {"druhá"}
    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("words.txt", None, "words.txt does not exist; give a file"),
        ("words.txt", b"", "holds no words"),
        ("words.txt", b" \n\n", "holds no words"),
        ("words.txt", "žlutý".encode("cp1250"), "is not UTF-8 text"),
        ("words.txt.gz", b"not gzip", "cannot be read"),
        ("words.txt.gz", gzip.compress(os.urandom(2000).hex().encode())[:900], "cannot be read"),
        ("other.txt", b"slovo", "has no words.txt.gz"),
    ],
)
def test_mistakes_are_one_line_that_names_the_key_and_the_file(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as mistake:
        Vocabulary.load(str(tmp_path if name == "other.txt" else tmp_path / name))
    assert str(mistake.value).startswith(f"evaluation.vocabulary: {tmp_path}")
    assert "\n" not in str(mistake.value)
