"""An unpacked Common Voice release of one locale: `train.tsv`, `dev.tsv`, `test.tsv` and `clips/`."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from raykd.data.columns import LANGUAGE_COLUMNS
from raykd.data.files import SourceFile, child, list_files, read_error
from raykd.data.sources.part import Part
from raykd.data.sources.text_manifest import text_parts
from raykd.data.utterances import Origin
from raykd.errors import UserError
from raykd.storage import exists, read_bytes

_SPLITS = ("train", "dev", "test")


def common_voice_parts(
    path: str, prefix: str, override: str | None, language: str | None, most: dict[str, int] | None = None
) -> list[Part]:
    """Parts of a release. Ids are the names of the clips; `other.tsv` and `invalidated.tsv` are not read.

    Args:
        path: folder of one locale.
        prefix: start of every id.
        override: language (Whisper's code) used instead of the `locale` column.
        language: language of rows without a locale, as in the first releases.
        most: rows of a split that are taken, by votes; without: all.

    Raises:
        UserError: the folder is no such release, or one of its tables cannot be read.
    """
    clips = child(path, "clips")
    names = [name for name in _SPLITS if exists(child(path, f"{name}.tsv"))]
    if not names or not exists(clips):
        raise UserError(
            f"data.source: {path} has no clips/ or none of train.tsv, dev.tsv, test.tsv; give the folder of one locale"
        )
    columns = () if override else LANGUAGE_COLUMNS
    parts: list[Part] = []
    for name in names:
        (file,) = list_files(child(path, f"{name}.tsv"), (".tsv",), "Common Voice table")
        of_file = text_parts(file, Origin(clips, clips, prefix, override or language, name, language_columns=columns))
        if most and name in most:
            chosen = tuple(prefix + clip for clip in most_voted(file, most[name]))
            of_file = [Voted(part, chosen) for part in of_file]
        parts += of_file
    return parts


@dataclass(frozen=True)
class Voted:
    """The chosen rows of a part."""

    part: Part
    ids: tuple[str, ...]

    def rows(self) -> Iterator[dict[str, Any]]:
        """See `Part`."""
        chosen = frozenset(self.ids)
        return (row for row in self.part.rows() if row["id"] in chosen)


def most_voted(file: SourceFile, count: int) -> list[str]:
    """Names of the clips with the most up-votes, of these the fewest down-votes, of these the first.

    Raises:
        UserError: the table cannot be read, or has no votes.
    """
    try:
        text = read_bytes(file.path).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise read_error(file.path, error) from None
    rows = list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))
    try:
        votes = [(-int(row["up_votes"] or 0), int(row["down_votes"] or 0), row["path"]) for row in rows]
    except (KeyError, ValueError, TypeError):
        raise UserError(
            f"data.source: {file.path} has no numbers in up_votes and down_votes to choose by; "
            "leave train_rows and dev_rows out"
        ) from None
    return [clip for _, _, clip in sorted(votes, key=lambda one: one[:2])[:count]]
