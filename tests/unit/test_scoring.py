"""Error rates of a corpus, their edits, and the word alignment."""

from typing import Any

import pytest

from raykd.evaluation.differences import align
from raykd.evaluation.measures import ON_REQUEST
from raykd.evaluation.normalize import NormalizerChoice
from raykd.evaluation.scoring import Edits, ScoredSentence, TeacherForced, score_sentences, summarize
from raykd.evaluation.vocabulary import Vocabulary


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


def test_invalid_words_are_counted_over_all_words_that_were_recognised() -> None:
    sentences = score_sentences(
        ["a b c", "d e", "d", "e"], ["a x c x", "d", "", "7 é"], ["cs", "cs", "pl", "pl"], "none", Vocabulary("a b c d e")
    )
    assert [sentence.invalid_words for sentence in sentences] == [("x", "x"), (), (), ("é",)]
    summary = summarize(sentences, "none")
    assert (summary["invalid_words"], summary["hypothesis_words"]) == (3, 7)
    assert summary["invalid_word_share"] == pytest.approx(3 / 7)
    assert summary["per_language"]["cs"]["invalid_word_share"] == pytest.approx(2 / 5)
    assert summary["per_language"]["pl"]["invalid_word_share"] == pytest.approx(1 / 2)


def test_a_student_that_says_nothing_says_no_invalid_word() -> None:
    summary = summarize(score_sentences(["a"], [""], ["cs"], vocabulary=Vocabulary("a")))
    assert (summary["invalid_words"], summary["hypothesis_words"], summary["invalid_word_share"]) == (0, 0, 0)


def test_loss_and_teacher_forced_rates_weigh_tokens_and_not_sentences() -> None:
    forced = [
        TeacherForced("x", loss=2.0, tokens=1, words=Edits(1, 1), characters=Edits(10, 1)),
        TeacherForced("y", loss=7.0, tokens=8, words=Edits(9, 1), characters=Edits(30, 0, 1, 1)),
    ]
    summary = summarize(score_sentences(["a", "b"], ["a", "b"], ["cs", "pl"], teacher_forced=forced))
    assert summary["loss"] == pytest.approx(1.0)
    assert summary["label_tokens"] == 9
    assert summary["teacher_forced_wer"] == pytest.approx(2 / 10)
    assert summary["teacher_forced_cer"] == pytest.approx(3 / 40)
    assert summary["per_language"]["cs"]["loss"] == pytest.approx(2.0)
    assert summary["per_language"]["pl"]["teacher_forced_cer"] == pytest.approx(2 / 30)
    assert summary["wer"] == 0


def test_what_was_not_asked_for_is_absent() -> None:
    _, summary = scores(["a"], ["a"])
    for part in (summary, summary["per_language"]["cs"]):
        assert not {*ON_REQUEST, "invalid_words", "hypothesis_words", "label_tokens"} & set(part)
