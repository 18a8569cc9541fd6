"""Held-out words: never in train, dev and test, at least one in every sentence of test_words."""

from collections import Counter

import numpy as np
import pytest

from raykd.config.data import DemoSource
from raykd.data.demo.corpus import Shard, check_source, make_utterance, plan_shards, shard_table, splits_of
from raykd.data.demo.grammar import KINDS, UNSEEN_KINDS
from raykd.data.demo.held_out import held_out_words, pool
from raykd.data.demo.languages import GRAMMARS
from raykd.errors import UserError

SHARE = 0.1


@pytest.mark.slow
@pytest.mark.parametrize("language", GRAMMARS)
def test_grammars_know_which_sentences_hold_a_word(language: str) -> None:
    grammar = GRAMMARS[language]
    for kind in (*KINDS, *UNSEEN_KINDS):
        spoken = [set(grammar.sentence(kind, number).split()) for number in range(grammar.size(kind))]
        counts = Counter(word for words in spoken for word in words)
        shares = grammar.word_shares(kind)
        assert shares.keys() == counts.keys()
        assert all(shares[word] == pytest.approx(counts[word] / len(spoken)) for word in counts)
        some = set(sorted(counts)[::7])
        np.testing.assert_array_equal(grammar.holding(kind, some), [not words.isdisjoint(some) for words in spoken])


@pytest.mark.slow
@pytest.mark.parametrize("language", GRAMMARS)
def test_splits_keep_to_their_words(language: str) -> None:
    grammar, words = GRAMMARS[language], held_out_words(0, language, SHARE)
    for kind in KINDS:
        texts = {
            split: {grammar.sentence(kind, int(number)) for number in pool(0, split, language, kind, SHARE)}
            for split in ("train", "dev", "test", "test_words")
        }
        for split, sentences in texts.items():
            held = [not words.isdisjoint(sentence.split()) for sentence in sentences]
            assert all(held) if split == "test_words" else not any(held)
        assert sum(map(len, texts.values())) == len(set.union(*texts.values()))
        assert len(texts["train"]) > 0.2 * grammar.size(kind)


def test_words_are_held_out_by_their_hash() -> None:
    everything = set().union(*(GRAMMARS["cs"].word_shares(kind) for kind in KINDS))
    few, more = held_out_words(0, "cs", SHARE), held_out_words(0, "cs", 2 * SHARE)
    assert few < more < everything
    assert 0.6 * SHARE < len(few) / len(everything) < 1.4 * SHARE
    assert held_out_words(1, "cs", SHARE) != few
    common = [word for kind in KINDS for word, share in GRAMMARS["cs"].word_shares(kind).items() if share > 0.2]
    assert common
    assert not held_out_words(0, "cs", 0.999).intersection(common)


def test_without_held_out_words_nothing_changes() -> None:
    """The sentences of a demo corpus as they were before words could be held out."""
    texts = [make_utterance(0, split, "cs", "place", 3)["text"] for split in ("train", "dev", "test")]
    assert texts == [
        "matěj jede z pardubic do přerova",
        "cesta z plzně do kolína trvá dvacet pět minut",
        "barbora bydlí v brně",
    ]
    assert splits_of(DemoSource()) == ("train", "dev", "test", "test_ood")


def test_test_words_is_as_large_as_test() -> None:
    source = DemoSource(hours=1, held_out_words=SHARE)
    seconds: dict[str, float] = dict.fromkeys(splits_of(source), 0.0)
    for shard in plan_shards(source):
        seconds[shard.split] += shard.seconds
    assert seconds["test_words"] == seconds["test"] > 0


def test_rows_of_test_words_have_the_voices_of_train() -> None:
    source = DemoSource(kinds=("name", "number"), hours=0.01, held_out_words=SHARE)
    words = held_out_words(0, "cs", SHARE)
    (rows, train) = (shard_table(source, Shard(split, 0, 1, 20.0)).to_pylist() for split in ("test_words", "train"))
    assert rows
    assert all(row["split"] == "test_words" and not words.isdisjoint(row["text"].split()) for row in rows)
    assert not any(not words.isdisjoint(row["text"].split()) for row in train)
    assert not {row["id"] for row in rows + train} & {make_utterance(0, "train", "cs", "name", 0)["id"]}


def test_shares_that_leave_a_split_empty_are_refused() -> None:
    with pytest.raises(UserError, match=r"^data\.source\.held_out_words: 0\.99 leaves too few cs sentences of kind number"):
        check_source(DemoSource(held_out_words=0.99))
    with pytest.raises(UserError, match=r"^data\.source\.held_out_words: 1e-09 holds out no cs word of the kinds name;"):
        check_source(DemoSource(kinds=("name",), held_out_words=1e-9))
