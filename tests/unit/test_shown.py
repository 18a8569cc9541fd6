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
        ("postgresql://mlflow:ab/cd@db/mlflow", "postgresql://mlflow:***@db/mlflow"),
        ("is postgresql://u:p@ss/w0rd@db:5432/m gone?", "is postgresql://u:***@db:5432/m gone?"),
        ("postgresql://u:p#s?s@db/m", "postgresql://u:***@db/m"),
        ("mysql://u:p\"q'@h/db", "mysql://u:***@h/db"),
        ("postgresql://u:'a b'@db/x", "postgresql://u:***@db/x"),
        ("s3://AKIA:se/cr+et@bucket/x", "s3://AKIA:***@bucket/x"),
        ("redis://:1234@h and redis://:5/5@h", "redis://:***@h and redis://:***@h"),
        ("mysql://me@server:p/w@h/db", "mysql://me@server:***@h/db"),
        ("from s3://a:b/c@d/e to s3://f:g@h, says i@j.org", "from s3://a:***@d/e to s3://f:***@h, says i@j.org"),
        ("s3://b?endpoint_override=http://u:p/w@minio:9000", "s3://b?endpoint_override=http://u:***@minio:9000"),
        ("s3://b?aws_sas=x&y=1", "s3://b?aws_sas=***&y=1"),
        ("https://h/x?code=x&jwt=y", "https://h/x?code=***&jwt=***"),
        ("mysql://h/m?password='a b'&x=1", "mysql://h/m?password=***&x=1"),
        ("'mysql://h/m?password=a#b\"c'", "'mysql://h/m?password=***'"),
        ("https://h/x?encoding=a&language_code=cs", "https://h/x?encoding=a&language_code=cs"),
        ("http://tracker:5000/a@b and http://h:80, or a@b.org", "http://tracker:5000/a@b and http://h:80, or a@b.org"),
        ("s3://bucket: no such file; write to a@b.org", "s3://bucket: no such file; write to a@b.org"),
        ("s3://bucket/a@b s3://bucket/x:y@z", "s3://bucket/a@b s3://bucket/x:y@z"),
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
