"""Treebanks of Universal Dependencies (de Marneffe et al. 2021), from files or from the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from structkd.configurable import configurable
from structkd.data.corpora.hub import load_hub_treebank
from structkd.data.corpora.treebank import load_conllu, treebank_annotation
from structkd.data.corpus import SPLITS, Corpus
from structkd.data.locate import data_folder, how_to_get, split_files

_HUB = "universal-dependencies/universal_dependencies"
_LICENCES = {"en_ewt": "CC BY-SA 4.0"}


@configurable
def load_universal_dependencies(
    treebank: str,
    task: str = "dependencies",
    scheme: str = "BIOES",
    relations: Sequence[str] | str | None = "universal",
    subtypes: bool = False,
    multiroot: bool = False,
    replace: Mapping[str, str] | None = None,
    folder: str | None = None,
    name: str | None = None,
) -> Corpus:
    """Load a treebank of Universal Dependencies, from a local folder or else from the Hugging Face hub.

    Args:
        treebank: language and treebank, as ``en_ewt``; the files are ``en_ewt-ud-{train,dev,test}.conllu``, plain or
            ``.gz``.
        task: "dependencies", trees with a column ``upos``; "upos"; or "spans", base phrases by the rule of
            `structkd.data.base_phrases`.
        scheme: tag scheme of the spans, "BIOES" or "BIO"; of no effect for the other tasks.
        relations, subtypes, multiroot, replace: see `load_conllu`; by default the universal relations without
            subtypes.
        folder: the folder that holds the files, or a folder of theirs; None: the one that ``STRUCTKD_DATA`` names.
            Without such files the data set ``universal-dependencies/universal_dependencies`` is loaded from the hub.
        name: of the corpus; None: ``ud_<treebank>``.

    Raises:
        ValueError: unknown task or scheme; a malformed file (file and line named).
        FileNotFoundError: neither has the data; the message names the places searched and both ways to get the data.
    """
    name = name or f"ud_{treebank}"
    treebank_annotation(name, task, scheme)  # refuse before any work
    pattern = f"{treebank}-ud-{{split}}.conllu"
    where = data_folder(folder)
    files = split_files(where, pattern)
    licence = _LICENCES.get(treebank, "that of the treebank, see its README")
    if files is not None:
        return load_conllu(
            *(files[split] for split in SPLITS),
            task=task,
            scheme=scheme,
            relations=relations,
            subtypes=subtypes,
            multiroot=multiroot,
            replace=replace,
            name=name,
            licence=licence,
            source=f"{pattern.format(split='{train,dev,test}')}; https://universaldependencies.org",
        )
    try:
        return load_hub_treebank(
            _HUB,
            treebank,
            task=task,
            scheme=scheme,
            relations=relations,
            subtypes=subtypes,
            multiroot=multiroot,
            replace=replace,
            name=name,
            licence=licence,
        )
    except FileNotFoundError as error:
        raise FileNotFoundError(how_to_get(f"UD {treebank}", where, pattern, _HUB, treebank, str(error))) from error


@configurable
def load_ud_ewt(
    task: str = "dependencies", scheme: str = "BIOES", subtypes: bool = False, folder: str | None = None
) -> Corpus:
    """Load UD English-EWT, English web text (Silveira et al. 2014): `load_universal_dependencies` of ``en_ewt``."""
    return load_universal_dependencies("en_ewt", task, scheme, subtypes=subtypes, folder=folder, name="ud_ewt")
