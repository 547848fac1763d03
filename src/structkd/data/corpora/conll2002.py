"""CoNLL-2002: persons, organisations, locations and others in Spanish and Dutch news (Tjong Kim Sang 2002).

The copy read is the user's own, as ``nltk.download("conll2002")`` leaves it; NLTK itself is not needed.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from structkd.configurable import configurable
from structkd.data.annotation import TagAnnotation
from structkd.data.corpora.tagged import tagged_corpus
from structkd.data.corpus import Corpus, check_task
from structkd.data.formats.columns import read_columns
from structkd.data.formats.slips import option

CONLL2002_TYPES: tuple[str, ...] = ("PER", "ORG", "LOC", "MISC")

_LANGUAGES = {"esp": "Spanish", "ned": "Dutch"}
_SUFFIXES = {"train": "train", "dev": "testa", "test": "testb"}


@configurable
def load_conll2002(
    language: str = "esp",
    task: str = "spans",
    scheme: str = "BIOES",
    repair: bool = True,
    folder: str | None = None,
) -> Corpus:
    """Load CoNLL-2002 from NLTK's folder.

    Files are ``corpora/conll2002/{esp,ned}.{train,testa,testb}``, in UTF-8 (NLTK's) or Latin-1 (the shared task's).

    Args:
        language: "esp", Spanish; or "ned", Dutch.
        task: "spans", the only one: entities.
        scheme: tag scheme, "BIOES" or "BIO".
        repair: read an I that continues no span as B, instead of refusing it (the Spanish train file has one, after a
            sentence that is cut in two).
        folder: the folder that holds the files; None: ``corpora/conll2002`` in one of the folders that ``NLTK_DATA``
            names, or in ``~/nltk_data``.

    Raises:
        ValueError: unknown language, task or scheme; a malformed file (file and line named).
        FileNotFoundError: no folder has the files; the message names the folders and a way to get the files.
    """
    check_task("CoNLL-2002", task, ("spans",))
    if language not in _LANGUAGES:
        raise ValueError(f"Unknown language {language!r} for CoNLL-2002; known: {', '.join(_LANGUAGES)}.")
    annotation = TagAnnotation.of_spans(CONLL2002_TYPES, scheme)
    root = _find(language, folder)
    sentences = {}
    changes: dict[str, Counter[str]] = {split: Counter() for split in _SUFFIXES}
    for split, suffix in _SUFFIXES.items():
        path = root / f"{language}.{suffix}"
        # One blank, and no other white space, stands between the columns.
        sentences[split] = read_columns(
            path,
            CONLL2002_TYPES,
            token_column=0,
            tag_column=-1,
            delimiter=" ",
            comment=None,
            encoding=_encoding(path),
            repair=repair,
            changes=changes[split],
            offers=("repair",),
        )
    return tagged_corpus(
        f"conll2002_{language}",
        sentences,
        annotation,
        scheme="BIO",
        task="entities",
        licence="for research only (EFE for Spanish, De Morgen for Dutch)",
        source=f"conll2002/{language}.{{train,testa,testb}}; https://www.cnts.ua.ac.be/conll2002/ner/",
        notes=f"{_LANGUAGES[language]}; dev is testa, test is testb.",
        changes=changes,
    )


def _find(language: str, folder: str | None) -> Path:
    if folder is not None:
        folders = [Path(folder).expanduser()]
    else:
        named = [Path(part).expanduser() for part in os.environ.get("NLTK_DATA", "").split(os.pathsep) if part]
        folders = [path / "corpora" / "conll2002" for path in [*named, Path.home() / "nltk_data"]]
    for path in folders:
        if all((path / f"{language}.{suffix}").is_file() for suffix in _SUFFIXES.values()):
            return path
    packed = [path.with_suffix(".zip") for path in folders if path.with_suffix(".zip").is_file()]
    hint = f" {packed[0]} is there: unpack it where it lies." if packed else ""
    raise FileNotFoundError(
        f"CoNLL-2002 ({language}.train, {language}.testa, {language}.testb) was not found in "
        f"{' or '.join(map(str, folders))}.{hint} To get it, run `python -m nltk.downloader conll2002`, or name the "
        f"folder of your copy, as {option('folder', 'my/conll2002')}, or its nltk_data folder with NLTK_DATA."
    )


def _encoding(path: Path) -> str:
    """Return UTF-8 if the file is valid UTF-8, which accented Latin-1 text hardly ever is."""
    try:
        path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"
