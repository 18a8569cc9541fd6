"""An unpacked Common Voice release of one locale: `train.tsv`, `dev.tsv`, `test.tsv` and `clips/`."""

from raykd.data.files import child, list_files
from raykd.data.sources.part import Part
from raykd.data.sources.text_manifest import text_parts
from raykd.data.utterances import LANGUAGE_COLUMNS, Origin
from raykd.errors import UserError
from raykd.storage import exists

_SPLITS = ("train", "dev", "test")


def common_voice_parts(path: str, prefix: str, override: str | None, language: str | None) -> list[Part]:
    """Parts of a release. Ids are the names of the clips; `other.tsv` and `invalidated.tsv` are not read.

    Args:
        path: folder of one locale.
        prefix: start of every id.
        override: language (Whisper's code) used instead of the `locale` column.
        language: language of rows without a locale, as in the first releases.

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
        parts += text_parts(file, Origin(clips, clips, prefix, override or language, name, language_columns=columns))
    return parts
