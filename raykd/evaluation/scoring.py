"""Word and character error rates of a corpus, per language and as a macro average, with their edits counted.

WER = (S + D + I) / N over all words N of the references of a corpus, not a mean over sentences; CER the same over characters.
Both are fractions of 1 and may exceed it. A reference that is empty after normalisation has no words, so the words of its
hypothesis count as insertions and N does not grow; a corpus without any reference word divides by 1. An empty hypothesis is all
deletions. Characters include the spaces between words, except where the normaliser itself put them (scripts without spaces).

On request, and absent from a summary otherwise: the share of hypothesis words that are no words (`vocabulary`), and loss and
error rates with gold prefixes (`teacher_forced`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jiwer
from jiwer import AlignmentChunk

from raykd.evaluation.expert_use import ExpertUse, shares
from raykd.evaluation.normalize import NormalizerChoice, normalizer_for, splits_letters
from raykd.evaluation.vocabulary import Vocabulary


@dataclass(frozen=True)
class Edits:
    """Substitutions, deletions and insertions that turn references of `length` words or characters into their hypotheses."""

    length: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    def __add__(self, other: "Edits") -> "Edits":
        return Edits(
            self.length + other.length,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors as a fraction of the reference length; of 1 where the reference is empty."""
        return self.errors / max(1, self.length)


@dataclass(frozen=True)
class TeacherForced:
    """One utterance with gold prefixes; texts with their special tokens, not normalised."""

    hypothesis: str
    """The likeliest token at every label position."""
    loss: float
    """Cross-entropy of the labels, summed over label positions, in nats."""
    tokens: int
    """Label positions."""
    words: Edits
    characters: Edits


@dataclass(frozen=True)
class ScoredSentence:
    """One sentence after normalisation, and its edits."""

    language: str
    reference: str
    hypothesis: str
    words: Edits
    characters: Edits
    invalid_words: tuple[str, ...] | None = None
    """Words of the hypothesis that are not in the vocabulary; None without one."""
    teacher_forced: TeacherForced | None = None
    experts: ExpertUse | None = None


def score_sentences(
    references: Sequence[str],
    hypotheses: Sequence[str],
    languages: Sequence[str],
    choice: NormalizerChoice = "auto",
    vocabulary: Vocabulary | None = None,
    teacher_forced: Sequence[TeacherForced] | None = None,
    experts: Sequence[ExpertUse] | None = None,
) -> list[ScoredSentence]:
    """Each sentence normalised by its language's normaliser and compared, in the given order.

    Args:
        references: what was said.
        hypotheses: what was recognised.
        languages: Whisper's codes.
        choice: of the normaliser.
        vocabulary: to tell invalid words by.
        teacher_forced: kept with the sentences.
        experts: likewise.

    Raises:
        ValueError: the sequences differ in length.
    """
    normalizers = {language: normalizer_for(choice, language)[1] for language in set(languages)}
    triples = list(zip(references, hypotheses, languages, strict=True))
    normal_references = [normalizers[language](reference) for reference, _, language in triples]
    normal_hypotheses = [normalizers[language](hypothesis) for _, hypothesis, language in triples]
    if not triples:
        return []
    words = word_edits(normal_references, normal_hypotheses)
    characters = character_edits(
        [_spelled(text, choice, language) for text, language in zip(normal_references, languages, strict=True)],
        [_spelled(text, choice, language) for text, language in zip(normal_hypotheses, languages, strict=True)],
    )
    return [
        ScoredSentence(
            language=languages[i],
            reference=normal_references[i],
            hypothesis=normal_hypotheses[i],
            words=words[i],
            characters=characters[i],
            invalid_words=None if vocabulary is None else vocabulary.invalid(normal_hypotheses[i], languages[i], choice),
            teacher_forced=None if teacher_forced is None else teacher_forced[i],
            experts=None if experts is None else experts[i],
        )
        for i in range(len(triples))
    ]


def word_edits(references: Sequence[str], hypotheses: Sequence[str]) -> list[Edits]:
    """The fewest edits between the words of each pair of texts; words have white space between them."""
    output = jiwer.process_words(list(references), list(hypotheses))
    return [_edits(alignment) for alignment in output.alignments]


def character_edits(references: Sequence[str], hypotheses: Sequence[str]) -> list[Edits]:
    """The fewest edits between the characters of each pair of texts."""
    output = jiwer.process_characters(list(references), list(hypotheses))
    return [_edits(alignment) for alignment in output.alignments]


def summarize(sentences: Iterable[ScoredSentence], choice: NormalizerChoice = "auto") -> dict[str, Any]:
    """The scores of a corpus.

    Returns:
        `wer` and `cer` over all sentences, `per_language` (the same with counts for each language), `macro` (the plain mean of
        the languages' rates), `normalizer` (its name for each language) and the counts `utterances`, `words`, `substitutions`,
        `deletions` and `insertions` (of words) and `repeated_5grams` (five words in a row that the same hypothesis had before:
        a decoder that loops, as Distil-Whisper counts it). With a vocabulary also `invalid_words`, `hypothesis_words` and their
        ratio `invalid_word_share`; with teacher forcing `loss` (mean cross-entropy of a label token in nats), `label_tokens`,
        `teacher_forced_wer` and `teacher_forced_cer`; of a model with language experts `expert_use_encoder` and
        `expert_use_decoder` (`expert_use`); all of them here and for each language.
    """
    by_language: dict[str, list[ScoredSentence]] = {}
    for sentence in sentences:
        by_language.setdefault(sentence.language, []).append(sentence)
    per_language = {language: _scores(by_language[language]) for language in sorted(by_language)}
    everything = [sentence for group in by_language.values() for sentence in group]
    return {
        **_scores(everything),
        "per_language": per_language,
        "macro": {
            rate: sum(scores[rate] for scores in per_language.values()) / max(1, len(per_language)) for rate in ("wer", "cer")
        },
        "normalizer": {language: normalizer_for(choice, language)[0] for language in per_language},
    }


def _scores(sentences: Sequence[ScoredSentence]) -> dict[str, Any]:
    words = sum((sentence.words for sentence in sentences), Edits())
    characters = sum((sentence.characters for sentence in sentences), Edits())
    return {
        "wer": words.rate,
        "cer": characters.rate,
        "utterances": len(sentences),
        "words": words.length,
        "substitutions": words.substitutions,
        "deletions": words.deletions,
        "insertions": words.insertions,
        "repeated_5grams": sum(_repeated(sentence.hypothesis.split()) for sentence in sentences),
        "characters": characters.length,
        **_word_validity(sentences),
        **_teacher_forced_scores(sentences),
        **shares(sentence.experts for sentence in sentences),
    }


def _repeated(words: Sequence[str], length: int = 5) -> int:
    """Sequences of so many words that stood in the same text before."""
    grams = [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]
    return len(grams) - len(set(grams))


def _word_validity(sentences: Sequence[ScoredSentence]) -> dict[str, Any]:
    judged = [(len(s.invalid_words), len(s.hypothesis.split())) for s in sentences if s.invalid_words is not None]
    if not judged:
        return {}
    invalid, words = (sum(counts) for counts in zip(*judged, strict=True))
    return {"invalid_words": invalid, "hypothesis_words": words, "invalid_word_share": invalid / max(1, words)}


def _teacher_forced_scores(sentences: Sequence[ScoredSentence]) -> dict[str, Any]:
    forced = [sentence.teacher_forced for sentence in sentences if sentence.teacher_forced is not None]
    if not forced:
        return {}
    tokens = sum(utterance.tokens for utterance in forced)
    return {
        "loss": sum(utterance.loss for utterance in forced) / max(1, tokens),
        "label_tokens": tokens,
        "teacher_forced_wer": sum((utterance.words for utterance in forced), Edits()).rate,
        "teacher_forced_cer": sum((utterance.characters for utterance in forced), Edits()).rate,
    }


def _spelled(text: str, choice: NormalizerChoice, language: str) -> str:
    return text.replace(" ", "") if splits_letters(choice, language) else text


def _edits(chunks: Iterable[AlignmentChunk]) -> Edits:
    counts = {"equal": 0, "substitute": 0, "delete": 0, "insert": 0}
    for chunk in chunks:
        counts[chunk.type] += max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
    return Edits(
        length=counts["equal"] + counts["substitute"] + counts["delete"],
        substitutions=counts["substitute"],
        deletions=counts["delete"],
        insertions=counts["insert"],
    )
