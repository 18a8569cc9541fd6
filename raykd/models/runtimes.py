"""What the programs that students are exported to cannot do with a model. Each line was tried, or read in their code."""

from typing import Literal

from transformers import WhisperConfig

from raykd.models.experts import expert_languages
from raykd.models.pruning import kept_tokens
from raykd.models.window import clip_margin

Format = Literal["hf", "ctranslate2", "ggml", "experts"]
WINDOW_POSITIONS, LABEL_POSITIONS = 1500, 448
"""Of every published Whisper: 30 s, and the decoder's."""
_V3_VOCABULARY = 51_866


def limits(config: WhisperConfig, form: Format | None = None) -> list[str]:
    """What users of the programs will have to know of a model, one sentence each; of those that read one format, or of all."""
    found: list[tuple[set[Format], str]] = []
    if clip_margin(config) is not None:
        told = "transformers and faster-whisper give every clip the whole window; short ones: raykd/exporting/README.md"
        found.append(({"hf", "ctranslate2"}, told))
    if config.max_source_positions != WINDOW_POSITIONS:
        seconds = config.max_source_positions / 50
        told = f"whisper.cpp and faster-whisper know windows of 30 s only, this one has {seconds:g} s"
        found.append(({"ctranslate2", "ggml"}, told))
    if kept_tokens(config) is not None:
        told = "whisper.cpp knows vocabularies by their size; export with --pad-vocabulary, which makes the file larger"
        found.append(({"ggml"}, told))
    if config.decoder_layers == 2 and config.vocab_size != _V3_VOCABULARY:
        told = "whisper.cpp gives no timestamps with exactly 2 decoder layers (it takes them for an early model)"
        found.append(({"ggml"}, told))
    if expert_languages(config):
        told = (
            "CTranslate2 and whisper.cpp know no experts: --expert none exports the base model, a language's where it is exact"
        )
        found.append(({"ctranslate2", "ggml"}, told))
    return [sentence for formats, sentence in found if form is None or form in formats]


def refusal(config: WhisperConfig, form: Format, pad_vocabulary: bool) -> str | None:
    """Why a model cannot be exported to a format; None: it can."""
    if form == "experts":
        return None if expert_languages(config) else "it has no language experts; take hf"
    if form != "hf" and expert_languages(config):
        return (
            f"{form} knows no language experts, and the model has some for {', '.join(expert_languages(config))}; give "
            "--expert none for the base model alone, or --expert LANGUAGE, which is exact only where no gate of it decides"
        )
    if form != "ggml":
        return None
    if config.max_source_positions != WINDOW_POSITIONS:
        return f"whisper.cpp knows windows of 30 s only, and this model's has {config.max_source_positions / 50:g} s"
    if config.encoder_ffn_dim != 4 * config.d_model or config.decoder_ffn_dim != 4 * config.d_model:
        return "whisper.cpp takes feed-forward layers to be 4 times as wide as the model, and this model's are not"
    if kept_tokens(config) is not None and not pad_vocabulary:
        return (
            f"whisper.cpp would take its {config.vocab_size} tokens for those of another model and read them wrongly; "
            "give --pad-vocabulary to write the whole vocabulary, the dropped tokens as ones that are never chosen"
        )
    if not config.tie_word_embeddings:
        return "whisper.cpp has one table for embedding and output head, and this model has two"
    return None
