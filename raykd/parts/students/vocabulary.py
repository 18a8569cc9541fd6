"""Which tokens a student keeps."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from raykd import storage
from raykd.config.base import Mark, Section
from raykd.data.corpus import Corpus
from raykd.data.format import SpeechFormat
from raykd.data.text import LabelEncoder, clean
from raykd.errors import UserError

if TYPE_CHECKING:
    from transformers import WhisperConfig, WhisperTokenizer

    from raykd.parts.students.student import Student


class FromCorpus(Section):
    """The tokens of the training transcripts, of the most frequent words of their languages, and of further texts; all special
    tokens and times, all bytes, and what the merges of these pass through.

    Nothing becomes unspellable: other words are spelled in smaller pieces, which a student has to learn and often does not, so
    keep what will be said and not only what was transcribed (benchmarks/RESULTS.md). What teachers say is their distribution
    given that the token is one of these, so the mass of dropped tokens is shared out in proportion (ours; a softmax over the
    kept logits). Worth it above all in small models: 27 of whisper-base's 73 M parameters are its vocabulary.
    """

    kind: Literal["from_corpus"] = "from_corpus"
    words: int = Field(20_000, ge=0)
    """So many of the most frequent words of each language of the data (`wordfreq`, which has 41), small and capitalised."""
    texts: Annotated[tuple[str, ...], Mark.PATH] = ()
    """Text files whose words are kept as well, a passage a line, in the languages of the data: of what will be heard later."""

    def kept(self, tokenizer: "WhisperTokenizer", labels: LabelEncoder, corpus: Corpus) -> list[int]:
        """Ids in the corpus's vocabulary.

        Raises:
            UserError: a text file cannot be read, or there are no words of a language.
        """
        from raykd.models.pruning import tokens_to_keep

        index = corpus.index("train")
        used: set[int] = set()
        for language in sorted(set(index.languages)):
            said = [text for text, its in zip(index.texts, index.languages, strict=True) if its == language]
            for sequence in labels.encode_all([*said, *frequent_words(language, self.words), *self._lines()], language):
                used.update(sequence)
        return tokens_to_keep(tokenizer, used)

    def _lines(self) -> list[str]:
        lines = []
        for path in self.texts:
            try:
                text = storage.read_bytes(path).decode("utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"student.vocabulary.texts: {path} cannot be read as UTF-8 text ({error})") from None
            lines += [line for line in map(clean, text.splitlines()) if line]
        return lines


def frequent_words(language: str, count: int) -> list[str]:
    """The most frequent words of a language, each also with a capital where its script has them.

    Raises:
        UserError: there are none, or the package that has them is not installed.
    """
    if count == 0:
        return []
    try:
        import wordfreq
    except ImportError:
        raise UserError(
            "student.vocabulary: lists of words come with `pip install 'raykd[vocabulary]'`; or give texts, and words: 0"
        ) from None
    try:
        words = wordfreq.top_n_list(language, count)
    except LookupError:
        raise UserError(
            f"student.vocabulary.words: there is no list of {language} words; give student.vocabulary.texts and words: 0"
        ) from None
    return list(dict.fromkeys(form for word in words for form in (word, word.capitalize())))


def kept_tokens_of(
    student: "Student", own: "WhisperConfig | None", teacher: "WhisperConfig | None", wanted: SpeechFormat, corpus: Corpus
) -> tuple[int, ...] | None:
    """Of each token that a student will have, its id in the vocabulary that a corpus was labelled in; None: they are the same.

    `own`: of the student as it was made, None where that is not known here; `wanted`: what the corpus was made for.

    Raises:
        UserError: the vocabulary of the student's model was cut before, or a text file cannot be read.
    """
    from raykd.models.pruning import kept_tokens
    from raykd.models.whisper import load_processor

    before = None if own is None else kept_tokens(own)
    if student.vocabulary == "whole":
        labelled = before if teacher is None else kept_tokens(teacher)
        return None if before == labelled else before
    if before is not None:
        raise UserError("student.vocabulary: the vocabulary of the student's model was cut before; leave it `whole`")
    labels = LabelEncoder(wanted.tokenizer, wanted.tokenizer_revision)
    tokenizer = load_processor(wanted.tokenizer, wanted.tokenizer_revision).tokenizer
    return tuple(student.vocabulary.kept(tokenizer, labels, corpus))
