"""Which kind of source a local folder is, from what lies in it."""

from pathlib import Path

from raykd.errors import UserError


def recognise_folder(path: str) -> str:
    """The source kind of a local folder.

    Raises:
        UserError: the folder does not exist or its layout is none that raykd knows.
    """
    folder = Path(path)
    if not folder.exists():
        raise UserError(f"data.source: {path} does not exist; give a manifest, a tar, a folder, hf:NAME or demo")
    if not folder.is_dir():
        raise UserError(f"data.source: {path} is no manifest (.jsonl, .csv, .tsv, .parquet), no tar and no folder")
    if (folder / "clips").is_dir() and any(folder.glob("*.tsv")):
        return "common_voice"
    if (folder / "dataset_info.json").exists() or (folder / "dataset_dict.json").exists():
        return "huggingface"
    if any(folder.glob("*.tar")):
        return "webdataset"
    if any(folder.glob("*.parquet")) or any(folder.glob("manifest.*")):
        return "manifest"
    if (folder / "README.md").exists() and (folder / "data").is_dir():
        return "huggingface"
    return "audio_folder"
