"""Error rates of a corpus, their edits, and the word alignment."""

from typing import Any

import pytest

from raykd.evaluation.differences import align
from raykd.evaluation.normalize import NormalizerChoice
from raykd.evaluation.scoring import ScoredSentence, score_sentences, summarize


def scores(
    references: list[str], hypotheses: list[str], languages: list[str] | None = None, choice: NormalizerChoice = "none"
) -> tuple[list[ScoredSentence], dict[str, Any]]:
    sentences = score_sentences(references, hypotheses, languages or ["cs"] * len(references), choice)
    return sentences, summarize(sentences, choice)


def test_rates_are_over_the_corpus_and_not_a_mean_of_sentences() -> None:
    _, summary = scores(["a", "b c d e f g h i j"], ["x", "b c d e f g h i j"])
    assert summary["wer"] == pytest.approx(1 / 10)
    assert summary["cer"] == pytest.approx(1 / 18)


def test_edits_are_told_apart() -> None:
    sentences, summary = scores(["a b c", "a b c", "a b c", "a b"], ["a x c", "a c", "a b b c", "a b"])
    assert [(s.words.substitutions, s.words.deletions, s.words.insertions) for s in sentences] == [
        (1, 0, 0),
        (0, 1, 0),
        (0, 0, 1),
        (0, 0, 0),
    ]
    assert (summary["substitutions"], summary["deletions"], summary["insertions"]) == (1, 1, 1)
    assert summary["words"] == 11
    assert summary["wer"] == pytest.approx(3 / 11)


def test_words_against_an_empty_reference_are_insertions() -> None:
    sentences, summary = scores(["...", "a b"], ["c d e", "a b"], choice="auto")
    assert sentences[0].reference == ""
    assert sentences[0].words.insertions == 3
    assert summary["words"] == 2
    assert summary["wer"] == pytest.approx(3 / 2)


def test_a_corpus_without_reference_words_has_a_finite_rate() -> None:
    _, silent = scores(["", ""], ["", ""])
    _, talking = scores(["", ""], ["a", "b"])
    assert silent["wer"] == 0
    assert talking["wer"] == 2
    assert talking["cer"] == 2


def test_an_empty_hypothesis_is_all_deletions() -> None:
    sentences, summary = scores(["a b c"], [""])
    assert sentences[0].words.deletions == 3
    assert summary["wer"] == summary["cer"] == 1


def test_languages_are_scored_apart_and_averaged_without_weights() -> None:
    _, summary = scores(["a b c d", "e", "f"], ["a b c d", "x", "f"], ["cs", "pl", "pl"], "auto")
    assert summary["per_language"]["cs"]["wer"] == 0
    assert summary["per_language"]["pl"]["wer"] == pytest.approx(1 / 2)
    assert summary["per_language"]["pl"]["utterances"] == 2
    assert summary["macro"] == {"wer": pytest.approx(1 / 4), "cer": pytest.approx(1 / 4)}
    assert summary["wer"] == pytest.approx(1 / 6)
    assert summary["normalizer"] == {"cs": "whisper-basic", "pl": "whisper-basic"}


def test_characters_of_unspaced_scripts_do_not_count_the_normalisers_spaces() -> None:
    sentences, summary = scores(["今天天气"], ["今天天汽"], ["zh"], "auto")
    assert sentences[0].words.length == sentences[0].characters.length == 4
    assert summary["wer"] == summary["cer"] == pytest.approx(1 / 4)


def test_characters_count_the_spaces_between_words() -> None:
    sentences, _ = scores(["a b"], ["ab"])
    assert sentences[0].characters.length == 3
    assert sentences[0].characters.deletions == 1


def test_no_sentences() -> None:
    _, summary = scores([], [])
    assert summary["wer"] == 0
    assert summary["per_language"] == {}


def test_texts_must_pair_up() -> None:
    with pytest.raises(ValueError, match="zip"):
        score_sentences(["a"], ["a", "b"], ["cs"])


def test_alignment_marks_every_kind_of_difference() -> None:
    assert align("pět tisíc korun prosím", "pět tisíce korun") == [
        ("equal", "pět", "pět"),
        ("sub", "tisíc", "tisíce"),
        ("equal", "korun", "korun"),
        ("del", "prosím", ""),
    ]
    assert align("a b", "a x b") == [("equal", "a", "a"), ("ins", "", "x"), ("equal", "b", "b")]


def test_alignment_of_empty_texts() -> None:
    assert align("", "a b") == [("ins", "", "a b")]
    assert align("a b", "") == [("del", "a b", "")]
    assert align("", "") == []
