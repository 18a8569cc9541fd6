"""A config's teacher and data, as everything that labels needs them."""

from functools import partial

from raykd.config import Config
from raykd.data.pack_corpus import packed_corpus
from raykd.data.prepare import prepare_corpus
from raykd.errors import UserError
from raykd.models.state import whole_hash
from raykd.models.whisper import load_whisper, speech_format
from raykd.parts.students.vocabulary import kept_tokens_of
from raykd.parts.targets.target import Ready
from raykd.tracking.progress import Progress


def ready_to_label(config: Config, progress: Progress, *, needs_text: bool = True) -> Ready:
    """The prepared corpus and the teacher's hashes. Models that raykd trains first are named by their folders.

    `needs_text`: whether utterances without a transcript are left out, and the others packed as `data.pack` says.

    Raises:
        UserError: there is no teacher, or it or the data cannot be read.
    """
    if config.teacher is None:
        raise UserError("teacher: required; give teacher.model, the Whisper that labels")
    progress.phase("models")
    model, revision = config.teacher.model, config.teacher.revision
    teacher = load_whisper(model, revision=revision)
    hashes = whole_hash(teacher), whole_hash(teacher.model.encoder)
    wanted = speech_format(model, revision)
    progress.done()
    progress.phase("data", unit="rows")
    corpus = prepare_corpus(config.data, wanted, lambda done, rejected: progress.update(done), needs_text=needs_text)
    if needs_text:
        corpus = packed_corpus(corpus, config.data, wanted, partial(progress.update, note="packed"))
    progress.done()
    kept = None
    if needs_text:
        kept = kept_tokens_of(config.student, config.student.dimensions(teacher.config), teacher.config, wanted, corpus)
    return Ready(config.method, corpus, wanted, config.seed, *hashes, kept)
