import re

import pytest

from raykd.data.demo.grammar import KINDS, UNSEEN_KINDS, Grammar, calendar, cross
from raykd.data.demo.languages import GRAMMARS

SPOKEN = re.compile(r"[^\W\d_]+(['·-][^\W\d_]+)*( [^\W\d_]+(['·-][^\W\d_]+)*)*")

RIGHT = {
    "cs": ["číslo dvě stě padesát pět", "jsou dvě hodiny deset minut", "vlak jede ve dvanáct hodin šest minut", "deset"],
    "pl": [
        "film zaczyna się o dwudziestej drugiej",
        "dwadzieścia dwa złote",
        "dwanaście złotych",
        "to kosztuje sto jeden złotych",
    ],
    "uk": ["двадцять дві гривні", "дванадцять гривень", "зустрінемося об одинадцятій сорок одна", "сьогодні третє січня"],
    "hu": [
        "a busz budapestről vácra késik",
        "kettő",
        "két óra két perc van",
        "tizenkettő",
        "ma május elseje van",
        "száztizenkettő",
    ],
    "ca": ["vint-i-u", "vint-i-un euros", "és la una i deu minuts", "avui és l'onze d'abril", "avui és el primer de maig"],
    "en": ["it is five oh two", "today is monday the third of may", "one hundred and one pounds"],
}


def sentences(grammar: Grammar, kind: str) -> list[str]:
    return [grammar.sentence(kind, number) for number in range(grammar.size(kind))]


@pytest.mark.slow
@pytest.mark.parametrize("language", GRAMMARS)
def test_sentences_are_many_distinct_and_spoken_words(language: str) -> None:
    grammar = GRAMMARS[language]
    by_kind = {kind: sentences(grammar, kind) for kind in (*KINDS, *UNSEEN_KINDS)}
    everything = [sentence for kind in by_kind.values() for sentence in kind]
    assert len(set(everything)) == len(everything)
    assert sum(len(by_kind[kind]) for kind in KINDS) >= 10_000
    assert min(len(by_kind[kind]) for kind in KINDS) >= 5000  # a tenth of them is enough for a test split of one kind
    assert [sentence for sentence in everything if not SPOKEN.fullmatch(sentence) or sentence != sentence.lower()] == []
    assert max(len(sentence.split()) for sentence in everything) <= 12
    assert set(RIGHT[language]) <= set(everything)


def test_a_sentence_has_one_number() -> None:
    grammar = Grammar("en", {"a": "x, y z", "b": ["1", "2", "3"]}, statement="{a} and {b}\n{a}\nfixed")
    assert sentences(grammar, "statement") == [*cross(["x", "y z"], ["and 1"]), *cross(["x", "y z"], ["and 2"]),
                                               *cross(["x", "y z"], ["and 3"]), "x", "y z", "fixed"]  # fmt: skip
    with pytest.raises(IndexError):
        grammar.sentence("statement", 9)


def test_the_calendar_has_every_day_of_a_leap_year() -> None:
    dates = calendar(lambda day, month: f"{day}.{month + 1}")
    assert len(set(dates)) == 366
    assert {"29.2", "30.4", "31.12"} <= set(dates)
    assert not {"30.2", "31.4", "0.1"} & set(dates)
