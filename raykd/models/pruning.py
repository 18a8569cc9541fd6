"""Whisper's vocabulary cut to the tokens that are needed, and put back.

A model with a cut vocabulary says so in its config (`KEPT_TOKENS`: of each of its tokens, the id in the whole vocabulary). Its
tokens keep their order, so that what runtimes derive from it (languages right after the start token, times at the end) holds.

Shapes: V tokens of the whole vocabulary, K kept tokens, D width.
"""

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperTokenizer

KEPT_TOKENS = "kept_tokens"
"""Key of a model's config: ids of its tokens in the whole vocabulary, ascending."""
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "no_timestamps_token_id", "prev_sot_token_id")
_LISTS = ("suppress_tokens", "begin_suppress_tokens")
_MAPS = ("lang_to_id", "task_to_id")


def kept_tokens(config: WhisperConfig) -> tuple[int, ...] | None:
    """Of a model with a cut vocabulary; None: it has its generation's whole one."""
    kept = getattr(config, KEPT_TOKENS, None)
    return None if kept is None else tuple(kept)


def whole_vocabulary(config: WhisperConfig) -> int:
    """Tokens of the vocabulary that a model has, or that its own was cut from (whose last token is always kept)."""
    kept = kept_tokens(config)
    return config.vocab_size if kept is None else kept[-1] + 1


def tokens_to_keep(tokenizer: WhisperTokenizer, used: Iterable[int]) -> list[int]:
    """Ids, ascending: what is used, all special tokens and times, all bytes, and all that the merges of these pass through.

    So everything can be spelled, and text whose tokens are all used is spelled as before: the merges that made it are there and
    in the same order. The empty token stays too: CTranslate2 tells multilingual vocabularies by it.
    """
    spelled, described = tokenizer.get_vocab(), _described(tokenizer)
    names = {number: name for name, number in described["model"]["vocab"].items()}
    parents: dict[str, set[str]] = defaultdict(set)
    for left, right in _merges(described):
        parents[left + right] |= {left, right}
    kept = {number for number, name in names.items() if len(name) <= 1}
    kept |= {number for number in spelled.values() if number not in names}
    open_ids = [number for number in set(used) if number not in kept]
    while open_ids:
        number = open_ids.pop()
        kept.add(number)
        open_ids += [spelled[name] for name in parents[names[number]] if spelled[name] not in kept]
    return sorted(kept)


def prune_tokenizer(tokenizer: WhisperTokenizer, kept: Sequence[int]) -> WhisperTokenizer:
    """The same tokenizer with those tokens only, numbered anew in their order."""
    new_ids = {old: new for new, old in enumerate(kept)}
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        path = Path(folder, "tokenizer.json")
        described = json.loads(path.read_text(encoding="utf-8"))
        model = described["model"]
        vocabulary = {name: new_ids[number] for name, number in model["vocab"].items() if number in new_ids}
        model["vocab"] = vocabulary
        model["merges"] = [
            merge
            for merge, (left, right) in zip(model["merges"], _merges(described), strict=True)
            if {left, right, left + right} <= vocabulary.keys()
        ]
        for token in described["added_tokens"]:
            token["id"] = new_ids[token["id"]]
        for token in ((described.get("post_processor") or {}).get("special_tokens") or {}).values():
            token["ids"] = [new_ids[number] for number in token["ids"]]
        path.write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")
        settings = json.loads(Path(folder, "tokenizer_config.json").read_text(encoding="utf-8"))
        settings.pop("added_tokens_decoder", None)  # the same list again, with the old ids
        Path(folder, "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        return WhisperTokenizer.from_pretrained(folder)


def prune_whisper(model: WhisperForConditionalGeneration, kept: Sequence[int]) -> None:
    """Leave a model those tokens: embedding, output head, config and generation config. In place.

    Its distribution is then what it was, given that the token is one of these: the softmax over the kept logits. So the mass
    of tokens that were dropped is shared out in proportion.
    """
    before = kept_tokens(model.config)
    old = torch.tensor(kept)
    tied = model.proj_out.weight is model.model.decoder.embed_tokens.weight
    model.model.decoder.embed_tokens = _embedding(model.model.decoder.embed_tokens.weight[old])
    if tied:
        model.proj_out.weight = model.model.decoder.embed_tokens.weight
    else:
        model.proj_out.weight = nn.Parameter(model.proj_out.weight[old].detach().clone())
    model.proj_out.out_features = len(kept)
    _renumber(model, {one: new for new, one in enumerate(kept)})
    model.config.vocab_size = len(kept)
    setattr(model.config, KEPT_TOKENS, [before[one] if before else one for one in kept])


def cut_to(model: WhisperForConditionalGeneration, kept: Sequence[int] | None) -> None:
    """Leave a model those tokens of the whole vocabulary; None: all. One that was cut to them before stays as it is."""
    if kept is not None and kept_tokens(model.config) != tuple(kept):
        prune_whisper(model, kept)


def pad_whisper(model: WhisperForConditionalGeneration, vocabulary: int) -> None:
    """Give a cut model its whole vocabulary back, each token at its old id. In place.

    For runtimes that know vocabularies by their size. A token that was dropped gets the mean embedding of kept tokens of text
    that are never suppressed. Its logit is then the mean of theirs, below the largest of them: what is chosen stays the same.
    """
    kept = kept_tokens(model.config)
    assert kept is not None
    never = {one for name in _LISTS for one in getattr(model.generation_config, name, None) or ()}
    end = model.generation_config.eos_token_id
    text = torch.tensor([new for new in range(len(kept)) if new < end and new not in never])
    ids = torch.tensor(kept)

    def whole(weight_KD: Tensor) -> Tensor:
        filler_D = weight_KD[text].double().mean(0).to(weight_KD.dtype)
        weight_VD = filler_D.repeat(vocabulary, 1)
        weight_VD[ids] = weight_KD
        return weight_VD

    tied = model.proj_out.weight is model.model.decoder.embed_tokens.weight
    head_VD = whole(model.proj_out.weight.detach())
    model.model.decoder.embed_tokens = _embedding(whole(model.model.decoder.embed_tokens.weight.detach()))
    model.proj_out.weight = model.model.decoder.embed_tokens.weight if tied else nn.Parameter(head_VD)
    model.proj_out.out_features = vocabulary
    _renumber(model, dict(enumerate(kept)))
    model.config.vocab_size = vocabulary
    delattr(model.config, KEPT_TOKENS)


def _embedding(weight_KD: Tensor) -> nn.Embedding:
    return nn.Embedding.from_pretrained(weight_KD.detach().clone(), freeze=not weight_KD.requires_grad)


def _renumber(model: WhisperForConditionalGeneration, new_ids: dict[int, int]) -> None:
    """Token ids in both configs."""
    holders: tuple[Any, ...] = (model.config, model.generation_config)
    for holder in holders:
        for name in _IDS:
            if getattr(holder, name, None) is not None:
                setattr(holder, name, new_ids[getattr(holder, name)])
        for name in _LISTS:
            if getattr(holder, name, None) is not None:
                setattr(holder, name, [new_ids[one] for one in getattr(holder, name) if one in new_ids])
        for name in _MAPS:
            if getattr(holder, name, None) is not None:
                setattr(holder, name, {token: new_ids[number] for token, number in getattr(holder, name).items()})


def _described(tokenizer: WhisperTokenizer) -> dict[str, Any]:
    """The tokenizer as its file has it."""
    return json.loads(tokenizer.backend_tokenizer.to_str())


def _merges(described: dict[str, Any]) -> list[tuple[str, str]]:
    """Older files write a merge as one string."""
    pairs = [one.split(" ") if isinstance(one, str) else one for one in described["model"]["merges"]]
    return [(left, right) for left, right in pairs]
