"""Which kind of source of speech or of text a folder is, from what lies in it."""

from pyarrow import fs

from raykd.errors import UserError
from raykd.storage import filesystem_of

_MANIFESTS = (".jsonl", ".csv", ".tsv", ".parquet")
_TARS = (".tar", ".tar.gz", ".tgz")
_SPLITS = {"train", "dev", "validation", "valid", "test"}


def recognise_folder(path: str) -> str:
    """The source kind of a folder, local or on any pyarrow filesystem. A glob is judged by its file suffix before this.

    Raises:
        UserError: the folder does not exist or cannot be listed.
    """
    filesystem, inner = filesystem_of(path)
    try:
        info = filesystem.get_file_info(inner)
        if info.type == fs.FileType.NotFound:
            raise UserError(f"{path} does not exist; give a manifest, a tar, a folder, hf:NAME or demo")
        if info.type == fs.FileType.File:
            raise UserError(f"{path} is no manifest (.jsonl, .csv, .tsv, .parquet), no tar and no folder")
        folders, files = _names(filesystem, inner)
        if "clips" in folders and any(name.endswith(".tsv") for name in files):
            return "common_voice"
        if files & {"state.json", "dataset_dict.json"} or ("README.md" in files and "data" in folders):
            return "huggingface"
        split = next(iter(sorted(folders & _SPLITS)), None)
        if split is not None:
            files |= _names(filesystem, f"{inner}/{split}")[1]
    except OSError as error:
        raise UserError(f"{path} cannot be listed ({error.strerror or error}); check its permissions") from None
    if any(name.endswith(_TARS) for name in files):
        return "webdataset"
    if any(name.endswith(_MANIFESTS) and not name.startswith("metadata.") for name in files):
        return "manifest"
    return "audio_folder"


def recognise_text_folder(path: str) -> str:
    """The kind of text source that a folder is: `huggingface`, `parquet` or `files`; globs and odd file names are `files`.

    Raises:
        UserError: the folder cannot be listed.
    """
    filesystem, inner = filesystem_of(path)
    try:
        if filesystem.get_file_info(inner).type != fs.FileType.Directory:
            return "files"
        folders, files = _names(filesystem, inner)
    except OSError as error:
        raise UserError(f"{path} cannot be listed ({error.strerror or error}); check its permissions") from None
    if files & {"state.json", "dataset_dict.json"} or ("README.md" in files and "data" in folders):
        return "huggingface"
    return "parquet" if any(name.endswith(".parquet") for name in files) else "files"


def _names(filesystem: fs.FileSystem, folder: str) -> tuple[set[str], set[str]]:
    """Names of the folders and of the files in a folder."""
    infos = filesystem.get_file_info(fs.FileSelector(folder))
    folders = {info.base_name for info in infos if info.type == fs.FileType.Directory}
    return folders, {info.base_name for info in infos} - folders
