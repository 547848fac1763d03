"""Corpora, file readers and tag schemes.

Importing this room does not load the `datasets` library; the functions that need it load it when called.
"""

from structkd.data.base_phrases import BASE_PHRASE_TYPES, base_phrases
from structkd.data.columns import TaggedSentence, read_columns
from structkd.data.conllu import UPOS, DependencySentence, read_conllu
from structkd.data.corpus import (
    UNLABELLED,
    Corpus,
    drop_repeated,
    label_dataset,
    label_splits,
    student_regime,
    teacher_regime,
)
from structkd.data.package_files import PackageFile, cache_folder, cached_package_file
from structkd.data.petrogold import load_petrogold
from structkd.data.tagging import (
    Span,
    convert_tags,
    find_violation,
    legal_transitions,
    spans,
    tag_inventory,
    tag_spans,
    validate_tags,
)
from structkd.data.universal_ner import ENTITY_TYPES, load_uner_ewt

__all__ = [
    "BASE_PHRASE_TYPES",
    "ENTITY_TYPES",
    "UNLABELLED",
    "UPOS",
    "Corpus",
    "DependencySentence",
    "PackageFile",
    "Span",
    "TaggedSentence",
    "base_phrases",
    "cache_folder",
    "cached_package_file",
    "convert_tags",
    "drop_repeated",
    "find_violation",
    "label_dataset",
    "label_splits",
    "legal_transitions",
    "load_petrogold",
    "load_uner_ewt",
    "read_columns",
    "read_conllu",
    "spans",
    "student_regime",
    "tag_inventory",
    "tag_spans",
    "teacher_regime",
    "validate_tags",
]
