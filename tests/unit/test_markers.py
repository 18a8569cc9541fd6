"""What stands in transcripts and was not spoken; sentences and recordings that are in two splits."""

import pytest

from raykd.data.leaks import same_recordings, same_sentences, same_sounds
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
        ("((best guess)) hello there", "best guess hello there"),
        ("so (( )) there (( (laughs) ))", "so there"),
        ("((laughter in here)) (laughs)", "laughter in here"),
        ("hello [laughter-yeah] there", "hello yeah there"),
        ("The album (music by Bach) was recorded", "The album (music by Bach) was recorded"),
        ("she studied (noise pollution) at school", "she studied (noise pollution) at school"),
        ("(foreign exchange) matters", "(foreign exchange) matters"),
        ("they stood (in silence) there", "they stood (in silence) there"),
        ("the band (musicians of note) came", "the band (musicians of note) came"),
        ("well (speaking in a foreign language) yes", "well yes"),
        ("(Laughter and applause.) thanks (soft music playing)", "thanks"),
        ("（笑）你好", "你好"),
        ("if x<y and y>z then go", "if x<y and y>z then go"),
        ("so {we went home} again", "so {we went home} again"),
        ("so {background noise} it <crowd cheering> is", "so it is"),
        ('<font color="#fff" size=2>white</font> <i>words</i>', "white words"),
        ("<v Bob>hello <breath/> there", "hello there"),
        (r"{\an8}hello", "hello"),
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


def test_what_sounds_the_same_in_one_split_is_counted_and_named() -> None:
    rows = [
        ("a", "s1", "Seven boats.", "train"),
        ("2:a", "s1", "seven boats", "train"),
        ("b", "s2", "the lamp", "train"),
        ("c", "s2", "is on", "train"),
        ("d", "s2", "at night", "train"),
        ("e", "s3", "in dev", "dev"),
        ("f", "s3", "in test", "test"),
        ("g", "s4", "unused", "dev_unused"),
        ("h", "s4", "unused", "dev_unused"),
    ]
    found = same_sounds(*zip(*rows, strict=True))
    assert [(one.split, one.same_text, one.utterances, one.of) for one in found] == [
        ("train", True, 1, 5),
        ("train", False, 2, 5),
    ]
    assert "1 of 5 utterances of train sound exactly like another one and have its text, such as '2:a' and 'a'" in str(found[0])
    assert "such as 'c' ('is on') and 'b' ('the lamp'): parts of a recording whose start and end" in str(found[1])
