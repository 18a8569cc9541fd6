"""A cut vocabulary: nothing becomes unspellable, the rest stays what it was, and padding puts it back."""

import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import WhisperTokenizer

from raykd.data.corpus import Corpus
from raykd.data.text import LabelEncoder
from raykd.data.token_map import TokenMap
from raykd.errors import UserError
from raykd.models.masked_lm import new_masked_lm
from raykd.models.pairs import check_compatible
from raykd.models.pruning import (
    kept_tokens,
    pad_whisper,
    prune_tokenizer,
    prune_whisper,
    tokens_to_keep,
    whole_vocabulary,
)
from raykd.models.whisper import load_processor, load_whisper, save_whisper
from raykd.parts.students.vocabulary import FromCorpus, frequent_words

TEXTS = [" Žluťoučký kůň úpěl ďábelské ódy.", " jedna dva tři, čtyři sta padesát pět", " Well... it's 3:45 p.m. (sharp)!"]


@pytest.fixture(scope="module")
def whole(tiny_whisper_dir: Path) -> WhisperTokenizer:
    return load_processor(str(tiny_whisper_dir)).tokenizer


@pytest.fixture(scope="module")
def kept(whole: WhisperTokenizer) -> list[int]:
    return tokens_to_keep(whole, {one for text in TEXTS for one in whole.encode(text, add_special_tokens=False)})


@pytest.fixture(scope="module")
def pruned_dir(tiny_whisper_dir: Path, kept: list[int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pruned")
    model, processor = load_whisper(str(tiny_whisper_dir)), load_processor(str(tiny_whisper_dir))
    prune_whisper(model, kept)
    processor.tokenizer = prune_tokenizer(processor.tokenizer, kept)
    save_whisper(model, processor, str(folder))
    return folder


def test_the_texts_that_decided_are_spelled_as_before(whole: WhisperTokenizer, kept: list[int]) -> None:
    small = prune_tokenizer(whole, kept)
    assert len(small) == len(kept) < 2500
    for text in TEXTS:
        ids = small.encode(text, add_special_tokens=False)
        assert [kept[one] for one in ids] == whole.encode(text, add_special_tokens=False)


def test_nothing_becomes_unspellable(whole: WhisperTokenizer, kept: list[int]) -> None:
    small, draw = prune_tokenizer(whole, kept), random.Random(0)
    for _ in range(300):
        points = [draw.choice([draw.randrange(32, 0x250), draw.randrange(0x400, 0x3000), draw.randrange(0x1F300, 0x1F600)])]
        text = "".join(chr(draw.choice([*points, draw.randrange(32, 127)])) for _ in range(draw.randrange(1, 30)))
        assert small.decode(small.encode(text, add_special_tokens=False), clean_up_tokenization_spaces=False) == text


@pytest.mark.slow
def test_all_special_tokens_and_times_stay_and_in_their_order(whole: WhisperTokenizer, kept: list[int]) -> None:
    small = prune_tokenizer(whole, kept)
    special = {name: number for name, number in whole.get_vocab().items() if name.startswith("<|")}
    assert len(special) == 1608
    new_ids = [small.get_vocab()[name] for name in sorted(special, key=lambda name: special[name])]
    assert new_ids == list(range(len(kept) - 1608, len(kept)))
    assert small.get_vocab()[""] == len(kept) - 1609, "CTranslate2 tells multilingual models by it"
    assert small("abc").input_ids[0] == small.get_vocab()["<|startoftranscript|>"]


@pytest.mark.slow
def test_what_a_model_says_is_what_it_said_given_the_kept_tokens(
    tiny_whisper_dir: Path, pruned_dir: Path, kept: list[int]
) -> None:
    before, after = load_whisper(str(tiny_whisper_dir)), load_whisper(str(pruned_dir))
    assert (after.config.vocab_size, kept_tokens(after.config)) == (len(kept), tuple(kept))
    assert whole_vocabulary(after.config) == 51_865
    assert after.proj_out.weight is after.model.decoder.embed_tokens.weight
    mel_BMF = torch.randn(1, before.config.num_mel_bins, 2 * before.config.max_source_positions)
    ids_BU = torch.tensor([[len(kept) - 1607, 5, 9]])
    with torch.no_grad():
        small_BUV = after(mel_BMF, decoder_input_ids=ids_BU).logits
        whole_BUV = before(mel_BMF, decoder_input_ids=torch.tensor(kept)[ids_BU]).logits
    torch.testing.assert_close(small_BUV, whole_BUV[..., kept], rtol=0, atol=1e-5)
    generation: Any = after.generation_config
    old: Any = before.generation_config
    assert kept[generation.no_timestamps_token_id] == old.no_timestamps_token_id
    assert {token: kept[number] for token, number in generation.lang_to_id.items()} == old.lang_to_id
    assert {kept[one] for one in generation.suppress_tokens} == set(old.suppress_tokens) & set(kept)
    assert [kept[one] for one in generation.begin_suppress_tokens] == old.begin_suppress_tokens


@pytest.mark.slow
def test_padding_puts_every_token_back_and_no_other_is_ever_chosen(
    tiny_whisper_dir: Path, pruned_dir: Path, kept: list[int]
) -> None:
    small, padded, old = (load_whisper(str(folder)) for folder in (pruned_dir, pruned_dir, tiny_whisper_dir))
    pad_whisper(padded, 51_865)
    assert kept_tokens(padded.config) is None
    assert padded.config.eos_token_id == old.config.eos_token_id
    new_ids: Any = padded.generation_config
    old_ids: Any = old.generation_config
    assert new_ids.lang_to_id == old_ids.lang_to_id
    weight_VD, random_ND = padded.proj_out.weight, 5 * torch.randn(2000, small.config.d_model)
    torch.testing.assert_close(weight_VD[kept], small.proj_out.weight, rtol=0, atol=0)
    never = sorted({*small.generation_config.suppress_tokens, *small.generation_config.begin_suppress_tokens})
    small_NV, padded_NV = random_ND @ small.proj_out.weight.T, random_ND @ weight_VD.T
    small_NV[:, never] = padded_NV[:, torch.tensor(kept)[never]] = -torch.inf
    small_NV, padded_NV = small_NV[:, : len(kept) - 1608], padded_NV[:, :50_257]  # text only: times are another rule's
    torch.testing.assert_close(torch.tensor(kept)[small_NV.argmax(-1)], padded_NV.argmax(-1), rtol=0, atol=0)


def test_labels_of_a_corpus_follow(tiny_whisper_dir: Path, pruned_dir: Path, kept: list[int]) -> None:
    corpus, student = LabelEncoder(str(tiny_whisper_dir)), LabelEncoder(str(pruned_dir))
    tokens = TokenMap(corpus, kept)
    for text in TEXTS:
        assert tokens.ids(corpus.encode(text, "cs")) == student.encode(text, "cs")
    other = corpus.encode("příliš xylofonů 漢字", "cs")
    spelled = tokens.ids(other)
    assert len(spelled) > len(other)
    assert student.decode(spelled) == corpus.decode(other) == "příliš xylofonů 漢字"
    assert tokens.pad_id == student.pad_id
    assert student.languages == corpus.languages


def test_a_masked_language_model_follows(kept: list[int]) -> None:
    model = new_masked_lm(51_865, 8, 1, mask_id=50_337, seed=0)
    before_VD = model.embedding.weight.detach().clone()
    model.prune(kept)
    torch.testing.assert_close(model.embedding.weight, before_VD[kept], rtol=0, atol=0)
    assert kept[model.mask_id] == 50_337


def test_who_can_teach_whom(tiny_whisper_dir: Path, pruned_dir: Path) -> None:
    whole, cut = (load_whisper(str(folder)).config for folder in (tiny_whisper_dir, pruned_dir))
    check_compatible(whole, cut)
    check_compatible(cut, cut)
    with pytest.raises(UserError, match="the teacher's vocabulary was cut, and the student's is another"):
        check_compatible(cut, whole)


@pytest.mark.slow
def test_the_frequent_words_of_a_language_are_kept(
    whole: WhisperTokenizer, tiny_whisper_dir: Path, numbers: Corpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    labels = LabelEncoder(str(tiny_whisper_dir))
    few = FromCorpus(words=0).kept(whole, labels, numbers)
    (tmp_path / "more.txt").write_text("\ufeffnejneobhospodařovávatelnějšími\n\n", encoding="utf-8")
    texts = FromCorpus(words=0, texts=(str(tmp_path / "more.txt"),)).kept(whole, labels, numbers)
    many = FromCorpus(words=500).kept(whole, labels, numbers)
    assert set(few) < set(texts)
    assert set(few) < set(many)
    for text in (" protože", " Protože"):
        assert set(whole.encode(text, add_special_tokens=False)) <= set(many)
    assert not set(whole.encode(" nejneobhospodařovávatelnějšími", add_special_tokens=False)) <= set(few)
    with pytest.raises(UserError, match=r"student\.vocabulary\.words: there is no list of yue words; give"):
        frequent_words("yue", 10)
    monkeypatch.setitem(sys.modules, "wordfreq", None)
    with pytest.raises(UserError, match=r"pip install 'raykd\[vocabulary\]'"):
        frequent_words("cs", 10)
    assert frequent_words("cs", 0) == []
    with pytest.raises(UserError, match=r"texts: .*nothing\.txt cannot be read as UTF-8 text"):
        FromCorpus(words=0, texts=(str(tmp_path / "nothing.txt"),)).kept(whole, labels, numbers)
