"""Whisper models in and out: hub ids, local folders and remote folders; every mistake becomes one line."""

import json
import os
import pickle
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    StrictDataclassError,
)
from huggingface_hub.utils import logging as hub_logging
from safetensors import SafetensorError
from transformers import (
    GenerationConfig,
    PretrainedConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)
from transformers.models.whisper.tokenization_whisper import LANGUAGES
from transformers.utils import logging

from raykd.data.format import SpeechFormat
from raykd.errors import UserError
from raykd.models.experts import WhisperWithExperts, expert_languages
from raykd.models.lora import WhisperWithLora, lora_of
from raykd.models.shrinking import SHRINKING, ShrinkingWhisper
from raykd.storage import is_remote, local_copy, local_output

POSITIONS_PER_S = 50
"""Encoder positions a second: 100 mel frames, halved by the second convolution."""
MULTILINGUAL_VOCABULARY = 51_865
"""Smallest multilingual vocabulary; English-only models have 51 864 tokens."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_EXAMPLE = "give a folder in Hugging Face format or a hub id such as openai/whisper-large-v2"


def load_whisper(path: str, dtype: torch.dtype = torch.float32, revision: str | None = None) -> WhisperForConditionalGeneration:
    """A Whisper from a hub id or folder, in eval mode, with SDPA attention and a complete generation config.

    Raises:
        UserError: there is no such model, it is no Whisper, or its weights are missing, damaged or do not fit its config.
    """
    with _at_hand(path) as source, _quiet(source):
        config = read_config(source, revision)
        try:
            loaded: Any = model_class(config).from_pretrained(
                source,
                config=config,
                dtype=dtype,
                attn_implementation="sdpa",
                revision=revision or "main",
                output_loading_info=True,
            )
        except OSError as error:
            raise UserError(f"{path}: no usable weights ({_reason(error, source)}); {_EXAMPLE}") from None
        except RuntimeError as error:
            if "mismatch" not in str(error):
                raise
            raise UserError(f"{path}: the weights do not fit config.json; copy both from the same model") from None
        except (SafetensorError, pickle.UnpicklingError, EOFError) as error:
            raise UserError(f"{path}: the weights file is damaged ({_first_line(error)}); copy or download it again") from None
        model, loading = loaded
        missing = sorted(loading["missing_keys"])
        if missing:
            raise UserError(f"{path}: the weights lack {len(missing)} tensors, such as {missing[0]}; {_EXAMPLE}")
        if not hasattr(model.generation_config, "no_timestamps_token_id"):
            model.generation_config = generation_config_for(load_processor(source, revision).tokenizer, config)
    return model.eval()


def model_class(config: WhisperConfig) -> type[WhisperForConditionalGeneration]:
    """What a config is of: a plain Whisper, or one with modules of raykd's beside its own."""
    if lora_of(config):
        return WhisperWithLora
    if hasattr(config, SHRINKING):
        return ShrinkingWhisper
    return WhisperWithExperts if expert_languages(config) else WhisperForConditionalGeneration


def load_processor(path: str, revision: str | None = None) -> WhisperProcessor:
    """Tokenizer and feature extractor of a hub id or folder. A missing feature extractor is made from the model's config.

    Raises:
        UserError: there is no such model or it has no usable tokenizer files.
    """
    with _at_hand(path) as source, _quiet(source):
        config = read_config(source, revision)
        try:
            tokenizer = WhisperTokenizer.from_pretrained(source, revision=revision or "main")
        except Exception as error:  # the tokenizers library raises nothing narrower on a damaged file
            raise UserError(
                f"{path}: the tokenizer cannot be read ({_reason(error, source)}); copy it from the base model"
            ) from None
        # transformers makes an empty tokenizer where the files are missing.
        if tokenizer.decode(tokenizer.encode("abc"), skip_special_tokens=True) != "abc" or len(tokenizer) > config.vocab_size:
            raise UserError(
                f"{path}: no tokenizer files of this model; copy tokenizer.json and tokenizer_config.json from the base model"
            )
        try:
            extractor = WhisperFeatureExtractor.from_pretrained(source, revision=revision or "main")
        except OSError:
            extractor = feature_extractor_for(config)
    return WhisperProcessor(extractor, tokenizer)


def speech_format(path: str, revision: str | None = None) -> SpeechFormat:
    """What a model wants of its input. A local folder is named by its absolute path: workers run in other folders.

    Raises:
        UserError: as `load_processor`.
    """
    load_processor(path, revision)
    with _at_hand(path) as source:
        config = read_config(source, revision)
    return SpeechFormat(
        n_mels=config.num_mel_bins,
        window_frames=2 * config.max_source_positions,
        max_label_tokens=config.max_target_positions,
        tokenizer=str(Path(path).absolute()) if os.path.isdir(path) else path,
        tokenizer_revision=revision,
    )


def drop_forced_ids(model: WhisperForConditionalGeneration) -> None:
    """Forced ids fix one language and task; the decoder prompt is given by language instead."""
    holders: tuple[Any, ...] = (model.config, model.generation_config)
    for holder in holders:
        if getattr(holder, "forced_decoder_ids", None) is not None:
            holder.forced_decoder_ids = None


def config_if_here(path: str, revision: str | None) -> WhisperConfig | None:
    """The config of a model whose tokenizer can be read; None for a remote folder, which is fetched as a whole later.

    Raises:
        UserError: as `load_processor`.
    """
    if is_remote(path):
        return None
    path = path.removeprefix("file://")
    load_processor(path, revision)
    return read_config(path, revision)


def save_whisper(model: WhisperForConditionalGeneration, processor: WhisperProcessor, folder: str) -> None:
    """Write model, generation config, tokenizer and feature extractor into one folder, local or remote."""
    with local_output(folder) as local, _quiet(local):
        model.save_pretrained(local)
        processor.save_pretrained(local)
        # transformers 5 puts the extractor into processor_config.json; faster-whisper and vLLM read preprocessor_config.json.
        processor.feature_extractor.save_pretrained(local)


def read_config(path: str, revision: str | None = None) -> WhisperConfig:
    """The config of a Whisper from a hub id or local folder, without its weights.

    Raises:
        UserError: there is no such model, or it is no Whisper.
    """
    folder = Path(path)
    if os.path.isfile(folder):
        raise UserError(f"{path}: is a file; give the folder that holds config.json and the weights")
    if os.path.isdir(folder):
        if not (folder / "config.json").is_file():
            raise UserError(f"{path}: has no config.json, so it is no model in Hugging Face format; {_EXAMPLE}")
    elif not _HUB_ID.fullmatch(path) or path.startswith("."):
        raise UserError(f"{path}: no such folder; {_EXAMPLE}")
    try:
        with _quiet(path):
            asleep = not os.path.isdir(folder) and _hub_is_out_of_reach()
            values, _ = PretrainedConfig.get_config_dict(path, revision=revision or "main", local_files_only=asleep)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {_reason(error, path)}; {_EXAMPLE}") from None
    if values.get("model_type") != "whisper":
        raise UserError(f"{path}: is a {values.get('model_type', 'nameless')} model, not a Whisper; {_EXAMPLE}")
    try:
        return WhisperConfig.from_dict(values)
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise UserError(f"{path}: config.json has an impossible value ({_first_line(error)})") from None


def feature_extractor_for(config: WhisperConfig) -> WhisperFeatureExtractor:
    """The feature extractor of a model's mel channels and window."""
    return WhisperFeatureExtractor(
        feature_size=config.num_mel_bins, chunk_length=config.max_source_positions // POSITIONS_PER_S
    )


def generation_config_for(tokenizer: WhisperTokenizer, config: WhisperConfig) -> GenerationConfig:
    """What `generate` needs, worked out from the vocabulary, as in the published checkpoints.

    `alignment_heads` (which heads find word times) is left out: it can only be measured on the trained model.
    """
    ids = tokenizer.get_vocab()
    end, start, no_timestamps = ids["<|endoftext|>"], ids["<|startoftranscript|>"], ids["<|notimestamps|>"]
    multilingual = config.vocab_size >= MULTILINGUAL_VOCABULARY
    languages = [f"<|{code}|>" for code in LANGUAGES if f"<|{code}|>" in ids]
    tasks: dict[str, Any] = {
        "lang_to_id": {token: ids[token] for token in languages},
        "task_to_id": {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")},
    }
    return GenerationConfig(
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=start,
        max_length=config.max_target_positions,
        max_initial_timestamp_index=POSITIONS_PER_S,
        return_timestamps=False,
        is_multilingual=multilingual,
        no_timestamps_token_id=no_timestamps,
        prev_sot_token_id=ids["<|startofprev|>"],
        # From translate up to notimestamps lie the tasks, the prompt marks and the no-speech mark; none is ever spoken.
        suppress_tokens=[*_non_speech_ids(tokenizer), start, *range(ids["<|translate|>"], no_timestamps)],
        begin_suppress_tokens=[*tokenizer.encode(" ", add_special_tokens=False), end],
        **(tasks if multilingual else {}),
    )


def _non_speech_ids(tokenizer: WhisperTokenizer) -> list[int]:
    """Tokens that only write speaker tags, brackets and music: the rule of `non_speech_tokens` in openai-whisper."""
    notes = "♩♪♫♬♭♮♯"
    repeated = ["<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))"]
    repeated += ["[[", "]]", "{{", "}}", "♪♪", "♪♪♪"]
    symbols = [*'"#()*+/:;<=>@[\\]^_`{|}~「」『』', *repeated, *notes]
    spellings = [text for symbol in symbols for text in (symbol, " " + symbol)]
    encoded = [tokenizer.encode(text, add_special_tokens=False) for text in spellings]
    # A note written with several tokens shares the first with other pictures only, so that one is left out.
    found = {ids[0] for text, ids in zip(spellings, encoded, strict=True) if len(ids) == 1 or text.strip() in notes}
    hyphen, apostrophe = (tokenizer.encode(text, add_special_tokens=False)[0] for text in (" -", " '"))
    return sorted(found | {hyphen, apostrophe})


@contextmanager
def _at_hand(path: str) -> Iterator[str]:
    """What transformers can load for `path`: a local copy of a remote folder, else the path itself."""
    if not is_remote(path):
        yield path.removeprefix("file://")
        return
    with local_copy(path) as folder:
        yield folder


@contextmanager
def _quiet(path: str) -> Iterator[None]:
    """No advice from transformers, whose gist raykd says in its own messages, and progress bars for downloads only."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub = hub_logging.get_verbosity()
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    if os.path.isdir(path):
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub)
        if bars:
            logging.enable_progress_bar()


@lru_cache(maxsize=1)
def _hub_is_out_of_reach() -> bool:
    """Whether the hub's name does not resolve: huggingface_hub would ask for half a minute. A proxy resolves it itself."""
    if getproxies():
        return False
    try:
        socket.getaddrinfo(urlsplit(ENDPOINT).hostname, None)
    except OSError:
        return True
    return False


def _reason(error: BaseException, path: str) -> str:
    """Why the hub or a folder did not give a file, in a few words."""
    if not os.path.isdir(path):
        chain: BaseException | None = error
        while chain is not None:
            for kind, words in _HUB_REASONS.items():
                if isinstance(chain, kind):
                    return words
            chain = chain.__cause__ or chain.__context__
    return _first_line(error)


_HUB_REASONS: dict[type[BaseException], str] = {
    GatedRepoError: "neither a local folder nor open on the hub (ask for access there and run `hf auth login`)",
    RevisionNotFoundError: "the hub has no such revision of it",
    RepositoryNotFoundError: "neither a local folder nor a model on the hub",
    LocalEntryNotFoundError: "neither a local folder nor in the local cache, and the hub cannot be reached",
    OfflineModeIsEnabled: "neither a local folder nor in the local cache, and HF_HUB_OFFLINE is set",
    EntryNotFoundError: "a repository on the hub without the files of a model",
    json.JSONDecodeError: "config.json is not valid JSON",
}


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
