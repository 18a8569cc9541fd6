"""What stands in transcripts and was not spoken; sentences and recordings that are in two splits."""

import pytest

from raykd.data.leaks import same_recordings, same_sentences
from raykd.data.markers import without_markers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<|0.00|> seven boats lie still<|1.20|>", "seven boats lie still"),
        ("<|startoftranscript|><|en|><|transcribe|> go", "go"),
        ("yes <COMMA> the lamp is on <PERIOD>", "yes, the lamp is on."),
        ("[noise] hello [laughter]", "hello"),
        ("hello (laughter) there", "hello there"),
        ("well (speaking foreign language) yes", "well yes"),
        ("<unk> so", "so"),
        ("so {breath} it is", "so it is"),
        ("he said (and meant it) yes", "he said (and meant it) yes"),
        ("3 < 4 and 5 > 2", "3 < 4 and 5 > 2"),
        ("a [sic] b", "a b"),
        ("nothing here", "nothing here"),
        ("two  spaces", "two  spaces"),
    ],
)
def test_markers_go_and_words_stay(text: str, expected: str) -> None:
    assert without_markers(text) == expected


def test_sentences_of_two_splits_are_counted_and_named() -> None:
    texts = ["Seven boats.", "seven boats", "The lamp", "SEVEN BOATS!", "other"]
    splits = ["train", "test", "test", "dev", "train"]
    found = same_sentences(texts, splits)
    assert [(leak.split, leak.utterances, leak.of) for leak in found] == [("dev", 1, 1), ("test", 1, 2)]
    assert "'seven boats'" in str(found[1])
    assert same_sentences(["a", "b"], ["train", "test"]) == []


def test_a_recording_that_is_tested_is_not_trained_on() -> None:
    assert list(same_recordings(["x", "x", "y", "z", "z"], ["train", "test", "train", "train", "train"])) == [
        True,
        *[False] * 4,
    ]
