"""Find the files of a corpus in a folder of the user."""

from __future__ import annotations

import os
from pathlib import Path

from structkd.data.corpus import SPLITS


def data_folder(folder: str | None) -> Path | None:
    """Return the folder given, or else the one that ``STRUCTKD_DATA`` names, or None."""
    named = folder or os.environ.get("STRUCTKD_DATA")
    return Path(named).expanduser() if named else None


def split_files(folder: Path | None, pattern: str, splits: tuple[str, ...] = SPLITS) -> dict[str, Path] | None:
    """Find the files of a corpus in a folder, or at most two folders below.

    Args:
        folder: the folder to search.
        pattern: the file's name, as ``en_ewt-ud-{split}.conllu``; the file may be there as ``.gz``.
        splits: the splits to find.

    Returns:
        The path of every split, or None if there is no folder or it has none of the files.

    Raises:
        FileNotFoundError: some splits exist and others do not; the missing file is named.
    """
    if folder is None:
        return None
    found: dict[str, Path] = {}
    for split in splits:
        name = pattern.format(split=split)
        paths = [
            path
            for level in ("", "*/", "*/*/")
            for suffix in ("", ".gz")
            for path in sorted(folder.glob(f"{level}{name}{suffix}"))
        ]
        if paths:
            found[split] = paths[0]
    if not found:
        return None
    for split in splits:
        if split not in found:
            name = pattern.format(split=split)
            there = next(iter(found.values()))
            raise FileNotFoundError(f"{there} is there, but neither {name} nor {name}.gz is in {folder} or below.")
    return found


def how_to_get(what: str, folder: Path | None, pattern: str, dataset: str, config: str, failure: str) -> str:
    """Return the message for data that are neither in a folder nor on the hub, with both ways to get them."""
    files = pattern.format(split="{train,dev,test}")
    looked = f"Looked for {files} (plain or .gz) in {folder} and below" if folder else "STRUCTKD_DATA names no folder"
    return (
        f"{what} was not found. {looked}; looked on {failure}. To get it, either set STRUCTKD_DATA to a folder that "
        f'holds {files}, or let datasets reach the hub: load_dataset("{dataset}", "{config}").'
    )
