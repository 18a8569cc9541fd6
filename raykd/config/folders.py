"""Which kind of source a local folder is, from what lies in it."""

from pathlib import Path


def recognise_folder(path: str) -> str:
    """The source kind of a local folder.

    Raises:
        ValueError: the folder is not local or does not exist.
    """
    if "://" in path:
        raise ValueError(
            f"the kind of a remote folder is not guessed; write {{kind: common_voice, path: {path}}} or another kind"
        )
    folder = Path(path)
    if not folder.exists():
        raise ValueError(f"{path} does not exist; give a manifest, a tar, a folder, hf:NAME or demo")
    if not folder.is_dir():
        raise ValueError(f"{path} is no manifest (.jsonl, .csv, .tsv, .parquet), no tar and no folder")
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
