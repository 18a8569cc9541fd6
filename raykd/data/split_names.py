"""Names of splits: which a word stands for, and where a source tells the split of rows that name none.

That is, in this order: the row, the name of its file, the folders inside the source, and the folder that the source itself is
or lies in, where the config has sources from folders of different splits beside each other.
"""

import posixpath
import re
from collections.abc import Collection, Sequence

from raykd.errors import UserError

_WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("dev", "devel", "development", "validation", "validate", "valid", "val"), "dev"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation", "heldout", "holdout"), "test"),
}
_ANY = "|".join(sorted(_WORDS, key=len, reverse=True))
_WORD = re.compile(rf"((?:{_ANY})+)s?(?:sets?|data|daten|splits?|clean|other)?\d*")
"""`tests`, `trainset`, `dev93`; two of them in one word (`devtest`) contradict each other."""
OWN_SPLITS = ("test_ood", "test_words")
"""Names of splits that stay as they are: those that raykd's demo speech has, and those that `data.test_splits` asks for."""
UNCLEAR_SPLIT = "unclear split"
_SHARD_NUMBER = re.compile(r"[-_.]?\d+([-_.]of[-_.]\d+)?$")
_SUFFIXES = re.compile(r"(\.(jsonl?|csv|tsv|parquet|arrow|tar|tgz))?(\.gz)?$", re.IGNORECASE)


def split_name(name: str, own: Collection[str] = OWN_SPLITS) -> str | None:
    """Our name of a split: what a person would take it for, with whatever stands around the word (`test_clean`, `dev-other`,
    `validation.clean`, `train_clean_100` are `test`, `dev`, `dev` and `train`). One of `own` stays as that has it, in whatever
    case and with whatever between its words, and a name without such a word as it is, neither trained on nor tested; None: it
    has two of them (`train_test`).
    """
    mine = next((one for one in own if _plain(one) == _plain(name)), None)
    if mine is not None:
        return mine
    found = splits_in(name)
    return (found.pop() if len(found) == 1 else None) if found else name.strip().lower()


def chosen_splits(names: Sequence[str], there: Collection[str], key: str) -> tuple[str, ...]:
    """Our names of splits that a config chooses in its own words (`validation` is `dev`).

    Raises:
        UserError: one of them is not there; `key` is where the config names them.
    """
    ours = {name: split_name(name, there) for name in names}
    missing = [name for name, mine in ours.items() if mine not in there]
    if missing:
        raise UserError(f"{key}: the data has no split {', '.join(missing)}; it has {', '.join(sorted(there))}")
    return tuple(dict.fromkeys(mine for mine in ours.values() if mine))


def splits_in(name: str) -> set[str]:
    """Splits that the words of a name stand for (`test-clean`, `TestClean`, `held_out`); a number at the end of a word counts
    for nothing (`test2`).
    """
    found: set[str] = set()
    words = re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()
    for word in re.split(r"[^a-z0-9]+", re.sub(r"h[eo]ld[\W_]+out", "heldout", words)):
        known = _WORD.fullmatch(word)
        found |= {_WORDS[one] for one in re.findall(_ANY, known[1])} if known else set()
    return found


def split_of_file(name: str) -> str | None:
    """What tells the split in a relative file name, for `split_name`: its stem without a shard's number (`train-00003.tar`,
    `cs.test.jsonl`), else its folders (`dev/rows.csv`). None: nothing does.
    """
    stem = _SHARD_NUMBER.sub("", _SUFFIXES.sub("", posixpath.basename(name)))
    return stem if splits_in(stem) else split_of_folders(name)


def split_of_folders(name: str) -> str | None:
    """The same of the folders of a relative file name, whichever of them tells it; all of them where they contradict each
    other (`train/test/a.wav`), which `split_name` refuses.
    """
    folders = posixpath.dirname(name)
    telling = [folder for folder in folders.split("/") if splits_in(folder)]
    if not telling:
        return None
    agreed = set.intersection(*map(splits_in, telling))
    return next((folder for folder in reversed(telling) if splits_in(folder) == agreed), folders)


def splits_beside(paths: Sequence[str | None]) -> list[str | None]:
    """For each source of a config what its own folder tells of its split, from the sources' paths (None: it has none).

    A folder tells something where another source's tells something else (`corpus/train` beside `corpus/test`), and not all of
    them lie in it: what is in `~/speech-test` is whatever is wanted of it.
    """
    folders = [None if path is None else _folder(path) for path in paths]
    told = []
    for folder in folders:
        name = (folder or "").rpartition("/")[2]
        around = all(other is not None and f"{other}/".startswith(f"{folder}/") for other in folders)
        told.append(None if around or not splits_in(name) else name)
    return told if len({name and split_name(name) for name in told}) > 1 else [None] * len(told)


def _folder(path: str) -> str:
    """The folder that a path is, or that its file or glob lies in."""
    parts = (path.partition("?")[0].rstrip("/") if "://" in path else posixpath.normpath(path)).split("/")
    wild = next((number for number, part in enumerate(parts) if "*" in part or "[" in part), len(parts))
    parts = parts[:wild] if wild < len(parts) or _SUFFIXES.sub("", parts[-1]) == parts[-1] else parts[:-1]
    return "/".join(parts)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "_", name.strip().lower())
