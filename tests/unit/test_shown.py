"""What is shown holds no secrets and nothing that a terminal obeys."""

import pytest

from raykd.errors import RunError, UserError
from raykd.shown import printable, shown, tree_without_secrets, without_secrets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://mole:tunnel@tracker:5000/a", "http://mole:***@tracker:5000/a"),
        ("postgresql+psycopg2://u:p@ss@h/db", "postgresql+psycopg2://u:***@h/db"),
        ("https://ghp_token@github.com/x", "https://***@github.com/x"),
        ("s3://key:secret@bucket/a?region=eu", "s3://key:***@bucket/a?region=eu"),
        ("mysql://h/ml?user=mole&password=t&x=1", "mysql://h/ml?user=mole&password=***&x=1"),
        ("s3://b/a?secret_key=AAA", "s3://b/a?secret_key=***"),
        ("https://h/f?X-Amz-Signature=abc&v=2", "https://h/f?X-Amz-Signature=***&v=2"),
        ("mail a@b.org and s3://bucket/plain", "mail a@b.org and s3://bucket/plain"),
        ("no address: password=x", "no address: password=x"),
    ],
)
def test_secrets_in_addresses_are_hidden(text: str, expected: str) -> None:
    assert without_secrets(text) == expected
    assert without_secrets(expected) == expected


def test_trees_keep_their_shape() -> None:
    tree = {"uri": "http://a:b@c", "list": ["http://a:b@c", 1, None], "deep": {"x": True}}
    assert tree_without_secrets(tree) == {"uri": "http://a:***@c", "list": ["http://a:***@c", 1, None], "deep": {"x": True}}


def test_control_characters_are_told_and_not_obeyed() -> None:
    assert printable("a\x1b[2Jb\x07\x9bc") == r"a\x1b[2Jb\x07\x9bc"
    assert printable("a\tb\nc") == "a\tb\nc"
    assert printable("user\u202etxt.exe") == r"user\u202etxt.exe"
    for kind in (UserError, RunError):
        assert str(kind("\x1b[31m http://a:b@c")) == r"\x1b[31m http://a:***@c"
    assert shown("ž €") == "ž €"
