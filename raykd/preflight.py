"""What can be found wrong with a run before Ray starts, speech is made or a demo teacher is trained."""

import copy

from transformers import WhisperConfig

from raykd import storage
from raykd.config import Config, MlmRunConfig, load_config, load_mlm_config
from raykd.config.data import DataConfig, DemoSource, HuggingFaceSource
from raykd.config.objective import mlm_of
from raykd.config.text import TextConfig
from raykd.data.demo.corpus import check_source
from raykd.data.languages import configured_language
from raykd.data.sources import source_parts
from raykd.data.text_sources import text_parts
from raykd.errors import UserError
from raykd.evaluation.vocabulary import Vocabulary
from raykd.models.demo import scratch_config
from raykd.models.masked_lm import masked_lm_config
from raykd.models.student import check_compatible, kept_layers
from raykd.models.whisper import load_processor, read_config
from raykd.tracking.run_folder import RunFolder


def check_run(config: Config, resume: bool) -> None:
    """Look at everything a run needs that can be looked at in seconds; a finished run that is resumed needs nothing.

    Raises:
        UserError: nothing to resume, a source, a model or a layer that is not there, or a folder that cannot be written.
    """
    if resume and RunFolder.latest(config.output_dir, config.name).finished:
        return
    for key, folder in (("output_dir", config.output_dir), ("data.cache_dir", config.data.cache_dir)):
        _require_writable(key, folder)
    check_sources(config.data)
    student = _student_config(config, ())
    _check_mlm(config, student)
    if config.evaluation.vocabulary is not None:
        Vocabulary.load(config.evaluation.vocabulary)


def _check_mlm(config: Config, student: WhisperConfig | None) -> None:
    """The masked language model that teaches, or the config that it will be trained from."""
    mlm = mlm_of(config.objective)
    if mlm is None:
        return
    if mlm.trained_by_raykd:
        try:
            check_text(load_mlm_config(mlm.model).text)
        except UserError as error:
            raise error if str(error).startswith(mlm.model) else UserError(f"{mlm.model}: {error}") from None
        return
    tokens = masked_lm_config(mlm.model)["vocab_size"]
    if student is not None and tokens != student.vocab_size:
        raise UserError(
            f"objective.mlm: {mlm.model} has {tokens} tokens and the student {student.vocab_size}; "
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
        _require_writable(key, folder)
    check_text(config.text)
    if config.mlm.tokenizer is not None and not storage.is_remote(config.mlm.tokenizer):
        load_processor(config.mlm.tokenizer)


def check_sources(config: DataConfig) -> None:
    """List the sources on this machine; listing a bucket may take minutes, and is left to the preparation.

    Raises:
        UserError: a source is not there or cannot be used, or a language is not known.
    """
    configured_language(config.language, "data.language")
    for source in config.source:
        if isinstance(source, DemoSource):
            check_source(source)
        elif not isinstance(source, HuggingFaceSource) and not storage.is_remote(source.path):
            source_parts(source, config)


def check_text(config: TextConfig) -> None:
    """List the sources of text on this machine.

    Raises:
        UserError: a source is not there or cannot be used, or the language is not known.
    """
    language = configured_language(config.language, "text.language")
    assert language is not None
    text_parts(config, language)


def _require_writable(key: str, folder: str) -> None:
    try:
        storage.make_dir(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{key}: {folder} cannot be written ({reason}); give a writable folder") from None


def _student_config(config: Config, above: tuple[str, ...]) -> WhisperConfig | None:
    """Dimensions of the student, once it and its teacher are found possible; None when they are not known on this machine.

    `above`: the raykd configs whose teacher this student becomes.
    """
    student, teacher = config.student, _teacher_config(config, above)
    if student.init == "scratch":
        made: WhisperConfig | None = scratch_config(student.scratch)
    elif student.init != "teacher":
        made = _config_of_model(student.init, student.revision)
    elif teacher is not None:
        made = copy.deepcopy(teacher)
        made.encoder_layers = len(kept_layers(student.encoder_layers, teacher.encoder_layers, "student.encoder_layers"))
        made.decoder_layers = len(kept_layers(student.decoder_layers, teacher.decoder_layers, "student.decoder_layers"))
    else:
        made = None
    if teacher is not None and made is not None:
        check_compatible(teacher, made)
    return made


def _teacher_config(config: Config, above: tuple[str, ...]) -> WhisperConfig | None:
    if config.teacher is None:
        return None
    path = config.teacher.model
    if not config.teacher.trained_by_raykd:
        return _config_of_model(path, config.teacher.revision)
    if storage.absolute(path) in above:
        raise UserError(f"{path}: teacher.model: leads back to this file, so that no teacher is ever made; name another model")
    teacher = load_config(path)
    try:
        check_sources(teacher.data)
        return _student_config(teacher, (*above, storage.absolute(path)))
    except UserError as error:
        raise error if str(error).startswith(path) else UserError(f"{path}: {error}") from None


def _config_of_model(path: str, revision: str | None) -> WhisperConfig | None:
    """The config of a model whose tokenizer can be read; None for a remote folder, which is fetched as a whole later."""
    if storage.is_remote(path):
        return None
    path = path.removeprefix("file://")
    load_processor(path, revision)
    return read_config(path, revision)
