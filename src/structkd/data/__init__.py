"""Corpora, file readers and tag schemes.

Importing this room does not load the `datasets` library; the functions that need it load it when called.
"""

from structkd.data.annotation import Annotation, TagAnnotation, TreeAnnotation
from structkd.data.base_phrases import BASE_PHRASE_TYPES, base_phrases
from structkd.data.corpora.conll2002 import CONLL2002_TYPES, load_conll2002
from structkd.data.corpora.hub import load_hub, load_hub_treebank
from structkd.data.corpora.joined import load_joined
from structkd.data.corpora.petrogold import load_petrogold
from structkd.data.corpora.plain_text import load_text
from structkd.data.corpora.porttinari import load_porttinari, load_porttinari_text
from structkd.data.corpora.tagged import load_columns, tagged_corpus
from structkd.data.corpora.toy import load_toy
from structkd.data.corpora.treebank import load_conllu, read_treebank, treebank_annotation, treebank_corpus
from structkd.data.corpora.universal_dependencies import load_ud_ewt, load_universal_dependencies
from structkd.data.corpora.universal_ner import ENTITY_TYPES, load_uner, load_uner_ewt
from structkd.data.corpus import (
    Corpus,
    Transfer,
    drawn,
    drop_repeated,
    hidden,
    load_transfer,
    note_of,
    sentence_dataset,
    sentence_splits,
    with_note,
    without_test_sentences,
)
from structkd.data.formats.columns import TaggedSentence, read_columns
from structkd.data.formats.conllu import UNIVERSAL_RELATIONS, UPOS, DependencySentence, read_conllu
from structkd.data.formats.lines import raw_lines
from structkd.data.formats.slips import configured_at
from structkd.data.formats.tag_schemes import FILE_SCHEMES, FileScheme
from structkd.data.wheels import (
    PackageFile,
    PackageFolder,
    cache_folder,
    cached_package_file,
    cached_package_folder,
)
from structkd.numbering import UNLABELLED
from structkd.tags import (
    Span,
    convert_tags,
    find_violation,
    legal_transitions,
    repair_tags,
    spans,
    tag_inventory,
    tag_spans,
    validate_tags,
)

__all__ = [
    "BASE_PHRASE_TYPES",
    "CONLL2002_TYPES",
    "ENTITY_TYPES",
    "FILE_SCHEMES",
    "UNIVERSAL_RELATIONS",
    "UNLABELLED",
    "UPOS",
    "Annotation",
    "Corpus",
    "DependencySentence",
    "FileScheme",
    "PackageFile",
    "PackageFolder",
    "Span",
    "TagAnnotation",
    "TaggedSentence",
    "Transfer",
    "TreeAnnotation",
    "base_phrases",
    "cache_folder",
    "cached_package_file",
    "cached_package_folder",
    "configured_at",
    "convert_tags",
    "drawn",
    "drop_repeated",
    "find_violation",
    "hidden",
    "legal_transitions",
    "load_columns",
    "load_conll2002",
    "load_conllu",
    "load_hub",
    "load_hub_treebank",
    "load_joined",
    "load_petrogold",
    "load_porttinari",
    "load_porttinari_text",
    "load_text",
    "load_toy",
    "load_transfer",
    "load_ud_ewt",
    "load_uner",
    "load_uner_ewt",
    "load_universal_dependencies",
    "note_of",
    "raw_lines",
    "read_columns",
    "read_conllu",
    "read_treebank",
    "repair_tags",
    "sentence_dataset",
    "sentence_splits",
    "spans",
    "tag_inventory",
    "tag_spans",
    "tagged_corpus",
    "treebank_annotation",
    "treebank_corpus",
    "validate_tags",
    "with_note",
    "without_test_sentences",
]
