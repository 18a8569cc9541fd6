"""What can be found wrong with a run before Ray starts, speech is made or a demo teacher is trained."""

from collections.abc import Callable
from typing import Any

from transformers import WhisperConfig

from raykd import storage
from raykd.config import Config, MlmRunConfig, load_config, load_mlm_config
from raykd.config.base import Mark, marked, trained_by_raykd
from raykd.config.data import DataConfig, DemoSource, HuggingFaceSource
from raykd.config.text import TextConfig
from raykd.data.demo.corpus import check_source
from raykd.data.format import SpeechFormat
from raykd.data.languages import configured_language
from raykd.data.sample import look_at_speech, look_at_text
from raykd.data.sources import source_parts
from raykd.data.sources.recognise import with_speech_kinds
from raykd.data.text_sources import text_parts
from raykd.errors import UserError
from raykd.evaluation.vocabulary import Vocabulary
from raykd.models.demo import demo_tokenizer
from raykd.models.masked_lm import masked_lm_config
from raykd.models.pairs import check_compatible
from raykd.models.pruning import whole_vocabulary
from raykd.models.whisper import config_if_here, load_processor, speech_format
from raykd.parts.students.pretrained import Pretrained
from raykd.parts.students.student import Student
from raykd.tracking.run_folder import RunFolder


def told_of(where: str, check: Callable[[], None]) -> None:
    """Make a check whose mistakes are told with the place that they are at.

    Raises:
        UserError: as the check raises it.
    """
    try:
        check()
    except UserError as error:
        raise UserError("\n".join(f"{where}: {line}" for line in str(error).splitlines())) from None


def check_run(config: Config, resume: bool, *, needs_text: bool = True) -> None:
    """Look at everything a run needs that can be looked at in seconds; a finished run that is resumed needs nothing.

    `needs_text`: whether the speech must come with transcripts.

    Raises:
        UserError: nothing to resume, a source, a model or a layer that is not there, or a folder that cannot be written.
    """
    if resume and RunFolder.latest(config.output_dir, config.name).finished:
        return
    for key, folder in (("output_dir", config.output_dir), ("data.cache_dir", config.data.cache_dir)):
        require_writable(key, folder)
    check_sources(config.data, needs_text)
    student = _student_config(config, ())
    for key, model, marks in marked(config.objective):
        _check_model(f"objective.{key}", model, marks, student)
    if config.evaluation.vocabulary is not None:
        Vocabulary.load(config.evaluation.vocabulary)


def _check_model(key: str, model: str, marks: tuple[Mark, ...], student: WhisperConfig | None) -> None:
    """A model that teaches, or the config that it will be trained from."""
    if Mark.WHISPER in marks:
        theirs = _whisper_config(model, None, ())
        if theirs is not None and student is not None:
            check_compatible(theirs, student)
    elif Mark.MLM in marks and trained_by_raykd(model):
        try:
            check_text(load_mlm_config(model).text)
        except UserError as error:
            raise error if str(error).startswith(model) else UserError(f"{model}: {error}") from None
    elif Mark.MLM in marks:
        tokens = masked_lm_config(model)["vocab_size"]
        if student is not None and tokens not in {student.vocab_size, whole_vocabulary(student)}:
            raise UserError(
                f"{key}: {model} has {tokens} tokens and the student {whole_vocabulary(student)}; "
                "train one with mlm.tokenizer set to the student's model"
            )


def check_mlm_run(config: MlmRunConfig, resume: bool) -> None:
    """`check_run` for the training of a masked language model.

    Raises:
        UserError: nothing to resume, a source or tokenizer that is not there, or a folder that cannot be written.
    """
    if resume and RunFolder.latest(config.output_dir, config.name).finished:
        return
    for key, folder in (("output_dir", config.output_dir), ("text.cache_dir", config.text.cache_dir)):
        require_writable(key, folder)
    check_text(config.text)
    if config.mlm.tokenizer is not None and not storage.is_remote(config.mlm.tokenizer):
        load_processor(config.mlm.tokenizer)


def look_at_run(config: Config, needs_text: bool = True) -> list[str]:
    """What is seen in seconds of the data that a run would have: a sample of its rows.

    Raises:
        UserError: more of it cannot be used than the config allows.
    """
    if any(isinstance(source, DemoSource) for source in with_speech_kinds(config.data).source):
        return ["  sample   none: the speech is made by raykd when it is first wanted"]
    named: Any = config.teacher or config.student
    model = getattr(named, "model", None)
    if model is not None and trained_by_raykd(model):
        return ["  sample   none: the teacher, whose tokens are the labels, is trained first"]
    with storage.temporary_dir() as folder:
        wanted = speech_format(model, named.revision) if model is not None else _format_of_new(config.student, folder)
        return look_at_speech(config.data, wanted, needs_text)


def _format_of_new(student: Student, folder: str) -> SpeechFormat:
    """Of a student that is made from nothing; its config and tokenizer are written into the folder."""
    made = student.dimensions(None)
    assert made is not None
    made.save_pretrained(folder)
    student.processor(None, None).save_pretrained(folder)
    return speech_format(folder)


def look_at_mlm_run(config: MlmRunConfig) -> list[str]:
    """`look_at_run` for the training of a masked language model."""
    with storage.temporary_dir() as folder:
        tokenizer = config.mlm.tokenizer
        if tokenizer is None:
            demo_tokenizer().save_pretrained(folder)
        return look_at_text(config.text, tokenizer or folder)


def check_sources(config: DataConfig, needs_text: bool = True) -> None:
    """List the sources on this machine; listing all of a bucket may take minutes, and is left to the preparation.

    Raises:
        UserError: a source is not there or cannot be used, or a language is not known.
    """
    configured_language(config.language, "data.language")
    for code in (config.mix.shares or {}) if config.mix else ():
        configured_language(code, f"data.mix.shares.{code}")
    for source in with_speech_kinds(config).source:
        if isinstance(source, DemoSource):
            check_source(source)
        elif not isinstance(source, HuggingFaceSource) and not storage.is_remote(source.path):
            source_parts(source, config, needs_text=needs_text)


def check_text(config: TextConfig) -> None:
    """List the sources of text on this machine.

    Raises:
        UserError: a source is not there or cannot be used, or the language is not known.
    """
    language = configured_language(config.language, "text.language")
    assert language is not None
    text_parts(config, language)


def require_writable(key: str, folder: str) -> None:
    """Make a folder.

    Raises:
        UserError: it cannot be made; `key` is where it was chosen.
    """
    try:
        storage.make_dir(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{key}: {folder} cannot be written ({reason}); give a writable folder") from None


def _student_config(config: Config, above: tuple[str, ...]) -> WhisperConfig | None:
    """Dimensions of the student, once it and its teacher are found possible; None when they are not known on this machine.

    `above`: the raykd configs whose teacher this student becomes.
    """
    teacher = _whisper_config(config.teacher.model, config.teacher.revision, above) if config.teacher else None
    made = _own_dimensions(config, above) or config.student.dimensions(teacher)
    if teacher is not None and made is not None:
        check_compatible(teacher, made)
    return made


def _own_dimensions(config: Config, above: tuple[str, ...]) -> WhisperConfig | None:
    """Of a student whose model is yet to be trained from a raykd config."""
    student = config.student
    if not isinstance(student, Pretrained) or not trained_by_raykd(student.model):
        return None
    return _whisper_config(student.model, student.revision, above)


def _whisper_config(path: str, revision: str | None, above: tuple[str, ...]) -> WhisperConfig | None:
    """Dimensions of a Whisper, or of the student of a raykd config."""
    if not trained_by_raykd(path):
        return config_if_here(path, revision)
    if storage.absolute(path) in above:
        raise UserError(f"{path}: teacher.model: leads back to this file, so that no teacher is ever made; name another model")
    teacher = load_config(path)
    try:
        check_sources(teacher.data)
        return _student_config(teacher, (*above, storage.absolute(path)))
    except UserError as error:
        raise error if str(error).startswith(path) else UserError(f"{path}: {error}") from None
